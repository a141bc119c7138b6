/* The mean of int8 cells, for average_pool and global_pool: exact sums, one rounding of the mean. */
#ifndef KLAUS_OPS_POOL_I8_NEON64_H
#define KLAUS_OPS_POOL_I8_NEON64_H
#include "ops/int8_neon64.h"
#include "ops/pool.h"
#include "ops/shape.h"

/* Cells whose sum fits 16 bits. */
#define KLAUS_POOL_I8_SHORT 255

/* Eight channels of one window; `mean` is the factor of sums: the scales' ratio over the number of cells. */
static inline int8x8_t klaus_pool_i8_mean(const klaus_shape *s, const klaus_int8_target *target, const klaus_window *w,
                                          const int8_t *input, float mean) {
    const int64_t cells = (w->bottom - w->top) * (w->right - w->left);
    const int32x4_t start = vdupq_n_s32((int32_t)(-cells * s->in_quantization[0].zero));
    int32x4_t low = start, high = start;
    int16x8_t some = vdupq_n_s16(0);
    int32_t count = 0;
    for (int64_t y = w->top; y < w->bottom; y++) {
        const int8_t *cell = input + (y * s->in_cols + w->left) * s->in_channels;
        for (int64_t x = w->left; x < w->right; x++, cell += s->in_channels) {
            some = vaddw_s8(some, vld1_s8(cell));
            if (++count == KLAUS_POOL_I8_SHORT) {
                low = vaddw_s16(low, vget_low_s16(some));
                high = vaddw_high_s16(high, some);
                some = vdupq_n_s16(0);
                count = 0;
            }
        }
    }
    low = vaddw_s16(low, vget_low_s16(some));
    high = vaddw_high_s16(high, some);
    const float32x4_t values[4] = {vmulq_n_f32(vcvtq_f32_s32(low), mean), vmulq_n_f32(vcvtq_f32_s32(high), mean),
                                   vdupq_n_f32(0), vdupq_n_f32(0)};
    return vget_low_s8(klaus_int8_rounded(target, values, false));
}

/* All channels begin .. end - 1 of one window, in eights, the last of which may overlap those before. */
static inline void klaus_pool_i8_cell(const klaus_shape *s, const klaus_int8_target *target, const klaus_window *w,
                                      const int8_t *input, int8_t *output, int64_t begin, int64_t end) {
    const bool empty = w->bottom <= w->top || w->right <= w->left;
    const int64_t cells = empty ? 1 : (w->bottom - w->top) * (w->right - w->left);
    const float mean = s->in_quantization[0].scale / (s->out_quantization.scale * (float)cells);
    klaus_window window = *w;
    if (empty)
        window.bottom = window.top;
    for (int64_t c = begin; c < end; c += 8) {
        const int64_t first = c + 8 <= s->in_channels ? c : s->in_channels - 8;
        vst1_s8(output + first, klaus_pool_i8_mean(s, target, &window, input + first, mean));
    }
}

#endif
