/* Full connect of int8 by dot products: weights go from their packed form through a register table into the sums, eight
 * outputs of one row or of up to ten at once. `kind` and `rows` are constants where they are inlined. */
#include <string.h>

#include "ops/full_connect/full_connect_dot.h"
#include "ops/gemm/gemm_dot.h"
#include "ops/int8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define WIDTH KLAUS_FULL_CONNECT_DOT_WIDTH
#define MOST_ROWS 10 /* a 10-patch job's */
#define UNROLLED _Pragma("clang loop unroll(full)")

enum kind { BYTES, Q4, Q2 };

/* ---- inputs: [step of four][rows up to a multiple of four][4], in scratch ---- */

/* Rows of one tile, and with what is filled up: one row lies as it is. */
static int32_t rows_at(int32_t batch, int32_t first) {
    return batch - first < MOST_ROWS ? batch - first : MOST_ROWS;
}

static int32_t filled_rows(int32_t rows) {
    return rows == 1 ? 1 : rows <= 4 ? 4 : 12;
}

static uint64_t inputs_bytes(const klaus_shape *s) {
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch), rest = batch % MOST_ROWS;
    const int32_t rows = batch / MOST_ROWS * filled_rows(MOST_ROWS) + (rest > 0 ? filled_rows(rest) : 0);
    return (uint64_t)klaus_full_connect_dot_inputs(s) * (uint64_t)rows;
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    (void)parts;
    return inputs_bytes(shape);
}

/* Phase 0: the share of the steps. */
static void arrange(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch);
    const int64_t inputs = klaus_shape_inputs_per_row(s), whole = klaus_full_connect_dot_inputs(s);
    int8_t *to = call->scratch;
    for (int32_t first = 0; first < batch; first += MOST_ROWS) {
        const int32_t rows = rows_at(batch, first), filled = filled_rows(rows);
        int64_t begin, end;
        klaus_share(whole, 32, part, parts, &begin, &end);
        memset(to + begin * filled, 0, (size_t)((end - begin) * filled));
        end = end < inputs ? end : inputs;
        for (int32_t r = 0; r < rows; r++) {
            const int8_t *from = (const int8_t *)call->input[0] + (first + r) * inputs;
            if (filled == 1 && end > begin)
                memcpy(to + begin, from + begin, (size_t)(end - begin));
            for (int64_t i = begin; filled > 1 && i < end; i += 4)
                memcpy(to + i * filled + 4 * r, from + i, end - i < 4 ? (size_t)(end - i) : 4);
        }
        to += whole * filled;
    }
}

/* ---- weights ---- */

/* 16 weights of number `n` out of 16 bytes of indices. */
__attribute__((always_inline)) static inline int8x16_t look_up(int8x16_t table, uint8x16_t indices, const int n,
                                                               const enum kind kind) {
    if (kind == Q4)
        indices = n == 0 ? vandq_u8(indices, vdupq_n_u8(15)) : vshrq_n_u8(indices, 4);
    else if (n == 3)
        indices = vshrq_n_u8(indices, 6);
    else
        indices = vandq_u8(n == 0 ? indices : n == 1 ? vshrq_n_u8(indices, 2) : vshrq_n_u8(indices, 4), vdupq_n_u8(3));
    return vqtbl1q_s8(table, indices);
}

/* The weights of four steps, eight vectors, from memory that is read once. */
__attribute__((always_inline)) static inline void four_steps(int8x16_t *weights, const uint8_t **from, int8x16_t table,
                                                             const enum kind kind) {
    if (kind == BYTES) {
        const uint8x16x4_t low = vld1q_u8_x4(*from), high = vld1q_u8_x4(*from + 64);
        UNROLLED for (int v = 0; v < 8; v++) weights[v] = vreinterpretq_s8_u8(v < 4 ? low.val[v] : high.val[v - 4]);
        *from += 128;
    } else if (kind == Q4) {
        const uint8x16x4_t pairs = vld1q_u8_x4(*from);
        UNROLLED for (int v = 0; v < 8; v++) weights[v] = look_up(table, pairs.val[v / 2], v % 2, kind);
        *from += 64;
    } else {
        const uint8x16x2_t fours = vld1q_u8_x2(*from);
        UNROLLED for (int v = 0; v < 8; v++) weights[v] = look_up(table, fours.val[v / 4], v % 4, kind);
        *from += 32;
    }
}

/* sum + weights of four outputs times four inputs */
__attribute__((always_inline)) static inline int32x4_t add(int32x4_t sum, int8x16_t weights, int8x16_t inputs,
                                                           const int lane) {
    return lane == 0   ? vdotq_laneq_s32(sum, weights, inputs, 0)
           : lane == 1 ? vdotq_laneq_s32(sum, weights, inputs, 1)
           : lane == 2 ? vdotq_laneq_s32(sum, weights, inputs, 2)
                       : vdotq_laneq_s32(sum, weights, inputs, 3);
}

/* ---- one row: four sums an output, so that none waits for the one before ---- */

__attribute__((always_inline)) static inline void row_of(const uint8_t *table, const uint8_t *weights,
                                                         const int8_t *inputs, int64_t count, int32_t *sums,
                                                         const enum kind kind) {
    const int8x16_t entries = kind == BYTES ? vdupq_n_s8(0) : vreinterpretq_s8_u8(vld1q_u8(table));
    int32x4_t at[8];
    UNROLLED for (int v = 0; v < 8; v++) at[v] = vdupq_n_s32(0);
#pragma clang loop unroll(disable)
    for (; count > 0; count -= 16, inputs += 16) {
        const int8x16_t x = vld1q_s8(inputs);
        int8x16_t w[8];
        four_steps(w, &weights, entries, kind);
        UNROLLED for (int v = 0; v < 8; v++) at[v] = add(at[v], w[v], x, v / 2);
    }
    UNROLLED for (int v = 0; v < 2; v++)
        vst1q_s32(sums + 4 * v, vaddq_s32(vld1q_s32(sums + 4 * v),
                                          vaddq_s32(vaddq_s32(at[v], at[v + 2]), vaddq_s32(at[v + 4], at[v + 6]))));
}

/* ---- several rows ---- */

__attribute__((always_inline)) static inline void rows_of(const uint8_t *table, const uint8_t *weights,
                                                          const int8_t *inputs, int64_t count, int32_t *sums,
                                                          const enum kind kind, const int rows) {
    const int vectors = (rows + 3) / 4;
    const int8x16_t entries = kind == BYTES ? vdupq_n_s8(0) : vreinterpretq_s8_u8(vld1q_u8(table));
    int32x4_t at[MOST_ROWS][2];
    UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < 2; v++) at[r][v] =
        vld1q_s32(sums + WIDTH * r + 4 * v);
#pragma clang loop unroll(disable)
    for (; count > 0; count -= 16) {
        uint8x16_t indices = vdupq_n_u8(0);
        UNROLLED for (int step = 0; step < 4; step++) {
            int8x16_t x[3], w[2];
            if (vectors == 3) {
                const int8x16x3_t all = vld1q_s8_x3(inputs);
                UNROLLED for (int n = 0; n < 3; n++) x[n] = all.val[n];
            } else {
                x[0] = vld1q_s8(inputs);
            }
            inputs += 16 * vectors;
            if (kind == BYTES) {
                UNROLLED for (int v = 0; v < 2; v++) w[v] = vreinterpretq_s8_u8(vld1q_u8(weights + 16 * v));
                weights += 32;
            } else {
                if (kind == Q4 || step % 2 == 0) {
                    indices = vld1q_u8(weights);
                    weights += 16;
                }
                UNROLLED for (int v = 0; v < 2; v++) w[v] =
                    look_up(entries, indices, kind == Q4 ? v : step % 2 * 2 + v, kind);
            }
            UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < 2; v++) at[r][v] =
                add(at[r][v], w[v], x[r / 4], r % 4);
            __asm__ volatile("" ::: "memory"); /* there are no registers for the next step's loads */
        }
    }
    UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < 2; v++)
        vst1q_s32(sums + WIDTH * r + 4 * v, at[r][v]);
}

typedef void panel_kernel(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count,
                          int32_t *sums);

static void bytes_1(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    row_of(table, weights, inputs, count, sums, BYTES);
}

static void bytes_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, BYTES, 4);
}

static void bytes_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, BYTES, 10);
}

static void q4_1(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    row_of(table, weights, inputs, count, sums, Q4);
}

static void q4_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q4, 4);
}

static void q4_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q4, 10);
}

static void q2_1(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    row_of(table, weights, inputs, count, sums, Q2);
}

static void q2_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q2, 4);
}

static void q2_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q2, 10);
}

static panel_kernel *const panel_kernels[3][3] = {
    {bytes_1, bytes_4, bytes_10}, {q4_1, q4_4, q4_10}, {q2_1, q2_4, q2_10}};

/* ---- the layer ---- */

static void multiply(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const uint32_t stored = klaus_full_connect_dot_stored(s);
    panel_kernel *const *const kernels = panel_kernels[stored == KLAUS_I8 ? BYTES : stored == KLAUS_Q4 ? Q4 : Q2];
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch);
    const int64_t inputs = klaus_full_connect_dot_inputs(s);
    const klaus_dot_results results = klaus_dot_results_of(s);
    klaus_dot_tile tile = {.call = call, .results = &results, .width = WIDTH};
    int64_t begin, end;
    klaus_share(s->out_channels, WIDTH, part, parts, &begin, &end);
    for (int64_t channel = begin; channel < end; channel += WIDTH) {
        const uint8_t *panel = (const uint8_t *)call->packed + klaus_full_connect_dot_table_bytes(s) +
                               (size_t)(channel / WIDTH) * klaus_full_connect_dot_panel_bytes(s);
        const float *steps = (const float *)(const void *)panel;
        const int32_t *weight_sums = (const int32_t *)(const void *)(steps + WIDTH);
        int32_t start[WIDTH];
        float multiplier[WIDTH], offset[WIDTH];
        tile.outputs = (int32_t)(end - channel < WIDTH ? end - channel : WIDTH);
        for (int32_t c = 0; c < WIDTH; c++)
            start[c] = -s->in_quantization[0].zero * weight_sums[c];
        klaus_int8_head(call, channel, tile.outputs, WIDTH, steps, multiplier, offset);
        tile.multiplier = multiplier;
        tile.offset = offset;
        const int8_t *x = call->scratch;
        for (int32_t first = 0; first < batch; first += MOST_ROWS) {
            int32_t sums[MOST_ROWS * WIDTH];
            const int32_t rows = rows_at(batch, first);
            for (int32_t r = 0; r < MOST_ROWS; r++)
                memcpy(sums + WIDTH * r, start, sizeof start);
            kernels[rows == 1 ? 0 : rows <= 4 ? 1 : 2](call->packed, panel + 8 * WIDTH, x, inputs, sums);
            klaus_dot_finish(&tile, (int64_t)first * s->out_channels + channel, rows, sums);
            x += inputs * filled_rows(rows);
        }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    if (phase == 0)
        arrange(call, part, parts);
    else
        multiply(call, part, parts);
}

const klaus_variant klaus_full_connect_i8_neon_dotprod_10x8 = {
    .name = "klaus_full_connect_i8_neon_dotprod_10x8",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON_DOTPROD,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_I8_DOT_8,
    .phases = 2,
    .can = klaus_full_connect_dot_can,
    .packed_bytes = klaus_full_connect_dot_packed_bytes,
    .pack = klaus_full_connect_dot_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
