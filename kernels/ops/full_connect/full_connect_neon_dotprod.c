/* Full connect of int8 by dot products: weights go from their packed form through a register table into the sums, eight
 * outputs of one row or of up to ten at once. `kind` and `rows` are constants where they are inlined. */
#include "ops/full_connect/full_connect_dot_neon64.h"
#include "ops/layouts.h"

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

static int32_t filled_rows(int32_t rows) {
    return rows == 1 ? 1 : rows <= 4 ? 4 : 12;
}

static const panel_kernels kernels = {
    {{bytes_1, bytes_4, bytes_10}, {q4_1, q4_4, q4_10}, {q2_1, q2_4, q2_10}}, 4, filled_rows};

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    (void)parts;
    return inputs_bytes(shape, &kernels);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    if (phase == 0)
        arrange(call, part, parts, &kernels);
    else
        multiply(call, part, parts, &kernels);
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
