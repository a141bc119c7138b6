/* The body of the multiplies: `tiles` and `vectors` (width / 4) are constants where it is inlined, `lanes` the tiles of
 * a whole block, so that the sums of a position are registers. */
#ifndef KLAUS_OPS_WINOGRAD_TILE_NEON_H
#define KLAUS_OPS_WINOGRAD_TILE_NEON_H
#include "ops/neon.h"
#include "ops/winograd/winograd.h"

typedef struct klaus_winograd_sums {
    float32x4_t at[8][3];
} klaus_winograd_sums;

__attribute__((always_inline)) static inline void klaus_winograd_step(klaus_winograd_sums *sums, const float *inputs,
                                                                      const float **weights, const int tiles,
                                                                      const int vectors) {
    float32x4_t w[3], x[2];
    x[0] = vld1q_f32(inputs);
    x[1] = tiles > 4 ? vld1q_f32(inputs + 4) : x[0];
    if (vectors == 3)
        klaus_load_3(w, weights);
    else
        for (int v = 0; v < vectors; v++, *weights += 4)
            w[v] = vld1q_f32(*weights);
    for (int t = 0; t < tiles; t++)
        for (int v = 0; v < vectors; v++)
            sums->at[t][v] = t % 4 == 0   ? klaus_fma_lane0(sums->at[t][v], w[v], x[t / 4])
                             : t % 4 == 1 ? klaus_fma_lane1(sums->at[t][v], w[v], x[t / 4])
                             : t % 4 == 2 ? klaus_fma_lane2(sums->at[t][v], w[v], x[t / 4])
                                          : klaus_fma_lane3(sums->at[t][v], w[v], x[t / 4]);
}

/* Keeps the loads of one step from being joined with those of the next, for which there are no registers. */
static inline void klaus_winograd_part_steps(void) {
    __asm__ volatile("" ::: "memory");
}

__attribute__((always_inline)) static inline void klaus_winograd_multiply_body(const klaus_winograd_product *product,
                                                                               const int tiles, const int vectors,
                                                                               const int lanes) {
    const float *inputs = product->inputs, *weights = product->weights;
    const int32_t *depths = product->depths, *const end = depths + product->positions;
    float *to = product->sums;
    for (; depths < end; depths++) {
        klaus_winograd_sums sums;
        for (int t = 0; t < tiles; t++)
            for (int v = 0; v < vectors; v++)
                sums.at[t][v] = vdupq_n_f32(0);
        int32_t depth = *depths;
        for (; depth >= 4; depth -= 4) {
            klaus_winograd_step(&sums, inputs, &weights, tiles, vectors);
            klaus_winograd_part_steps();
            klaus_winograd_step(&sums, inputs + lanes, &weights, tiles, vectors);
            klaus_winograd_part_steps();
            klaus_winograd_step(&sums, inputs + 2 * lanes, &weights, tiles, vectors);
            klaus_winograd_part_steps();
            klaus_winograd_step(&sums, inputs + 3 * lanes, &weights, tiles, vectors);
            inputs += 4 * lanes;
        }
#pragma clang loop unroll(disable) vectorize(disable)
        for (; depth > 0; depth--) {
            klaus_winograd_step(&sums, inputs, &weights, tiles, vectors);
            inputs += lanes;
        }
        for (int t = 0; t < tiles; t++)
            for (int v = 0; v < vectors; v++, to += 4)
                vst1q_f32(to, sums.at[t][v]);
    }
}

#endif
