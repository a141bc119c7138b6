/* Full connect of int8 for several rows by matrix multiplies of 2 x 8 by 8 x 2: the packed weights are those of the dot
 * products', two steps of four outputs each zipped to two pairs of outputs with eight numbers of depth. `kind` and
 * `rows` are constants where they are inlined. */
#include "ops/full_connect/full_connect_dot_neon64.h"
#include "ops/layouts.h"

#define MOST_PAIRS (MOST_ROWS / 2)

/* Four outputs' weights of two steps as two pairs of outputs. */
__attribute__((always_inline)) static inline int8x16x2_t pairs_of(int8x16_t first, int8x16_t second) {
    const int32x4x2_t pairs = vzipq_s32(vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
    return (int8x16x2_t){{vreinterpretq_s8_s32(pairs.val[0]), vreinterpretq_s8_s32(pairs.val[1])}};
}

__attribute__((always_inline)) static inline void rows_of(const uint8_t *table, const uint8_t *weights,
                                                          const int8_t *inputs, int64_t count, int32_t *sums,
                                                          const enum kind kind, const int rows) {
    const int pairs = rows / 2;
    const int8x16_t entries = kind == BYTES ? vdupq_n_s8(0) : vreinterpretq_s8_u8(vld1q_u8(table));
    int32x4_t at[MOST_PAIRS][4]; /* row 0 of outputs 2c and 2c + 1, then row 1 */
    UNROLLED for (int p = 0; p < pairs; p++) UNROLLED for (int c = 0; c < 4; c++) at[p][c] =
        vcombine_s32(vld1_s32(sums + WIDTH * 2 * p + 2 * c), vld1_s32(sums + WIDTH * (2 * p + 1) + 2 * c));
#pragma clang loop unroll(disable)
    for (; count > 0; count -= 8) {
        int8x16_t x[MOST_PAIRS];
        uint8x16_t held[2]; /* indices of two steps */
        UNROLLED for (int p = 0; p < pairs; p++) x[p] = vld1q_s8(inputs + 16 * p);
        inputs += 16 * pairs;
        if (kind != BYTES) {
            held[0] = vld1q_u8(weights);
            held[1] = kind == Q4 ? vld1q_u8(weights + 16) : held[0];
            weights += kind == Q4 ? 32 : 16;
        }
        UNROLLED for (int v = 0; v < 2; v++) {
            int8x16_t w[2];
            UNROLLED for (int k = 0; k < 2; k++) w[k] =
                kind == BYTES ? vreinterpretq_s8_u8(vld1q_u8(weights + 32 * k + 16 * v))
                              : look_up(entries, held[k], kind == Q4 ? v : 2 * k + v, kind);
            const int8x16x2_t pair = pairs_of(w[0], w[1]);
            UNROLLED for (int c = 0; c < 2; c++) UNROLLED for (int p = 0; p < pairs; p++) at[p][2 * v + c] =
                vmmlaq_s32(at[p][2 * v + c], x[p], pair.val[c]);
        }
        weights += kind == BYTES ? 64 : 0;
        __asm__ volatile("" ::: "memory"); /* there are no registers for the next step's loads */
    }
    UNROLLED for (int p = 0; p < pairs; p++) UNROLLED for (int c = 0; c < 4; c++) {
        vst1_s32(sums + WIDTH * 2 * p + 2 * c, vget_low_s32(at[p][c]));
        vst1_s32(sums + WIDTH * (2 * p + 1) + 2 * c, vget_high_s32(at[p][c]));
    }
}

static void bytes_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, BYTES, 4);
}

static void bytes_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, BYTES, 10);
}

static void q4_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q4, 4);
}

static void q4_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q4, 10);
}

static void q2_4(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q2, 4);
}

static void q2_10(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count, int32_t *sums) {
    rows_of(table, weights, inputs, count, sums, Q2, 10);
}

static int32_t filled_rows(int32_t rows) {
    return rows <= 4 ? 4 : MOST_ROWS;
}

static const panel_kernels kernels = {
    {{bytes_4, bytes_4, bytes_10}, {q4_4, q4_4, q4_10}, {q2_4, q2_4, q2_10}}, 8, filled_rows};

/* A single row has nothing to pair with. */
static bool can(const klaus_shape *shape) {
    return klaus_full_connect_dot_can(shape) && klaus_at_least_one(shape->batch) > 1;
}

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

const klaus_variant klaus_full_connect_i8_neon_i8mm_10x8 = {
    .name = "klaus_full_connect_i8_neon_i8mm_10x8",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON_I8MM,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_I8_DOT_8,
    .phases = 2,
    .can = can,
    .packed_bytes = klaus_full_connect_dot_packed_bytes,
    .pack = klaus_full_connect_dot_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
