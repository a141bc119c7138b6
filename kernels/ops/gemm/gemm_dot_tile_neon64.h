/* What micro-kernels that keep a tile's exact sums in registers share: how operands come and how sums become results.
 * `rows` and `vectors` (of four channels) are constants where these are inlined. */
#ifndef KLAUS_OPS_GEMM_DOT_TILE_NEON64_H
#define KLAUS_OPS_GEMM_DOT_TILE_NEON64_H
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

/* 32 bytes of inputs: two steps of four rows, or one of two pairs of rows. */
static inline int8x16x2_t load_inputs(const int8_t **from) {
    int8x16x2_t two;
    __asm__ volatile("ldp %q0, %q1, [%2], #32" : "=w"(two.val[0]), "=w"(two.val[1]), "+r"(*from) : : "memory");
    return two;
}

__attribute__((always_inline)) static inline float32x4_t value_of(int32x4_t sum, float32x4_t multiplier,
                                                                  float32x4_t offset) {
    return vfmaq_f32(offset, vcvtq_f32_s32(sum), multiplier);
}

/* Eight values as integers of 16 bits. */
__attribute__((always_inline)) static inline int16x8_t rounded(float32x4_t low, float32x4_t high) {
    return vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high));
}

/* What rounded values become; `bytes` (klaus_dot_results.bytes) is a constant where it is inlined. */
typedef struct ending {
    int16x8_t zero;
    int8x16_t low, high;
} ending;

__attribute__((always_inline)) static inline int8x16_t end_16(int16x8_t a, int16x8_t b, ending e, const bool bytes) {
    if (bytes) /* 0 .. 255, and 128 less */
        return vreinterpretq_s8_u8(veorq_u8(vqmovun_high_s16(vqmovun_s16(a), b), vdupq_n_u8(0x80)));
    const int8x16_t q = vqmovn_high_s16(vqmovn_s16(vqaddq_s16(a, e.zero)), vqaddq_s16(b, e.zero));
    return vminq_s8(vmaxq_s8(q, e.low), e.high);
}

__attribute__((always_inline)) static inline int8x8_t end_8(int16x8_t a, ending e, const bool bytes) {
    if (bytes)
        return vreinterpret_s8_u8(veor_u8(vqmovun_s16(a), vdup_n_u8(0x80)));
    return vmin_s8(vmax_s8(vqmovn_s16(vqaddq_s16(a, e.zero)), vget_low_s8(e.low)), vget_low_s8(e.high));
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

/* Loads and advances. */
static inline int8x16_t load_low8(const int8_t **from, int64_t step) {
    int8x16_t q;
    __asm__ volatile("ld1 {%0.8b}, [%1], %2" : "=w"(q), "+r"(*from) : "r"(step) : "memory");
    return q;
}
static inline int8x16_t load_high8(int8x16_t q, const int8_t **from, int64_t step) {
    __asm__ volatile("ld1 {%0.d}[1], [%1], %2" : "+w"(q), "+r"(*from) : "r"(step) : "memory");
    return q;
}
static inline int8x16_t load_low4(const int8_t **from, int64_t step) {
    int8x16_t q = vdupq_n_s8(0);
    __asm__ volatile("ld1 {%0.s}[0], [%1], %2" : "+w"(q), "+r"(*from) : "r"(step) : "memory");
    return q;
}
static inline int8x16_t load_high4(int8x16_t q, const int8_t **from, int64_t step) {
    __asm__ volatile("ld1 {%0.s}[1], [%1], %2" : "+w"(q), "+r"(*from) : "r"(step) : "memory");
    return q;
}

/* Adds eight addends less their zero. */
__attribute__((always_inline)) static inline void add_addends(float32x4_t *values, int16x8_t addends,
                                                              float32x4_t factor) {
    values[0] = vfmaq_f32(values[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(addends))), factor);
    values[1] = vfmaq_f32(values[1], vcvtq_f32_s32(vmovl_high_s16(addends)), factor);
}

/* How a whole tile of int8 results ends. */
enum end { ANY, BYTES /* klaus_dot_results.bytes */, ADDEND };

/* The whole vectors of a tile, two rows at a time: eight channels of each share one vector of results, four of each
 * another. */
__attribute__((always_inline)) static inline void finish(const klaus_dot_tile *tile, const sums_of *sums, int64_t at,
                                                         const int rows, const int vectors, const enum end end) {
    const klaus_dot_results *results = tile->results;
    const ending e = {vdupq_n_s16((int16_t)results->zero), vdupq_n_s8((int8_t)results->low),
                      vdupq_n_s8((int8_t)results->high)};
    const int64_t stride = tile->call->shape->out_channels, two = 2 * stride;
    const int last = vectors - 1;
    int8_t *output = (int8_t *)tile->call->output + at, *next = output + stride;
    int8_t *last_output = output + 4 * last, *last_next = next + 4 * last;
    const int8x8_t addend_zero = vdup_n_s8((int8_t)results->addend_zero);
    const float32x4_t factor = vdupq_n_f32(results->addend_factor);
    const int8_t *addend = end == ADDEND ? (const int8_t *)tile->call->input[1] + at : NULL;
    const int8_t *next_addend = addend + stride, *last_addend = addend + 4 * last,
                 *last_next_addend = next_addend + 4 * last;
    float32x4_t m[MOST_VECTORS], o[MOST_VECTORS];
    UNROLLED for (int v = 0; v < vectors; v++) {
        m[v] = vld1q_f32(tile->multiplier + 4 * v);
        o[v] = vld1q_f32(tile->offset + 4 * v);
    }
    UNROLLED for (int r = 0; r < rows; r += 2) {
        const bool both = r + 1 < rows;
        const int s = both ? r + 1 : r;
        if (vectors > 1) {
            float32x4_t values[4] = {value_of(sums->at[r][0], m[0], o[0]), value_of(sums->at[r][1], m[1], o[1])};
            if (both) {
                values[2] = value_of(sums->at[s][0], m[0], o[0]);
                values[3] = value_of(sums->at[s][1], m[1], o[1]);
            } else {
                values[2] = values[0];
                values[3] = values[1];
            }
            if (end == ADDEND) {
                int8x16_t q = load_low8(&addend, two);
                if (both)
                    q = load_high8(q, &next_addend, two);
                add_addends(values, vsubl_s8(vget_low_s8(q), addend_zero), factor);
                add_addends(values + 2, vsubl_s8(vget_high_s8(q), addend_zero), factor);
            }
            const int8x16_t q = end_16(rounded(values[0], values[1]), rounded(values[2], values[3]), e, end == BYTES);
            store_low8(&output, q, two);
            if (both)
                store_high8(&next, q, two);
        }
        if (vectors != 2) {
            float32x4_t values[2] = {value_of(sums->at[r][last], m[last], o[last]),
                                     value_of(sums->at[s][last], m[last], o[last])};
            if (end == ADDEND) {
                int8x16_t q = load_low4(&last_addend, two);
                if (both)
                    q = load_high4(q, &last_next_addend, two);
                add_addends(values, vsubl_s8(vget_low_s8(q), addend_zero), factor);
            }
            const int8x8_t q = end_8(rounded(values[0], values[1]), e, end == BYTES);
            store_low4(&last_output, q, two);
            if (both)
                store_high4(&last_next, q, two);
        }
    }
}

/* Whether a panel's results are whole vectors of int8. */
static inline bool is_whole(const klaus_dot_tile *tile, int vectors) {
    return !tile->results->floats && tile->outputs == 4 * vectors;
}

/* Results of a tile, the first of them at `at`; `whole` as is_whole() has it: it is the same for all tiles of a panel.
 */
__attribute__((always_inline)) static inline void finish_tile(const klaus_dot_tile *tile, const sums_of *sums,
                                                              int64_t at, const int rows, const int vectors,
                                                              bool whole) {
    if (whole && tile->results->bytes) {
        finish(tile, sums, at, rows, vectors, BYTES);
    } else if (whole && !tile->results->addend) {
        finish(tile, sums, at, rows, vectors, ANY);
    } else if (whole && rows == KLAUS_DOT_ROWS) { /* not for the few rows that fill no tile */
        finish(tile, sums, at, rows, vectors, ADDEND);
    } else {
        int32_t bare[KLAUS_DOT_ROWS * KLAUS_DOT_WIDTH];
        UNROLLED for (int r = 0; r < rows; r++) UNROLLED for (int v = 0; v < vectors; v++)
            vst1q_s32(bare + 4 * (r * vectors + v), sums->at[r][v]);
        klaus_dot_finish(tile, at, rows, bare);
    }
}

/* What each micro-kernel defines: `tiles` tiles of `rows` rows, two blocks of inputs each. */
__attribute__((always_inline)) static inline void body(const klaus_dot_tile *tile, const int8_t *inputs, int64_t at,
                                                       int64_t tiles, const int rows, const int vectors);

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

/* All rows of a panel. */
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

#endif
