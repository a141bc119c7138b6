/* 8 x 12 by dot products: 24 sums, 3 registers of weights, 4 of inputs (two steps of eight rows). Two steps take two
 * loads of weights and two of inputs for 48 dot products. */
#include "ops/gemm/gemm_dot_tile_neon64.h"

/* sum + weights of four channels times the four inputs of row `row` of a block */
__attribute__((always_inline)) static inline int32x4_t add(int32x4_t sum, int8x16_t weights, int8x16_t inputs,
                                                           const int row) {
    return row == 0   ? vdotq_laneq_s32(sum, weights, inputs, 0)
           : row == 1 ? vdotq_laneq_s32(sum, weights, inputs, 1)
           : row == 2 ? vdotq_laneq_s32(sum, weights, inputs, 2)
                      : vdotq_laneq_s32(sum, weights, inputs, 3);
}

__attribute__((always_inline)) static inline void step(sums_of *sums, const int8_t **weights, int8x16_t low,
                                                       int8x16_t high, const int rows, const int vectors) {
    int8x16_t w[MOST_VECTORS];
    load_weights(w, weights, vectors);
    UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < vectors; v++) sums->at[r][v] =
        add(sums->at[r][v], w[v], r < 4 ? low : high, r % 4);
}

__attribute__((always_inline)) static inline void two_steps(sums_of *sums, const int8_t **weights, const int8_t **low,
                                                            const int8_t **high, const int rows, const int vectors) {
    const int8x16x2_t x = load_inputs(low);
    const int8x16x2_t y = rows > 4 ? load_inputs(high) : x;
    step(sums, weights, x.val[0], y.val[0], rows, vectors);
    step(sums, weights, x.val[1], y.val[1], rows, vectors);
}

__attribute__((always_inline)) static inline void body(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at,
                                                       int64_t tiles, const int rows, const int vectors) {
    const bool whole = is_whole(tile, vectors);
    for (; tiles > 0; tiles--) {
        sums_of sums;
        const int8_t *weights = tile->weights, *low = inputs, *high = low + tile->block_bytes;
        UNROLLED for (int v = 0; v < vectors; v++) {
            const int32x4_t start = vld1q_s32(tile->start + 4 * v);
            UNROLLED for (int r = 0; r < rows; r++) sums.at[r][v] = start;
        }
        int64_t n = tile->steps;
#pragma clang loop unroll(disable)
        for (; n >= 4; n -= 4) {
            two_steps(&sums, &weights, &low, &high, rows, vectors);
            two_steps(&sums, &weights, &low, &high, rows, vectors);
        }
        if (n > 0)
            two_steps(&sums, &weights, &low, &high, rows, vectors);
        finish_tile(tile, &sums, at, rows, vectors, whole);
        inputs += 2 * tile->block_bytes;
        at += rows * (int64_t)tile->call->shape->out_channels;
    }
}

const klaus_dot_kernel klaus_gemm_i8_neon_dotprod_8x12 = {.run = run};
