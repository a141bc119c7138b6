/* 8 x 12 by dot products: 24 sums, 3 registers of weights, 4 of inputs (two steps of eight rows). Two steps take two
 * loads of weights and two of inputs for 48 dot products. */
#include "ops/gemm/gemm_dot.h"
#include "ops/neon.h"

#define MOST_VECTORS (KLAUS_DOT_WIDTH / 4)
#define UNROLLED _Pragma("clang loop unroll(full)")

typedef struct sums_of {
    int32x4_t at[KLAUS_DOT_ROWS][MOST_VECTORS];
} sums_of;

/* Weights of a step, by one instruction that advances its pointer as well; registers of their own as in
 * ops/neon.h's klaus_load_3. */
__attribute__((always_inline)) static inline void load_weights(int8x16_t *to, const int8_t **from, const int vectors) {
    register int8x16_t first __asm__("v0");
    register int8x16_t second __asm__("v1");
    register int8x16_t third __asm__("v2");
    if (vectors == 3) {
        __asm__ volatile("ld1 {%0.16b, %1.16b, %2.16b}, [%3], #48"
                         : "=w"(first), "=w"(second), "=w"(third), "+r"(*from)
                         :
                         : "memory");
        to[2] = third;
    } else if (vectors == 2) {
        __asm__ volatile("ld1 {%0.16b, %1.16b}, [%2], #32" : "=w"(first), "=w"(second), "+r"(*from) : : "memory");
    } else {
        __asm__ volatile("ld1 {%0.16b}, [%1], #16" : "=w"(first), "+r"(*from) : : "memory");
    }
    to[0] = first;
    if (vectors > 1)
        to[1] = second;
}

/* Two steps of four rows. */
static inline int8x16x2_t load_inputs(const int8_t **from) {
    int8x16x2_t two;
    __asm__ volatile("ldp %q0, %q1, [%2], #32" : "=w"(two.val[0]), "=w"(two.val[1]), "+r"(*from) : : "memory");
    return two;
}

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

/* round(value) + zero in 16 bits, of eight sums */
__attribute__((always_inline)) static inline int16x8_t
rounded(int32x4_t first, int32x4_t second, float32x4x2_t multiplier, float32x4x2_t offset, int16x8_t zero) {
    const float32x4_t low = vfmaq_f32(offset.val[0], vcvtq_f32_s32(first), multiplier.val[0]);
    const float32x4_t high = vfmaq_f32(offset.val[1], vcvtq_f32_s32(second), multiplier.val[1]);
    return vqaddq_s16(vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high)), zero);
}

/* The whole vectors of two rows: eight channels of each share one vector of results, four of each another. */
__attribute__((always_inline)) static inline void finish(const klaus_dot_tile *tile, const sums_of *sums,
                                                         const int rows, const int vectors) {
    const klaus_dot_results *results = tile->results;
    const int16x8_t zero = vdupq_n_s16((int16_t)results->zero);
    const int8x16_t low = vdupq_n_s8((int8_t)results->low), high = vdupq_n_s8((int8_t)results->high);
    const int64_t stride = tile->call->shape->out_channels;
    int8_t *output = (int8_t *)tile->call->output + tile->at;
    float32x4_t m[MOST_VECTORS], o[MOST_VECTORS];
    UNROLLED for (int v = 0; v < vectors; v++) {
        m[v] = vld1q_f32(tile->multiplier + 4 * v);
        o[v] = vld1q_f32(tile->offset + 4 * v);
    }
    const int last = vectors - 1;
    UNROLLED for (int r = 0; r < rows; r += 2) {
        const int next = r + 1 < rows ? r + 1 : r;
        int8_t *second = output + (next - r) * stride;
        if (vectors > 1) {
            const float32x4x2_t ms = {{m[0], m[1]}}, os = {{o[0], o[1]}};
            const int16x8_t a = rounded(sums->at[r][0], sums->at[r][1], ms, os, zero);
            const int16x8_t b = next > r ? rounded(sums->at[next][0], sums->at[next][1], ms, os, zero) : a;
            int8x16_t q = vqmovn_high_s16(vqmovn_s16(a), b);
            if (results->limited)
                q = vminq_s8(vmaxq_s8(q, low), high);
            vst1_s8(output, vget_low_s8(q));
            if (next > r)
                vst1q_lane_s64((int64_t *)(void *)second, vreinterpretq_s64_s8(q), 1);
        }
        if (vectors != 2) {
            const float32x4x2_t ms = {{m[last], m[last]}}, os = {{o[last], o[last]}};
            int8x8_t q = vqmovn_s16(rounded(sums->at[r][last], sums->at[next][last], ms, os, zero));
            if (results->limited)
                q = vmin_s8(vmax_s8(q, vget_low_s8(low)), vget_low_s8(high));
            vst1_lane_s32((int32_t *)(void *)(output + 4 * last), vreinterpret_s32_s8(q), 0);
            if (next > r)
                vst1_lane_s32((int32_t *)(void *)(second + 4 * last), vreinterpret_s32_s8(q), 1);
        }
        output += 2 * stride;
    }
}

__attribute__((always_inline)) static inline void body(const klaus_dot_tile *tile, const int rows, const int vectors) {
    sums_of sums;
    const int8_t *weights = tile->weights, *low = tile->inputs, *high = low + tile->block_bytes;
    UNROLLED for (int v = 0; v < vectors; v++) {
        const int32x4_t start = vld1q_s32(tile->start + 4 * v);
        UNROLLED for (int r = 0; r < rows; r++) sums.at[r][v] = start;
    }
#pragma clang loop unroll(disable)
    for (int64_t n = tile->steps / 4; n > 0; n--) {
        two_steps(&sums, &weights, &low, &high, rows, vectors);
        two_steps(&sums, &weights, &low, &high, rows, vectors);
    }
    if (tile->steps % 4 != 0)
        two_steps(&sums, &weights, &low, &high, rows, vectors);
    if (tile->results->plain && tile->outputs == 4 * vectors) {
        finish(tile, &sums, rows, vectors);
        return;
    }
    int32_t bare[KLAUS_DOT_ROWS * KLAUS_DOT_WIDTH];
    UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < vectors; v++)
        vst1q_s32(bare + 4 * (r * vectors + v), sums.at[r][v]);
    klaus_dot_finish(tile, bare);
}

static void tile_1x4(const klaus_dot_tile *tile) {
    body(tile, 1, 1);
}

static void tile_2x4(const klaus_dot_tile *tile) {
    body(tile, 2, 1);
}

static void tile_3x4(const klaus_dot_tile *tile) {
    body(tile, 3, 1);
}

static void tile_4x4(const klaus_dot_tile *tile) {
    body(tile, 4, 1);
}

static void tile_5x4(const klaus_dot_tile *tile) {
    body(tile, 5, 1);
}

static void tile_6x4(const klaus_dot_tile *tile) {
    body(tile, 6, 1);
}

static void tile_7x4(const klaus_dot_tile *tile) {
    body(tile, 7, 1);
}

static void tile_8x4(const klaus_dot_tile *tile) {
    body(tile, 8, 1);
}

static void tile_1x8(const klaus_dot_tile *tile) {
    body(tile, 1, 2);
}

static void tile_2x8(const klaus_dot_tile *tile) {
    body(tile, 2, 2);
}

static void tile_3x8(const klaus_dot_tile *tile) {
    body(tile, 3, 2);
}

static void tile_4x8(const klaus_dot_tile *tile) {
    body(tile, 4, 2);
}

static void tile_5x8(const klaus_dot_tile *tile) {
    body(tile, 5, 2);
}

static void tile_6x8(const klaus_dot_tile *tile) {
    body(tile, 6, 2);
}

static void tile_7x8(const klaus_dot_tile *tile) {
    body(tile, 7, 2);
}

static void tile_8x8(const klaus_dot_tile *tile) {
    body(tile, 8, 2);
}

static void tile_1x12(const klaus_dot_tile *tile) {
    body(tile, 1, 3);
}

static void tile_2x12(const klaus_dot_tile *tile) {
    body(tile, 2, 3);
}

static void tile_3x12(const klaus_dot_tile *tile) {
    body(tile, 3, 3);
}

static void tile_4x12(const klaus_dot_tile *tile) {
    body(tile, 4, 3);
}

static void tile_5x12(const klaus_dot_tile *tile) {
    body(tile, 5, 3);
}

static void tile_6x12(const klaus_dot_tile *tile) {
    body(tile, 6, 3);
}

static void tile_7x12(const klaus_dot_tile *tile) {
    body(tile, 7, 3);
}

static void tile_8x12(const klaus_dot_tile *tile) {
    body(tile, 8, 3);
}

static void run(const klaus_dot_tile *tile) {
    static void (*const tiles[MOST_VECTORS][KLAUS_DOT_ROWS])(const klaus_dot_tile *) = {
        {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4, tile_7x4, tile_8x4},
        {tile_1x8, tile_2x8, tile_3x8, tile_4x8, tile_5x8, tile_6x8, tile_7x8, tile_8x8},
        {tile_1x12, tile_2x12, tile_3x12, tile_4x12, tile_5x12, tile_6x12, tile_7x12, tile_8x12},
    };
    tiles[tile->width / 4 - 1][tile->rows - 1](tile);
}

const klaus_dot_kernel klaus_gemm_i8_neon_dotprod_8x12 = {.run = run};
