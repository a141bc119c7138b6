#include <math.h>
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/halves.h"
#include "ops/shape.h"
#include "ops/weights.h"
#include "ops/winograd/winograd_f16.h"

#define POINTS KLAUS_WINOGRAD_F16_POINTS
#define TAPS 3

klaus_winograd_f16 klaus_winograd_f16_of(const klaus_shape *s) {
    klaus_winograd_f16 w;
    w.stride = s->stride_rows;
    w.tile_rows = (s->out_rows + 1) / 2;
    w.tile_cols = (s->out_cols + 1) / 2;
    w.tiles = w.tile_rows * w.tile_cols;
    w.blocks = (w.tiles + KLAUS_WINOGRAD_F16_TILES - 1) / KLAUS_WINOGRAD_F16_TILES;
    w.block_tiles = (w.tiles + w.blocks - 1) / w.blocks; /* cut evenly: 49 tiles are seven times seven */
    w.blocks = (w.tiles + w.block_tiles - 1) / w.block_tiles;
    w.channels = s->in_channels / s->groups;
    w.filters = s->out_channels / s->groups;
    const int64_t phases = w.stride == 1 ? POINTS : 2 * POINTS - 1; /* of all positions of a line */
    w.depth = phases * phases * w.channels;
    return w;
}

/* Instructions, roughly, of both ways: what counts is which is less. */
static bool pays(const klaus_shape *s) {
    const klaus_winograd_f16 w = klaus_winograd_f16_of(s);
    const double tiles = w.tiles, filters = (w.filters + 7) / 8 * s->groups, eights = (w.channels + 7) / 8 * s->groups;
    const double direct = 1.14 * s->out_rows * s->out_cols * filters * (double)klaus_shape_weights_per_row(s);
    const double products = tiles * filters * (1.1 * (double)w.depth + 100), back = 110 * tiles * filters;
    return products + back + 120 * w.stride * w.stride * tiles * eights < 0.9 * direct;
}

bool klaus_winograd_f16_can(const klaus_shape *s) {
    /* Float32 results are the sums as they stand: what a plan ends with needs no cast. */
    const bool dtypes = s->in_dtype == KLAUS_F16 && (s->out_dtype == KLAUS_F16 || s->out_dtype == KLAUS_F32);
    if (!dtypes || !klaus_conv_has_geometry(s) || s->kernel_rows != s->kernel_cols ||
        s->stride_rows != s->stride_cols || s->pad_top < 0 || s->pad_left < 0 || s->pad_top > s->kernel_rows ||
        s->pad_left > s->kernel_cols)
        return false;
    const bool known = (s->kernel_rows == 3 && s->stride_rows == 1) || (s->kernel_rows == 5 && s->stride_rows == 2);
    /* Sizes are those of feature maps; the limit keeps the arithmetic on them in 64 bits. */
    return known && s->out_channels / s->groups >= 8 && s->in_rows < 65536 && s->in_cols < 65536 && pays(s);
}

uint64_t klaus_winograd_f16_packed_bytes(const klaus_shape *s) {
    const klaus_winograd_f16 w = klaus_winograd_f16_of(s);
    return (uint64_t)s->groups * klaus_winograd_f16_panel_bytes(&w, (w.filters + 7) / 8 * 8);
}

/* Three taps in a line to their values at four points. */
static void transform_line(const float *taps, int32_t step, float *to, int32_t to_step) {
    const float even = 0.5f * (taps[0] + taps[2 * step]), odd = 0.5f * taps[step];
    to[0] = taps[0];
    to[to_step] = even + odd;
    to[2 * to_step] = even - odd;
    to[3 * to_step] = taps[2 * step];
}

/* Channels whose taps are decoded at once. */
#define SOME_CHANNELS 64
#define MOST_TAPS 25

/* One filter, its weights times `factor`, into column `column` of its panel's weights. */
static void pack_filter(const klaus_shape *s, const klaus_winograd_f16 *w, const klaus_weights *weights, int64_t filter,
                        double factor, uint16_t *panel, int32_t width) {
    float some[MOST_TAPS][SOME_CHANNELS], taps[TAPS * TAPS], half[POINTS * TAPS], values[POINTS * POINTS];
    for (int32_t first = 0; first < w->channels; first += SOME_CHANNELS) {
        const int32_t count = w->channels - first < SOME_CHANNELS ? w->channels - first : SOME_CHANNELS;
        for (int32_t tap = 0; tap < s->kernel_rows * s->kernel_cols; tap++)
            klaus_weights_read(s, weights, filter, (int64_t)tap * w->channels + first, count, some[tap]);
        for (int32_t c = 0; c < count; c++)
            for (int32_t phase = 0; phase < w->stride * w->stride; phase++) {
                const int32_t down = phase / w->stride, right = phase % w->stride;
                for (int32_t u = 0; u < TAPS; u++)
                    for (int32_t v = 0; v < TAPS; v++) {
                        const int32_t row = u * w->stride + down, col = v * w->stride + right;
                        const bool there = row < s->kernel_rows && col < s->kernel_cols;
                        taps[u * TAPS + v] = there ? (float)(factor * (double)some[row * s->kernel_cols + col][c]) : 0;
                    }
                for (int32_t v = 0; v < TAPS; v++)
                    transform_line(taps + v, TAPS, half + v, TAPS);
                for (int32_t i = 0; i < POINTS; i++)
                    transform_line(half + TAPS * i, 1, values + POINTS * i, 1);
                uint16_t *to = panel;
                for (int32_t i = 0; i < POINTS; i++)
                    for (int32_t j = 0; j < POINTS; j++) {
                        const int32_t across = klaus_winograd_f16_phases(w, j);
                        if (down < klaus_winograd_f16_phases(w, i) && right < across)
                            to[((down * across + right) * w->channels + first + c) * width] =
                                klaus_float_to_half(values[i * POINTS + j]);
                        to += (int64_t)klaus_winograd_f16_depth(w, i, j) * width;
                    }
            }
    }
}

static float largest_weight(const klaus_shape *s, const klaus_weights *weights, int64_t filter) {
    const int64_t terms = klaus_shape_weights_per_row(s);
    float largest = 0, some[256];
    for (int64_t i = 0; i < terms; i += 256) {
        const int64_t count = terms - i < 256 ? terms - i : 256;
        klaus_weights_read(s, weights, filter, i, count, some);
        for (int64_t n = 0; n < count; n++)
            largest = fmaxf(largest, fabsf(some[n]));
    }
    return largest;
}

void klaus_winograd_f16_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const klaus_winograd_f16 w = klaus_winograd_f16_of(s);
    uint8_t *to = packed;
    memset(packed, 0, (size_t)klaus_winograd_f16_packed_bytes(s));
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t first = 0, width; first < w.filters; first += width) {
            width = klaus_winograd_f16_panel_width(&w, first);
            float *head = (float *)(void *)to;
            for (int32_t c = 0; c < width && first + c < w.filters; c++) {
                const int64_t filter = (int64_t)group * w.filters + first + c;
                const float largest = largest_weight(s, weights, filter);
                const int exponent = largest != 0 && isfinite(largest) ? klaus_exponent_of(largest) : 0;
                head[c] = ldexpf(weights->scale != NULL ? weights->scale[filter] : 1.0f, exponent);
                head[width + c] = weights->bias[filter];
                pack_filter(s, &w, weights, filter, 1 / (double)ldexpf(1, exponent),
                            (uint16_t *)(void *)(head + 2 * width) + c, width);
            }
            to += klaus_winograd_f16_panel_bytes(&w, width);
        }
}
