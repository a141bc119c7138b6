/* The body of the micro-kernels. `rows` and `vectors` (width / 4) are constants where it is inlined, so that the sums
 * are registers and the loops over them disappear. */
#ifndef KLAUS_OPS_GEMM_TILE_NEON_H
#define KLAUS_OPS_GEMM_TILE_NEON_H
#include "klaus/format.h"
#include "ops/gemm/gemm.h"
#include "ops/neon.h"

#define KLAUS_GEMM_MOST_ROWS 7
#define KLAUS_GEMM_MOST_VECTORS 3
/* For loops over sums, which must end up in registers. */
#define KLAUS_GEMM_UNROLLED _Pragma("clang loop unroll(full)")

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

/* One counter, up to zero, for all pointers: told nothing about it, the compiler does not advance each by itself. */
static inline intptr_t klaus_gemm_counter(intptr_t at) {
    __asm__("" : "+r"(at));
    return at;
}

/* Keeps the loads of one step from being joined with those of the next, for which there are no registers. */
static inline void klaus_gemm_part_steps(void) {
    __asm__ volatile("" ::: "memory");
}

/* One step of depth: `lane` of each row's inputs times the `width` weights. */
__attribute__((always_inline)) static inline void klaus_gemm_step(klaus_gemm_sums *sums, const float32x4_t *inputs,
                                                                  const float **weights, const int lane, const int rows,
                                                                  const int vectors) {
    float32x4_t w[KLAUS_GEMM_MOST_VECTORS];
    if (vectors == 3)
        klaus_load_3(w, weights);
    else
        for (int v = 0; v < vectors; v++, *weights += 4)
            w[v] = vld1q_f32(*weights);
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
    /* The rows begin with rows of `start`, with the bias or with zeros. */
    static const float zeros[4 * KLAUS_GEMM_MOST_VECTORS];
    const float *first = tile->start != NULL ? tile->start : tile->scale == NULL ? tile->bias : zeros;
    const size_t first_step = tile->start != NULL ? (size_t)(4 * vectors) : 0;
    KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++, first += first_step)
        KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++) sums.at[r][v] = vld1q_f32(first + 4 * v);
    for (int32_t tap = 0; tap < tile->taps; tap++) {
        const float *input[KLAUS_GEMM_MOST_ROWS];
        float32x4_t x[KLAUS_GEMM_MOST_ROWS];
        int32_t depth = tile->depth % 4;
        const size_t whole = (size_t)(tile->depth - depth), end = tile->offset + whole;
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) input[r] = klaus_gemm_settled(inputs[r] + end);
        inputs += rows;
        for (intptr_t at = -(intptr_t)(whole * sizeof(float)); at != 0; at += 16) {
            at = klaus_gemm_counter(at);
            KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) x[r] =
                vld1q_f32((const float *)(const void *)((const char *)input[r] + at));
            klaus_gemm_step(&sums, x, &weights, 0, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, &weights, 1, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, &weights, 2, rows, vectors);
            klaus_gemm_part_steps();
            klaus_gemm_step(&sums, x, &weights, 3, rows, vectors);
        }
        /* At most three steps: nothing to unroll. */
#pragma clang loop unroll(disable) vectorize(disable)
        for (; depth > 0; depth--) {
            KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) x[r] = vld1q_dup_f32(input[r]++);
            klaus_gemm_step(&sums, x, &weights, 0, rows, vectors);
        }
    }
    if (!tile->finished) {
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++)
            vst1q_f32(tile->output + (size_t)r * tile->stride + (size_t)(4 * v), sums.at[r][v]);
        return;
    }
    if (tile->scale != NULL)
        KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++) {
            const float32x4_t scale = vld1q_f32(tile->scale + 4 * v), bias = vld1q_f32(tile->bias + 4 * v);
            KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) sums.at[r][v] = vfmaq_f32(bias, sums.at[r][v], scale);
        }
    if (tile->outputs < 4 * vectors) {
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) klaus_gemm_store_edge(tile, (size_t)r, sums.at[r], vectors);
        return;
    }
    /* Whole loops for each of what few layers have. */
    if (tile->addend != NULL)
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++) {
            const float *addend = tile->addend + (size_t)r * tile->stride + (size_t)(4 * v);
            sums.at[r][v] = vaddq_f32(sums.at[r][v], vld1q_f32(addend));
        }
    if (tile->activation != KLAUS_LINEAR)
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++)
            sums.at[r][v] = vmaxq_f32(sums.at[r][v], vdupq_n_f32(0));
    if (tile->activation == KLAUS_RELU6)
        KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++) KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++)
            sums.at[r][v] = vminq_f32(sums.at[r][v], vdupq_n_f32(6));
    float *output = tile->output;
    KLAUS_GEMM_UNROLLED for (int r = 0; r < rows; r++, output += tile->stride)
        KLAUS_GEMM_UNROLLED for (int v = 0; v < vectors; v++) vst1q_f32(output + 4 * v, sums.at[r][v]);
}

#endif
