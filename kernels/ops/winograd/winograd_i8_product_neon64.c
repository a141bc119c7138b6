#include "ops/winograd/winograd_i8.h"
#include "ops/winograd/winograd_i8_neon64.h"

#define UNROLLED KLAUS_INT8_UNROLLED

/* ---- weights ---- */

/* Three taps in a line to their values at six points. */
__attribute__((always_inline)) static inline void transform_taps(const int16x8_t *taps, const int step, int16x8_t *to,
                                                                 const int to_step,
                                                                 const klaus_winograd_i8_factors *by) {
    const int16x8_t g0 = taps[0], g1 = taps[step], g2 = taps[2 * step];
    const int16x8_t ends = vaddq_s16(g0, g2), outer = vmlaq_s16(g0, g2, by->four);
    to[0] = g0;
    to[to_step] = vaddq_s16(ends, g1);
    to[2 * to_step] = vsubq_s16(ends, g1);
    to[3 * to_step] = vmlaq_s16(outer, g1, by->two);
    to[4 * to_step] = vmlsq_s16(outer, g1, by->two);
    to[5 * to_step] = g2;
}

/* One phase of eight weights a tap. `to` is their place at position 0 in phase 0; `line`: numbers of a stretch. */
__attribute__((always_inline)) static inline void transform_phase(const int16x8_t *taps, int16_t *to, int64_t line,
                                                                  const int kernel, const int stride, const int down,
                                                                  const int right,
                                                                  const klaus_winograd_i8_factors *by) {
    int16x8_t own[9], half[18];
    UNROLLED for (int u = 0; u < 3; u++) UNROLLED for (int v = 0; v < 3; v++) {
        const int row = u * stride + down, col = v * stride + right;
        own[3 * u + v] = row < kernel && col < kernel ? taps[row * kernel + col] : vdupq_n_s16(0);
    }
    UNROLLED for (int v = 0; v < 3; v++) transform_taps(own + v, 3, half + v, 3, by);
    UNROLLED for (int i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++) {
        const int downs = stride == 2 && i == KLAUS_WINOGRAD_I8_POINTS - 1 ? 1 : stride;
        if (down < downs) {
            int16x8_t values[KLAUS_WINOGRAD_I8_POINTS];
            transform_taps(half + 3 * i, 1, values, 1, by);
            UNROLLED for (int j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++) {
                const int across = stride == 2 && j == KLAUS_WINOGRAD_I8_POINTS - 1 ? 1 : stride;
                /* Stretches before this one: of the rows above, of the positions before, of the phases before. */
                const int before = i * stride * (KLAUS_WINOGRAD_I8_POINTS * stride - stride + 1) + j * stride * downs;
                if (right < across)
                    vst1q_s16(to + (before + down * across + right) * line, values[j]);
            }
        }
    }
}

__attribute__((always_inline)) static inline void transform_weights(const klaus_winograd_i8 *g,
                                                                    const klaus_winograd_i8_panel *p, int16_t *to,
                                                                    const int kernel, const int stride) {
    const klaus_winograd_i8_factors by = {klaus_unknown_s16(2), klaus_unknown_s16(4), klaus_unknown_s16(5)};
    const int32_t pairs = klaus_winograd_i8_even(g->channels) / 2, numbers = 2 * p->width;
    const int64_t line = (int64_t)pairs * numbers;
    const int8_t *from = p->weights;
    for (int32_t pair = 0; pair < pairs; pair++, from += kernel * kernel * numbers)
        for (int32_t v = 0; v < numbers; v += 8) {
            int16x8_t taps[25];
            int16_t *place = to + pair * numbers + v;
            UNROLLED for (int tap = 0; tap < kernel * kernel; tap++) taps[tap] =
                vmovl_s8(vld1_s8(from + tap * numbers + v));
            transform_phase(taps, place, line, kernel, stride, 0, 0, &by);
            if (stride == 2) {
                transform_phase(taps, place, line, kernel, stride, 0, 1, &by);
                transform_phase(taps, place, line, kernel, stride, 1, 0, &by);
                transform_phase(taps, place, line, kernel, stride, 1, 1, &by);
            }
        }
}

__attribute__((noinline)) static void transform_3x3(const klaus_winograd_i8 *g, const klaus_winograd_i8_panel *p,
                                                    int16_t *to) {
    transform_weights(g, p, to, 3, 1);
}

__attribute__((noinline)) static void transform_5x5(const klaus_winograd_i8 *g, const klaus_winograd_i8_panel *p,
                                                    int16_t *to) {
    transform_weights(g, p, to, 5, 2);
}

void klaus_winograd_i8_weights(const klaus_winograd_i8 *g, const klaus_winograd_i8_panel *p, int16_t *to) {
    (g->stride == 1 ? transform_3x3 : transform_5x5)(g, p, to);
}

/* ---- products ---- */

/* sum + four weights * x[lane]: the lower, the upper ones. */
static inline int32x4_t add_low(int32x4_t sum, int16x8_t w, int16x8_t x, const int lane) {
    const int16x4_t low = vget_low_s16(w);
    switch (lane) {
    case 0:
        return vmlal_laneq_s16(sum, low, x, 0);
    case 1:
        return vmlal_laneq_s16(sum, low, x, 1);
    case 2:
        return vmlal_laneq_s16(sum, low, x, 2);
    case 3:
        return vmlal_laneq_s16(sum, low, x, 3);
    case 4:
        return vmlal_laneq_s16(sum, low, x, 4);
    case 5:
        return vmlal_laneq_s16(sum, low, x, 5);
    case 6:
        return vmlal_laneq_s16(sum, low, x, 6);
    default:
        return vmlal_laneq_s16(sum, low, x, 7);
    }
}

static inline int32x4_t add_high(int32x4_t sum, int16x8_t w, int16x8_t x, const int lane) {
    switch (lane) {
    case 0:
        return vmlal_high_laneq_s16(sum, w, x, 0);
    case 1:
        return vmlal_high_laneq_s16(sum, w, x, 1);
    case 2:
        return vmlal_high_laneq_s16(sum, w, x, 2);
    case 3:
        return vmlal_high_laneq_s16(sum, w, x, 3);
    case 4:
        return vmlal_high_laneq_s16(sum, w, x, 4);
    case 5:
        return vmlal_high_laneq_s16(sum, w, x, 5);
    case 6:
        return vmlal_high_laneq_s16(sum, w, x, 6);
    default:
        return vmlal_high_laneq_s16(sum, w, x, 7);
    }
}

/* Keeps the loads of one pair of steps from being joined with those of the next, for which there are no registers. */
static inline void part_steps(void) {
    __asm__ volatile("" ::: "memory");
}

/* Two steps of depth: those of lanes `lane` and `lane` + 1 of each tile's inputs. */
__attribute__((always_inline)) static inline void step_pair(int32x4_t (*sums)[3], const int16x8_t *x,
                                                            const int16_t **weights, const int lane, const int tiles,
                                                            const int width) {
    const int16_t *from = *weights;
    *weights += 2 * width;
    if (width == 4) {
        const int16x8_t w = vld1q_s16(from);
        UNROLLED for (int t = 0; t < tiles; t++) sums[t][0] = add_low(sums[t][0], w, x[t], lane);
        UNROLLED for (int t = 0; t < tiles; t++) sums[t][0] = add_high(sums[t][0], w, x[t], lane + 1);
        return;
    }
    const int16x8_t first = vld1q_s16(from), second = vld1q_s16(from + 2 * width - 8);
    if (width == 12) {
        const int16x8_t both = vld1q_s16(from + 8);
        UNROLLED for (int t = 0; t < tiles; t++) sums[t][2] = add_low(sums[t][2], both, x[t], lane);
        UNROLLED for (int t = 0; t < tiles; t++) sums[t][2] = add_high(sums[t][2], both, x[t], lane + 1);
    }
    UNROLLED for (int t = 0; t < tiles; t++) {
        sums[t][0] = add_low(sums[t][0], first, x[t], lane);
        sums[t][1] = add_high(sums[t][1], first, x[t], lane);
    }
    UNROLLED for (int t = 0; t < tiles; t++) {
        sums[t][0] = add_low(sums[t][0], second, x[t], lane + 1);
        sums[t][1] = add_high(sums[t][1], second, x[t], lane + 1);
    }
}

/* All positions of a block's first `tiles` tiles; tiles and width are constants where it is inlined. */
__attribute__((always_inline)) static inline void multiply_body(const klaus_winograd_i8_product *p, const int tiles,
                                                                const int width) {
    const klaus_winograd_i8 *g = p->g;
    const int16_t *weights = p->weights;
    int32_t *to = p->sums;
    for (int32_t position = 0; position < KLAUS_WINOGRAD_I8_POSITIONS; position++) {
        int32x4_t sums[KLAUS_WINOGRAD_I8_TILES][3];
        int16x8_t x[KLAUS_WINOGRAD_I8_TILES];
        int32_t depth = g->depths[position];
        const int64_t line = depth + 8;
        const int16_t *inputs[KLAUS_WINOGRAD_I8_TILES];
        UNROLLED for (int t = 0; t < tiles; t++) {
            inputs[t] = p->inputs + g->offsets[position] + t * line;
            UNROLLED for (int v = 0; v < width / 4; v++) sums[t][v] = vdupq_n_s32(0);
        }
        for (; depth >= 8; depth -= 8) {
            UNROLLED for (int t = 0; t < tiles; t++, inputs[t - 1] += 8) x[t] = vld1q_s16(inputs[t]);
            step_pair(sums, x, &weights, 0, tiles, width);
            part_steps();
            step_pair(sums, x, &weights, 2, tiles, width);
            part_steps();
            step_pair(sums, x, &weights, 4, tiles, width);
            part_steps();
            step_pair(sums, x, &weights, 6, tiles, width);
            part_steps();
        }
        for (; depth > 0; depth -= 2) {
            UNROLLED for (int t = 0; t < tiles; t++, inputs[t - 1] += 2) x[t] =
                vreinterpretq_s16_s32(vld1q_dup_s32((const int32_t *)(const void *)inputs[t]));
            step_pair(sums, x, &weights, 0, tiles, width);
        }
        UNROLLED for (int t = 0; t < tiles; t++) UNROLLED for (int v = 0; v < width / 4; v++, to += 4)
            vst1q_s32(to, sums[t][v]);
    }
}

static void multiply_1x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 1, 4);
}

static void multiply_2x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 2, 4);
}

static void multiply_3x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 3, 4);
}

static void multiply_4x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 4, 4);
}

static void multiply_5x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 5, 4);
}

static void multiply_6x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 6, 4);
}

static void multiply_7x4(const klaus_winograd_i8_product *p) {
    multiply_body(p, 7, 4);
}

static void multiply_1x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 1, 8);
}

static void multiply_2x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 2, 8);
}

static void multiply_3x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 3, 8);
}

static void multiply_4x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 4, 8);
}

static void multiply_5x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 5, 8);
}

static void multiply_6x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 6, 8);
}

static void multiply_7x8(const klaus_winograd_i8_product *p) {
    multiply_body(p, 7, 8);
}

static void multiply_1x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 1, 12);
}

static void multiply_2x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 2, 12);
}

static void multiply_3x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 3, 12);
}

static void multiply_4x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 4, 12);
}

static void multiply_5x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 5, 12);
}

static void multiply_6x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 6, 12);
}

static void multiply_7x12(const klaus_winograd_i8_product *p) {
    multiply_body(p, 7, 12);
}

void klaus_winograd_i8_multiply(const klaus_winograd_i8_product *p, int32_t tiles, int32_t width) {
    static void (*const all[3][KLAUS_WINOGRAD_I8_TILES])(const klaus_winograd_i8_product *) = {
        {multiply_1x4, multiply_2x4, multiply_3x4, multiply_4x4, multiply_5x4, multiply_6x4, multiply_7x4},
        {multiply_1x8, multiply_2x8, multiply_3x8, multiply_4x8, multiply_5x8, multiply_6x8, multiply_7x8},
        {multiply_1x12, multiply_2x12, multiply_3x12, multiply_4x12, multiply_5x12, multiply_6x12, multiply_7x12},
    };
    all[width / 4 - 1][tiles - 1](p);
}
