/* The body of the micro-kernels. `rows` and `vectors` (width / 4) are constants where it is inlined, so that the sums
 * are registers and the loops over them disappear. */
#ifndef KLAUS_OPS_GEMM_TILE_NEON_H
#define KLAUS_OPS_GEMM_TILE_NEON_H
#include "ops/gemm/gemm.h"
#include "ops/neon.h"

#define KLAUS_GEMM_MOST_ROWS 7
#define KLAUS_GEMM_MOST_VECTORS 3

/* The finished sums of one row, for the channels that exist; scalars because it is the last panel's rare edge. */
static inline void klaus_gemm_store_edge(const klaus_gemm_tile *tile, size_t row, const float32x4_t *values,
                                         int vectors) {
    float buffer[4 * KLAUS_GEMM_MOST_VECTORS];
    const klaus_limits limits = klaus_activation_limits(tile->activation);
    for (int v = 0; v < vectors; v++) {
        float32x4_t value = values[v];
        if (tile->addend != NULL) {
            float rest[4] = {0, 0, 0, 0};
            for (int32_t c = 0; c < 4 && 4 * v + c < tile->outputs; c++)
                rest[c] = tile->addend[row * tile->stride + (size_t)(4 * v + c)];
            value = vaddq_f32(value, vld1q_f32(rest));
        }
        vst1q_f32(buffer + 4 * v, klaus_limit(value, limits));
    }
    for (int32_t c = 0; c < tile->outputs; c++)
        tile->output[row * tile->stride + (size_t)c] = buffer[c];
}

/* The sums of a tile: rows x vectors of them are in use. */
typedef struct klaus_gemm_sums {
    float32x4_t at[KLAUS_GEMM_MOST_ROWS][KLAUS_GEMM_MOST_VECTORS];
} klaus_gemm_sums;

/* The pointer as a register of its own, not base plus offset, so that loads can advance it for nothing. */
static inline const float *klaus_gemm_settled(const float *pointer) {
    __asm__("" : "+r"(pointer));
    return pointer;
}

/* Keeps the loads of one step from being joined with those of the next, for which there are no registers. */
static inline void klaus_gemm_part_steps(void) {
    __asm__ volatile("" ::: "memory");
}

/* One step of depth: `lane` of each row's inputs times the `width` weights. */
__attribute__((always_inline)) static inline void klaus_gemm_step(klaus_gemm_sums *sums, const float32x4_t *inputs,
                                                                  const float *weights, const int lane, const int rows,
                                                                  const int vectors) {
    float32x4_t w[KLAUS_GEMM_MOST_VECTORS];
    for (int v = 0; v < vectors; v++)
        w[v] = vld1q_f32(weights + 4 * v);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums->at[r][v] = lane == 0   ? klaus_fma_lane0(sums->at[r][v], w[v], inputs[r])
                             : lane == 1 ? klaus_fma_lane1(sums->at[r][v], w[v], inputs[r])
                             : lane == 2 ? klaus_fma_lane2(sums->at[r][v], w[v], inputs[r])
                                         : klaus_fma_lane3(sums->at[r][v], w[v], inputs[r]);
}

__attribute__((always_inline)) static inline void klaus_gemm_tile_body(const klaus_gemm_tile *tile, const int rows,
                                                                       const int vectors) {
    klaus_gemm_sums sums;
    const float *weights = tile->weights;
    const float *const *inputs = tile->inputs;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums.at[r][v] = tile->start != NULL ? vld1q_f32(tile->start + (r * vectors + v) * 4) : vdupq_n_f32(0);
    for (int32_t tap = 0; tap < tile->taps; tap++) {
        const float *input[KLAUS_GEMM_MOST_ROWS];
        float32x4_t x[KLAUS_GEMM_MOST_ROWS];
        for (int r = 0; r < rows; r++)
            input[r] = klaus_gemm_settled(inputs[r] + tile->offset);
        inputs += rows;
        int32_t depth = tile->depth;
        for (; depth >= 4; depth -= 4) {
            for (int r = 0; r < rows; r++) {
                x[r] = vld1q_f32(input[r]);
                input[r] += 4;
            }
            klaus_gemm_step(&sums, x, weights, 0, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, weights + 4 * vectors, 1, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, weights + 8 * vectors, 2, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, weights + 12 * vectors, 3, rows, vectors);
            weights += 16 * vectors;
        }
        /* At most three steps: nothing to unroll. */
#pragma clang loop unroll(disable) vectorize(disable)
        for (; depth > 0; depth--) {
            for (int r = 0; r < rows; r++)
                x[r] = vld1q_dup_f32(input[r]++);
            klaus_gemm_step(&sums, x, weights, 0, rows, vectors);
            weights += 4 * vectors;
        }
    }
    if (!tile->finished) {
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                vst1q_f32(tile->output + (size_t)r * tile->stride + (size_t)(4 * v), sums.at[r][v]);
        return;
    }
    for (int v = 0; v < vectors; v++) {
        const float32x4_t scale = vld1q_f32(tile->scale + 4 * v), bias = vld1q_f32(tile->bias + 4 * v);
        for (int r = 0; r < rows; r++)
            sums.at[r][v] = vfmaq_f32(bias, sums.at[r][v], scale);
    }
    if (tile->outputs < 4 * vectors) {
        for (int r = 0; r < rows; r++)
            klaus_gemm_store_edge(tile, (size_t)r, sums.at[r], vectors);
        return;
    }
    const klaus_limits limits = klaus_activation_limits(tile->activation);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            const size_t at = (size_t)r * tile->stride + (size_t)(4 * v);
            const float32x4_t value =
                tile->addend != NULL ? vaddq_f32(sums.at[r][v], vld1q_f32(tile->addend + at)) : sums.at[r][v];
            vst1q_f32(tile->output + at, klaus_limit(value, limits));
        }
}

#endif
