/* The transform of the input: samples to points, then eight tiles beside each other. */
#include <string.h>

#include "ops/neon_fp16.h"
#include "ops/shape.h"
#include "ops/winograd/winograd_f16.h"

#define POINTS KLAUS_WINOGRAD_F16_POINTS
#define TILES KLAUS_WINOGRAD_F16_TILES

/* Four samples in a line to their values at 0, 1, -1 and infinity. */
__attribute__((always_inline)) static inline void transform_line(const float16x8_t *d, float16x8_t *to,
                                                                 const int step) {
    const float16x8_t d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    to[0] = vsubq_f16(d0, d2);
    to[step] = vaddq_f16(d1, d2);
    to[2 * step] = vsubq_f16(d2, d1);
    to[3 * step] = vsubq_f16(d3, d1);
}

/* What belongs to one phase and eight channels. */
typedef struct source {
    const klaus_shape *shape;
    const klaus_winograd_f16 *w;
    const uint16_t *input; /* of the first channel */
    int32_t count;         /* channels that exist, up to 8 */
    int32_t down, right;
} source;

/* The samples of one tile, zeros where there are none. */
__attribute__((always_inline)) static inline void sample(const source *from, int32_t tile, float16x8_t *samples) {
    const klaus_shape *s = from->shape;
    const int64_t stride = from->w->stride, last = (POINTS - 1) * stride, step = stride * s->in_channels;
    const int64_t top = (int64_t)(tile / from->w->tile_cols) * 2 * stride + from->down - s->pad_top;
    const int64_t left = (int64_t)(tile % from->w->tile_cols) * 2 * stride + from->right - s->pad_left;
    if (from->count == 8 && top >= 0 && left >= 0 && top + last < s->in_rows && left + last < s->in_cols) {
        const uint16_t *at = from->input + (top * s->in_cols + left) * s->in_channels;
        for (int i = 0; i < POINTS; i++, at += stride * s->in_cols * s->in_channels) {
            const uint16_t *cell = at;
            KLAUS_UNROLL_ALL for (int j = 0; j < POINTS; j++, cell += step) samples[i * POINTS + j] =
                klaus_load_8h(cell);
        }
        return;
    }
    for (int i = 0; i < POINTS; i++) {
        const int64_t y = top + i * stride;
        const bool inside = y >= 0 && y < s->in_rows;
        for (int j = 0; j < POINTS; j++) {
            const int64_t x = left + j * stride;
            const uint16_t *cell = from->input + (y * s->in_cols + x) * s->in_channels;
            if (!inside || x < 0 || x >= s->in_cols) {
                samples[i * POINTS + j] = klaus_zero_8h();
            } else if (from->count == 8) {
                samples[i * POINTS + j] = klaus_load_8h(cell);
            } else {
                uint16_t some[8] = {0, 0, 0, 0, 0, 0, 0, 0};
                memcpy(some, cell, (size_t)from->count * 2);
                samples[i * POINTS + j] = klaus_load_8h(some);
            }
        }
    }
}

__attribute__((noinline)) static void transform_tile(const source *from, int32_t tile, float16x8_t *to) {
    float16x8_t samples[POINTS * POINTS], half[POINTS * POINTS];
    sample(from, tile, samples);
    KLAUS_UNROLL_ALL for (int j = 0; j < POINTS; j++) transform_line(samples + j, half + j, POINTS);
    KLAUS_UNROLL_ALL for (int i = 0; i < POINTS; i++) transform_line(half + POINTS * i, to + POINTS * i, 1);
}

static inline float32x4_t as_4s(float16x8_t value) {
    return vreinterpretq_f32_f16(value);
}

static inline float64x2_t as_2d(float32x4_t value) {
    return vreinterpretq_f64_f32(value);
}

/* One position of eight tiles, [tile][channel] to `count` vectors [channel][tile]. */
__attribute__((always_inline)) static inline void turn(const float16x8_t *values, uint16_t *to, int32_t count) {
    float16x8_t two[8];
    float32x4_t four[8];
    KLAUS_UNROLL_ALL for (int t = 0; t < 8; t += 2) {
        const float16x8_t even = values[t * POINTS * POINTS], odd = values[(t + 1) * POINTS * POINTS];
        two[t] = vtrn1q_f16(even, odd);     /* channels 0, 2, 4, 6 of both */
        two[t + 1] = vtrn2q_f16(even, odd); /* 1, 3, 5, 7 */
    }
    KLAUS_UNROLL_ALL for (int n = 0; n < 8; n += 4) KLAUS_UNROLL_ALL for (int odd = 0; odd < 2; odd++) {
        four[n + odd] = vtrn1q_f32(as_4s(two[n + odd]), as_4s(two[n + 2 + odd]));     /* 0, 4 or 1, 5 */
        four[n + 2 + odd] = vtrn2q_f32(as_4s(two[n + odd]), as_4s(two[n + 2 + odd])); /* 2, 6 or 3, 7 */
    }
    if (count == 8) {
        KLAUS_UNROLL_ALL for (int c = 0; c < 4; c++) {
            vst1q_f64((double *)(void *)(to + TILES * c), vtrn1q_f64(as_2d(four[c]), as_2d(four[4 + c])));
            vst1q_f64((double *)(void *)(to + TILES * (c + 4)), vtrn2q_f64(as_2d(four[c]), as_2d(four[4 + c])));
        }
        return;
    }
    for (int c = 0; c < 4; c++) {
        if (c < count)
            vst1q_f64((double *)(void *)(to + TILES * c), vtrn1q_f64(as_2d(four[c]), as_2d(four[4 + c])));
        if (c + 4 < count)
            vst1q_f64((double *)(void *)(to + TILES * (c + 4)), vtrn2q_f64(as_2d(four[c]), as_2d(four[4 + c])));
    }
}

/* Eight channels of one block of tiles, all phases. `to` is the block's. */
static void transform_eight(const klaus_call *call, const klaus_winograd_f16 *w, int32_t group, int32_t eight,
                            int32_t first_tile, int32_t tiles, uint16_t *to) {
    source from = {.shape = call->shape,
                   .w = w,
                   .input = (const uint16_t *)call->input[0] + (int64_t)group * w->channels + 8 * eight};
    from.count = w->channels - 8 * eight < 8 ? w->channels - 8 * eight : 8;
    float16x8_t values[TILES][POINTS * POINTS];
    for (from.down = 0; from.down < w->stride; from.down++)
        for (from.right = 0; from.right < w->stride; from.right++) {
            for (int32_t t = 0; t < TILES; t++) /* where there are fewer, the last once more */
                if (t < tiles)
                    transform_tile(&from, first_tile + t, values[t]);
                else
                    memcpy(values[t], values[tiles - 1], sizeof values[t]);
            uint16_t *at = to;
            for (int32_t i = 0; i < POINTS; i++)
                for (int32_t j = 0; j < POINTS; j++) {
                    const int32_t across = klaus_winograd_f16_phases(w, j);
                    if (from.down < klaus_winograd_f16_phases(w, i) && from.right < across)
                        turn(values[0] + i * POINTS + j,
                             at + ((int64_t)(from.down * across + from.right) * w->channels + 8 * eight) * TILES,
                             from.count);
                    at += (int64_t)klaus_winograd_f16_depth(w, i, j) * TILES;
                }
        }
}

void klaus_winograd_f16_inputs(const klaus_call *call, const klaus_winograd_f16 *w, int32_t part, int32_t parts) {
    const int32_t eights = (w->channels + 7) / 8;
    int64_t begin, end;
    klaus_share((int64_t)call->shape->groups * w->blocks * eights, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item / eights; /* of all groups */
        const int32_t first = (int32_t)(block % w->blocks) * w->block_tiles;
        const int32_t tiles = w->tiles - first < w->block_tiles ? w->tiles - first : w->block_tiles;
        transform_eight(call, w, (int32_t)(block / w->blocks), (int32_t)(item % eights), first, tiles,
                        (uint16_t *)call->scratch + block * w->depth * TILES);
    }
}
