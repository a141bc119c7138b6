/* int8 full connect without dot products, four outputs of up to five rows at once, from weights that stay packed;
 * ops/int8.h says what it computes, to the bit.
 *
 * Inputs lie in lanes: sixteen of them times an output's weights are SMULL, SMLAL2 (two products fit 16 bits, as -127
 * <= w) and SADALP, and a sum's four lanes are added up at its end. Indices become weights by a register table, once
 * for all rows.
 *
 * Packed layout, KLAUS_LAYOUT_FULL_CONNECT_I8: where 4 or 2-bit indices are stored a table of 16 int8 entries; then the
 * panels of four outputs, each
 *     float step[4]; int32 sum of the weights[4]; for each block of 64 inputs, for each output, its weights of the
 * block: int8 (float and half weights; 8-bit indices: the entries themselves), or indices in groups of 16 bytes: byte i
 *         holds number i in its lowest bits, then i + 16, (i + 32, i + 48)
 * with inputs filled up to whole blocks; those that do not exist are read as 0. */
#include <string.h>

#include "ops/full_connect/full_connect.h"
#include "ops/int8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"
#include "ops/weights.h"

#define WIDTH 4
#define ROWS 5 /* two times are a 10-patch job's */
#define BLOCK 64
#define UNROLLED KLAUS_INT8_UNROLLED

enum kind { BYTES, Q4, Q2 };

static enum kind kind_of(const klaus_shape *s) {
    return s->weight_dtype == KLAUS_Q4 ? Q4 : s->weight_dtype == KLAUS_Q2 ? Q2 : BYTES;
}

static bool can(const klaus_shape *s) {
    return klaus_full_connect_has_geometry(s) && klaus_int8_fits(s);
}

static int64_t blocks_of(const klaus_shape *s) {
    return (klaus_shape_inputs_per_row(s) + BLOCK - 1) / BLOCK;
}

static size_t table_bytes(const klaus_shape *s) {
    return kind_of(s) == BYTES ? 0 : 16;
}

/* Of one output's weights of a block. */
static size_t block_bytes(const klaus_shape *s) {
    return kind_of(s) == BYTES ? BLOCK : kind_of(s) == Q4 ? BLOCK / 2 : BLOCK / 4;
}

static uint64_t panel_bytes(const klaus_shape *s) {
    return WIDTH * (sizeof(float) + sizeof(int32_t)) + (uint64_t)blocks_of(s) * WIDTH * block_bytes(s);
}

static uint64_t packed_bytes(const klaus_shape *s) {
    return table_bytes(s) + ((uint64_t)s->out_channels + WIDTH - 1) / WIDTH * panel_bytes(s);
}

/* One output's weights. `to`: its place in the panel's first block; returns their sum. */
static int32_t pack_output(const klaus_shape *s, const klaus_weights *weights, int64_t row, float step, uint8_t *to) {
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const enum kind kind = kind_of(s);
    int32_t sum = 0;
    for (int64_t first = 0; first < inputs; first += BLOCK, to += WIDTH * block_bytes(s)) {
        int8_t some[BLOCK];
        const int64_t count = inputs - first < BLOCK ? inputs - first : BLOCK;
        if (kind == BYTES) {
            klaus_int8_weights_read(s, weights, row, step, first, count, some);
            memcpy(to, some, (size_t)count);
            for (int64_t i = 0; i < count; i++)
                sum += some[i];
            continue;
        }
        for (int64_t i = 0; i < count; i++) {
            const uint32_t index = klaus_weight_index(s, weights, row, first + i);
            if (kind == Q4)
                to[i / 32 * 16 + i % 16] |= (uint8_t)(index << (i % 32 / 16 * 4));
            else
                to[i % 16] |= (uint8_t)(index << (i / 16 * 2));
        }
    }
    return sum;
}

/* How often each entry of the table stands in a row, times the entry. */
static int32_t sum_of_entries(const klaus_shape *s, const klaus_weights *weights, int64_t row,
                              const int8_t entries[256]) {
    int32_t sum = 0;
    for (int64_t i = 0; i < klaus_shape_inputs_per_row(s); i++)
        sum += entries[klaus_weight_index(s, weights, row, i)];
    return sum;
}

static void pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const bool codebook = s->codebook_dtype != 0;
    int8_t entries[256] = {0};
    float step = 1;
    memset(packed, 0, (size_t)packed_bytes(s));
    if (codebook) {
        step = klaus_int8_weight_step(s, weights, 0);
        klaus_int8_codebook(s, weights, entries);
    }
    if (table_bytes(s) > 0)
        memcpy(packed, entries, 16);
    uint8_t *panel = (uint8_t *)packed + table_bytes(s);
    for (int64_t first = 0; first < s->out_channels; first += WIDTH, panel += panel_bytes(s))
        for (int64_t c = 0; c < WIDTH && first + c < s->out_channels; c++) {
            if (!codebook)
                step = klaus_int8_weight_step(s, weights, first + c);
            int32_t sum = pack_output(s, weights, first + c, step, panel + 8 * WIDTH + (size_t)c * block_bytes(s));
            if (kind_of(s) != BYTES)
                sum = sum_of_entries(s, weights, first + c, entries);
            memcpy(panel + 4 * c, &step, 4);
            memcpy(panel + 4 * (WIDTH + c), &sum, 4);
        }
}

/* ---- phase 0: rows filled up to whole blocks, where they are not whole ---- */

static bool copies(const klaus_shape *s) {
    return klaus_shape_inputs_per_row(s) % BLOCK != 0;
}

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    (void)parts;
    return copies(s) ? (uint64_t)klaus_at_least_one(s->batch) * (uint64_t)(blocks_of(s) * BLOCK) : 0;
}

static void fill_up(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s), whole = blocks_of(s) * BLOCK;
    int64_t begin, end;
    klaus_share(klaus_at_least_one(s->batch), 1, part, parts, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        int8_t *to = (int8_t *)call->scratch + row * whole;
        memcpy(to, (const int8_t *)call->input[0] + row * inputs, (size_t)inputs);
        memset(to + inputs, 0, (size_t)(whole - inputs));
    }
}

/* ---- phase 1: products ---- */

typedef struct tile {
    const int8_t *inputs; /* of the first row */
    int64_t step, blocks; /* from row to row */
    const uint8_t *weights;
    int8x16_t table;
    int32x4_t sums[ROWS]; /* of the four outputs: from what they begin with */
} tile;

/* Sixteen weights: number `n` of a group of 16 bytes, `bytes`. */
__attribute__((always_inline)) static inline int8x16_t look_up(int8x16_t table, uint8x16_t bytes, const int n,
                                                               const enum kind kind) {
    if (kind == BYTES)
        return vreinterpretq_s8_u8(bytes);
    const int shift = kind == Q4 ? 4 * n : 2 * n;
    uint8x16_t indices = bytes;
    if (shift == 2)
        indices = vshrq_n_u8(bytes, 2);
    if (shift == 4)
        indices = vshrq_n_u8(bytes, 4);
    if (shift == 6)
        indices = vshrq_n_u8(bytes, 6);
    if (n + 1 < (kind == Q4 ? 2 : 4))
        indices = vandq_u8(indices, vdupq_n_u8(kind == Q4 ? 15 : 3));
    return vqtbl1q_s8(table, indices);
}

/* `rows` and `kind` are constants where it is inlined. */
__attribute__((always_inline)) static inline void multiply_body(tile *t, const int rows, const enum kind kind) {
    const int groups = kind == BYTES ? 4 : kind == Q4 ? 2 : 1, numbers = 4 / groups;
    const uint8_t *weights = t->weights;
    const int8x16_t table = t->table;
    const int8_t *input[ROWS];
    int32x4_t sums[ROWS][WIDTH];
    UNROLLED for (int r = 0; r < rows; r++) {
        input[r] = t->inputs + r * t->step;
        UNROLLED for (int c = 0; c < WIDTH; c++) sums[r][c] = vdupq_n_s32(0);
    }
    for (int64_t block = t->blocks; block > 0; block--) {
        UNROLLED for (int g = 0; g < groups; g++) {
            uint8x16_t bytes[WIDTH];
            UNROLLED for (int c = 0; c < WIDTH; c++) bytes[c] = vld1q_u8(weights + 16 * (c * groups + g));
            UNROLLED for (int n = 0; n < numbers; n++) {
                int8x16_t w[WIDTH];
                UNROLLED for (int c = 0; c < WIDTH; c++) w[c] = look_up(table, bytes[c], n, kind);
                UNROLLED for (int r = 0; r < rows; r++, input[r - 1] += 16) {
                    const int8x16_t x = vld1q_s8(input[r]);
                    UNROLLED for (int c = 0; c < WIDTH; c++) {
                        const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w[c]));
                        sums[r][c] = vpadalq_s16(sums[r][c], vmlal_high_s8(low, x, w[c]));
                    }
                }
                __asm__ volatile("" ::: "memory"); /* there are no registers for what follows */
            }
        }
        weights += 16 * WIDTH * groups;
    }
    UNROLLED for (int r = 0; r < rows; r++) t->sums[r] =
        vaddq_s32(t->sums[r], vpaddq_s32(vpaddq_s32(sums[r][0], sums[r][1]), vpaddq_s32(sums[r][2], sums[r][3])));
}

static void bytes_1(tile *t) {
    multiply_body(t, 1, BYTES);
}

static void bytes_2(tile *t) {
    multiply_body(t, 2, BYTES);
}

static void bytes_3(tile *t) {
    multiply_body(t, 3, BYTES);
}

static void bytes_4(tile *t) {
    multiply_body(t, 4, BYTES);
}

static void bytes_5(tile *t) {
    multiply_body(t, 5, BYTES);
}

static void q4_1(tile *t) {
    multiply_body(t, 1, Q4);
}

static void q4_2(tile *t) {
    multiply_body(t, 2, Q4);
}

static void q4_3(tile *t) {
    multiply_body(t, 3, Q4);
}

static void q4_4(tile *t) {
    multiply_body(t, 4, Q4);
}

static void q4_5(tile *t) {
    multiply_body(t, 5, Q4);
}

static void q2_1(tile *t) {
    multiply_body(t, 1, Q2);
}

static void q2_2(tile *t) {
    multiply_body(t, 2, Q2);
}

static void q2_3(tile *t) {
    multiply_body(t, 3, Q2);
}

static void q2_4(tile *t) {
    multiply_body(t, 4, Q2);
}

static void q2_5(tile *t) {
    multiply_body(t, 5, Q2);
}

/* ---- the layer ---- */

/* Four outputs of one row, as many of them as exist. */
static void finish(const klaus_call *call, const klaus_int8_target *target, int32x4_t sums, const float *multiplier,
                   const float *offset, int64_t at, int32_t count) {
    const klaus_shape *s = call->shape;
    float32x4_t values[4] = {klaus_int8_value(sums, vld1q_f32(multiplier), offset)};
    values[1] = values[2] = values[3] = values[0];
    if (s->out_dtype == KLAUS_I8) {
        klaus_int8_store_some((int8_t *)call->output + at, klaus_int8_rounded(target, values, false), count);
        return;
    }
    float results[WIDTH];
    vst1q_f32(results, klaus_limit(values[0], klaus_activation_limits(s->activation)));
    memcpy((float *)call->output + at, results, (size_t)count * sizeof(float));
}

static void multiply(const klaus_call *call, int32_t part, int32_t parts) {
    static void (*const all[3][ROWS])(tile *) = {
        {bytes_1, bytes_2, bytes_3, bytes_4, bytes_5}, {q4_1, q4_2, q4_3, q4_4, q4_5}, {q2_1, q2_2, q2_3, q2_4, q2_5}};
    const klaus_shape *s = call->shape;
    const klaus_int8_target target = klaus_int8_target_of(s);
    const int8_t *inputs = copies(s) ? call->scratch : call->input[0];
    const int64_t batch = klaus_at_least_one(s->batch);
    tile t = {.step = copies(s) ? blocks_of(s) * BLOCK : klaus_shape_inputs_per_row(s), .blocks = blocks_of(s)};
    t.table = table_bytes(s) > 0 ? vld1q_s8(call->packed) : vdupq_n_s8(0);
    int64_t channel, end;
    klaus_share(s->out_channels, WIDTH, part, parts, &channel, &end);
    for (; channel < end; channel += WIDTH) {
        const uint8_t *panel = (const uint8_t *)call->packed + table_bytes(s) + (channel / WIDTH) * panel_bytes(s);
        const int32_t count = end - channel < WIDTH ? (int32_t)(end - channel) : WIDTH;
        const int32x4_t start =
            vmulq_n_s32(vld1q_s32((const int32_t *)(const void *)(panel + 4 * WIDTH)), -s->in_quantization[0].zero);
        float multiplier[WIDTH], offset[WIDTH];
        klaus_int8_head(call, channel, count, WIDTH, (const float *)(const void *)panel, multiplier, offset);
        t.weights = panel + 8 * WIDTH;
        for (int64_t row = 0; row < batch; row += ROWS) {
            const int32_t rows = batch - row < ROWS ? (int32_t)(batch - row) : ROWS;
            t.inputs = inputs + row * t.step;
            for (int32_t r = 0; r < rows; r++)
                t.sums[r] = start;
            all[kind_of(s)][rows - 1](&t);
            for (int32_t r = 0; r < rows; r++)
                finish(call, &target, t.sums[r], multiplier, offset, (row + r) * s->out_channels + channel, count);
        }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    if (phase == 1)
        multiply(call, part, parts);
    else if (copies(call->shape))
        fill_up(call, part, parts);
}

const klaus_variant klaus_full_connect_i8_neon_5x4 = {
    .name = "klaus_full_connect_i8_neon_5x4",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_I8,
    .phases = 2,
    .can = can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
