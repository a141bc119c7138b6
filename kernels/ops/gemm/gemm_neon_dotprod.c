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

/* Stores and advances. */
static inline void store_low8(int8_t **to, int8x16_t q, int64_t step) {
    __asm__ volatile("st1 {%1.d}[0], [%0], %2" : "+r"(*to) : "w"(q), "r"(step) : "memory");
}
static inline void store_high8(int8_t **to, int8x16_t q, int64_t step) {
    __asm__ volatile("st1 {%1.d}[1], [%0], %2" : "+r"(*to) : "w"(q), "r"(step) : "memory");
}
static inline void store_low4(int8_t **to, int8x8_t q, int64_t step) {
    __asm__ volatile("st1 {%1.s}[0], [%0], %2" : "+r"(*to) : "w"(q), "r"(step) : "memory");
}
static inline void store_high4(int8_t **to, int8x8_t q, int64_t step) {
    __asm__ volatile("st1 {%1.s}[1], [%0], %2" : "+r"(*to) : "w"(q), "r"(step) : "memory");
}

/* The whole vectors of a tile, two rows at a time: eight channels of each share one vector of results, four of each
 * another. */
__attribute__((always_inline)) static inline void finish(const klaus_dot_tile *tile, const sums_of *sums,
                                                         int8_t *output, const int rows, const int vectors) {
    const klaus_dot_results *results = tile->results;
    const int16x8_t zero = vdupq_n_s16((int16_t)results->zero);
    const int8x16_t low = vdupq_n_s8((int8_t)results->low), high = vdupq_n_s8((int8_t)results->high);
    const int64_t stride = tile->call->shape->out_channels, two = 2 * stride;
    const int last = vectors - 1;
    int8_t *next = output + stride, *last_output = output + 4 * last, *last_next = next + 4 * last;
    float32x4_t m[MOST_VECTORS], o[MOST_VECTORS];
    UNROLLED for (int v = 0; v < vectors; v++) {
        m[v] = vld1q_f32(tile->multiplier + 4 * v);
        o[v] = vld1q_f32(tile->offset + 4 * v);
    }
    UNROLLED for (int r = 0; r < rows; r += 2) {
        const bool both = r + 1 < rows;
        const int s = both ? r + 1 : r;
        if (vectors > 1) {
            const float32x4x2_t ms = {{m[0], m[1]}}, os = {{o[0], o[1]}};
            const int16x8_t a = rounded(sums->at[r][0], sums->at[r][1], ms, os, zero);
            const int16x8_t b = both ? rounded(sums->at[s][0], sums->at[s][1], ms, os, zero) : a;
            const int8x16_t q = vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(a), b), low), high);
            store_low8(&output, q, two);
            if (both)
                store_high8(&next, q, two);
        }
        if (vectors != 2) {
            const float32x4x2_t ms = {{m[last], m[last]}}, os = {{o[last], o[last]}};
            int8x8_t q = vqmovn_s16(rounded(sums->at[r][last], sums->at[s][last], ms, os, zero));
            q = vmin_s8(vmax_s8(q, vget_low_s8(low)), vget_low_s8(high));
            store_low4(&last_output, q, two);
            if (both)
                store_high4(&last_next, q, two);
        }
    }
}

/* `tiles` tiles of `rows` rows, two blocks of inputs each. */
__attribute__((always_inline)) static inline void body(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at,
                                                       int64_t tiles, const int rows, const int vectors) {
    const bool plain = tile->results->plain && tile->outputs == 4 * vectors;
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
        if (plain) {
            finish(tile, &sums, (int8_t *)tile->call->output + at, rows, vectors);
        } else {
            int32_t bare[KLAUS_DOT_ROWS * KLAUS_DOT_WIDTH];
            UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < vectors; v++)
                vst1q_s32(bare + 4 * (r * vectors + v), sums.at[r][v]);
            klaus_dot_finish(tile, at, rows, bare);
        }
        inputs += 2 * tile->block_bytes;
        at += rows * (int64_t)tile->call->shape->out_channels;
    }
}

static void tile_1x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 1, 1);
}

static void tile_2x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 2, 1);
}

static void tile_3x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 3, 1);
}

static void tile_4x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 4, 1);
}

static void tile_5x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 5, 1);
}

static void tile_6x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 6, 1);
}

static void tile_7x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 7, 1);
}

static void tile_8x4(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 8, 1);
}

static void tile_1x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 1, 2);
}

static void tile_2x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 2, 2);
}

static void tile_3x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 3, 2);
}

static void tile_4x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 4, 2);
}

static void tile_5x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 5, 2);
}

static void tile_6x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 6, 2);
}

static void tile_7x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 7, 2);
}

static void tile_8x8(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 8, 2);
}

static void tile_1x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 1, 3);
}

static void tile_2x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 2, 3);
}

static void tile_3x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 3, 3);
}

static void tile_4x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 4, 3);
}

static void tile_5x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 5, 3);
}

static void tile_6x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 6, 3);
}

static void tile_7x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 7, 3);
}

static void tile_8x12(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles) {
    body(tile, inputs, at, tiles, 8, 3);
}

typedef void tiles_of(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at, int64_t tiles);

static void run(const klaus_dot_tile *tile) {
    static tiles_of *const all[MOST_VECTORS][KLAUS_DOT_ROWS] = {
        {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4, tile_7x4, tile_8x4},
        {tile_1x8, tile_2x8, tile_3x8, tile_4x8, tile_5x8, tile_6x8, tile_7x8, tile_8x8},
        {tile_1x12, tile_2x12, tile_3x12, tile_4x12, tile_5x12, tile_6x12, tile_7x12, tile_8x12},
    };
    tiles_of *const *const tiles = all[tile->width / 4 - 1];
    const int64_t whole = tile->rows / KLAUS_DOT_ROWS, rest = tile->rows % KLAUS_DOT_ROWS;
    if (whole > 0)
        tiles[KLAUS_DOT_ROWS - 1](tile, tile->inputs, tile->at, whole);
    if (rest > 0)
        tiles[rest - 1](tile, tile->inputs + (size_t)whole * 2 * tile->block_bytes,
                        tile->at + whole * KLAUS_DOT_ROWS * tile->call->shape->out_channels, 1);
}

const klaus_dot_kernel klaus_gemm_i8_neon_dotprod_8x12 = {.run = run};
