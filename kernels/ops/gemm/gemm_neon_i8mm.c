/* 8 x 12 by matrix multiplies of 2 x 8 by 8 x 2: 24 registers of four sums, 4 of inputs (eight rows), 3 of weights.
 * Eight numbers of depth take two loads of weights and two of inputs for 24 instructions of 32 products each. */
#include "ops/gemm/gemm_dot_tile_neon64.h"

#define ROW_PAIRS (KLAUS_DOT_ROWS / 2)

/* Sums of two rows and two channels a register: row 0's two, then row 1's. */
typedef struct pairs_of {
    int32x4_t at[ROW_PAIRS][2 * MOST_VECTORS];
} pairs_of;

/* Half a panel's channels, `vectors` pairs from pair `first` on. */
__attribute__((always_inline)) static inline void half_step(pairs_of *sums, const int8_t **weights, const int8x16_t *x,
                                                            const int pairs, const int vectors, const int first) {
    int8x16_t w[MOST_VECTORS];
    load_weights(w, weights, vectors);
    UNROLLED for (int p = 0; p < pairs; p++) UNROLLED for (int v = 0; v < vectors; v++) sums->at[p][first + v] =
        vmmlaq_s32(sums->at[p][first + v], x[p], w[v]);
}

/* Eight numbers of depth. */
__attribute__((always_inline)) static inline void step(pairs_of *sums, const int8_t **weights, const int8_t **low,
                                                       const int8_t **high, const int pairs, const int vectors) {
    int8x16_t x[ROW_PAIRS];
    const int8x16x2_t a = load_inputs(low);
    x[0] = a.val[0];
    x[1] = a.val[1];
    if (pairs > 2) {
        const int8x16x2_t b = load_inputs(high);
        x[2] = b.val[0];
        x[3] = b.val[1];
    }
    half_step(sums, weights, x, pairs, vectors, 0);
    half_step(sums, weights, x, pairs, vectors, vectors);
}

/* Pairs of rows and channels as rows of four channels. */
__attribute__((always_inline)) static inline void unzip(sums_of *sums, const pairs_of *pairs, const int rows,
                                                        const int vectors) {
    UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < vectors; v++) {
        const int64x2_t a = vreinterpretq_s64_s32(pairs->at[r / 2][2 * v]);
        const int64x2_t b = vreinterpretq_s64_s32(pairs->at[r / 2][2 * v + 1]);
        sums->at[r][v] = vreinterpretq_s32_s64(r % 2 == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
    }
}

__attribute__((always_inline)) static inline void body(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at,
                                                       int64_t tiles, const int rows, const int vectors) {
    const bool whole = is_whole(tile, vectors);
    for (; tiles > 0; tiles--) {
        pairs_of pairs;
        sums_of sums;
        const int8_t *weights = tile->weights, *low = inputs, *high = low + tile->block_bytes;
        UNROLLED for (int c = 0; c < 2 * vectors; c++) {
            const int32x4_t start =
                vreinterpretq_s32_s64(vld1q_dup_s64((const int64_t *)(const void *)(tile->start + 2 * c)));
            UNROLLED for (int p = 0; p < (rows + 1) / 2; p++) pairs.at[p][c] = start;
        }
        int64_t n = tile->steps;
#pragma clang loop unroll(disable)
        for (; n >= 4; n -= 4) {
            step(&pairs, &weights, &low, &high, (rows + 1) / 2, vectors);
            step(&pairs, &weights, &low, &high, (rows + 1) / 2, vectors);
        }
        if (n > 0)
            step(&pairs, &weights, &low, &high, (rows + 1) / 2, vectors);
        unzip(&sums, &pairs, rows, vectors);
        finish_tile(tile, &sums, at, rows, vectors, whole);
        inputs += 2 * tile->block_bytes;
        at += rows * (int64_t)tile->call->shape->out_channels;
    }
}

const klaus_dot_kernel klaus_gemm_i8_neon_i8mm_8x12 = {.run = run, .eights = true};
