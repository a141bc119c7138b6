/* The body of the micro-kernels for halves that are no 7 x 24: one piece of one tile. `rows` and `vectors` (width / 8)
 * are constants where it is inlined, so that the sums are registers and the loops over them disappear. */
#ifndef KLAUS_OPS_GEMM_TILE_NEON_FP16_H
#define KLAUS_OPS_GEMM_TILE_NEON_FP16_H
#include "ops/gemm/gemm_f16.h"
#include "ops/neon_fp16.h"

#define KLAUS_GEMM_F16_VECTORS 3

typedef struct klaus_gemm_f16_sums {
    float16x8_t at[KLAUS_GEMM_F16_ROWS][KLAUS_GEMM_F16_VECTORS];
} klaus_gemm_f16_sums;

/* Three or four vectors that lie side by side, by one instruction that advances its pointer as well. In registers of
 * their own, always the same: left to the compiler, neighbours among 32 in use make it move the others about. Not among
 * the lower 16, which alone may be multiplied by lane. */
static inline void klaus_load_3_8h(float16x8_t *to, const uint16_t **from) {
    register float16x8_t first __asm__("v29");
    register float16x8_t second __asm__("v30");
    register float16x8_t third __asm__("v31");
    __asm__ volatile("ld1 {%0.8h, %1.8h, %2.8h}, [%3], #48"
                     : "=w"(first), "=w"(second), "=w"(third), "+r"(*from)
                     :
                     : "memory");
    to[0] = first;
    to[1] = second;
    to[2] = third;
}

static inline void klaus_load_4_8h(float16x8_t *to, const uint16_t **from) {
    register float16x8_t first __asm__("v28");
    register float16x8_t second __asm__("v29");
    register float16x8_t third __asm__("v30");
    register float16x8_t fourth __asm__("v31");
    __asm__ volatile("ld1 {%0.8h, %1.8h, %2.8h, %3.8h}, [%4], #64"
                     : "=w"(first), "=w"(second), "=w"(third), "=w"(fourth), "+r"(*from)
                     :
                     : "memory");
    to[0] = first;
    to[1] = second;
    to[2] = third;
    to[3] = fourth;
}

/* `lane` of each row's inputs times `width` weights. */
__attribute__((always_inline)) static inline void klaus_gemm_f16_add(klaus_gemm_f16_sums *sums,
                                                                     const float16x8_t *inputs, const float16x8_t *w,
                                                                     const int lane, const int rows,
                                                                     const int vectors) {
    KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) sums->at[r][v] =
        klaus_fma_lane_8h(sums->at[r][v], w[v], inputs[r], lane);
}

/* One step of depth. */
__attribute__((always_inline)) static inline void klaus_gemm_f16_step(klaus_gemm_f16_sums *sums,
                                                                      const float16x8_t *inputs,
                                                                      const uint16_t **weights, const int lane,
                                                                      const int rows, const int vectors) {
    float16x8_t w[KLAUS_GEMM_F16_VECTORS];
    if (vectors == 3)
        klaus_load_3_8h(w, weights);
    else
        for (int v = 0; v < vectors; v++, *weights += 8)
            w[v] = klaus_load_8h(*weights);
    klaus_gemm_f16_add(sums, inputs, w, lane, rows, vectors);
}

/* Eight steps; one or two vectors a step leave room for four at once. */
__attribute__((always_inline)) static inline void klaus_gemm_f16_eight(klaus_gemm_f16_sums *sums,
                                                                       const float16x8_t *inputs,
                                                                       const uint16_t **weights, const int rows,
                                                                       const int vectors) {
    if (vectors == 3) {
        KLAUS_UNROLL_ALL for (int lane = 0; lane < 8; lane++) {
            klaus_gemm_f16_step(sums, inputs, weights, lane, rows, vectors);
            klaus_step_ends();
        }
        return;
    }
    const int at_once = 4 / vectors;
    KLAUS_UNROLL_ALL for (int lane = 0; lane < 8; lane += at_once) {
        float16x8_t w[4];
        klaus_load_4_8h(w, weights);
        KLAUS_UNROLL_ALL for (int n = 0; n < at_once; n++)
            klaus_gemm_f16_add(sums, inputs, w + n * vectors, lane + n, rows, vectors);
        klaus_step_ends();
    }
}

__attribute__((always_inline)) static inline void klaus_gemm_f16_body(const klaus_gemm_f16_piece *piece, const int rows,
                                                                      const int vectors) {
    klaus_gemm_f16_sums sums;
    const uint16_t *weights = piece->weights;
    const uint16_t *const *inputs = piece->inputs;
    KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) sums.at[r][v] =
        klaus_load_8h(piece->start + 8 * v);
    for (int32_t tap = piece->taps; tap > 0; tap--) {
        const uint16_t *input[KLAUS_GEMM_F16_ROWS];
        float16x8_t x[KLAUS_GEMM_F16_ROWS];
        int32_t rest = piece->depth % 8;
        const size_t whole = (size_t)(piece->depth - rest), end = piece->offset + whole;
        KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) input[r] = klaus_settled_half(inputs[r] + end);
        inputs += rows;
        for (intptr_t at = -(intptr_t)(whole * 2); at != 0; at += 16) {
            at = klaus_counted(at);
            KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) x[r] =
                klaus_load_8h((const uint16_t *)(const void *)((const char *)input[r] + at));
            klaus_gemm_f16_eight(&sums, x, &weights, rows, vectors);
        }
        /* At most seven steps: nothing to unroll. */
#pragma clang loop unroll(disable) vectorize(disable)
        for (; rest > 0; rest--) {
            KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) x[r] = klaus_dup_8h(input[r]++);
            klaus_gemm_f16_step(&sums, x, &weights, 0, rows, vectors);
        }
    }
    /* Whole loops for each of what few layers have. */
    if (piece->addend != NULL)
        KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++)
            sums.at[r][v] =
            vaddq_f16(sums.at[r][v], klaus_load_8h(piece->addend + (size_t)r * piece->stride + (size_t)(8 * v)));
    if (piece->activation != KLAUS_LINEAR)
        KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++)
            sums.at[r][v] = vmaxq_f16(sums.at[r][v], klaus_zero_8h());
    if (piece->activation == KLAUS_RELU6)
        KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++)
            sums.at[r][v] = vminq_f16(sums.at[r][v], vreinterpretq_f16_u16(vdupq_n_u16(0x4600)));
    uint16_t *output = piece->output;
    KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++, output += piece->stride)
        KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) klaus_store_8h(output + 8 * v, sums.at[r][v]);
}

#endif
