#include "ops/winograd/winograd.h"

#include <string.h>

#include "ops/conv/conv.h"
#include "ops/gemm/gemm.h"
#include "ops/shape.h"
#include "ops/weights.h"

klaus_winograd klaus_winograd_of(const klaus_shape *s) {
    klaus_winograd w;
    w.stride = s->stride_rows;
    w.taps = (s->kernel_rows + w.stride - 1) / w.stride;
    w.points = 6;
    w.tile = w.points - w.taps + 1;
    w.tile_rows = (s->out_rows + w.tile - 1) / w.tile;
    w.tile_cols = (s->out_cols + w.tile - 1) / w.tile;
    w.tiles = w.tile_rows * w.tile_cols;
    w.channels = s->in_channels / s->groups;
    w.filters = s->out_channels / s->groups;
    const int64_t phases = w.stride == 1 ? w.points : 2 * w.points - 1; /* of all positions of a line */
    w.depth = phases * phases * w.channels;
    w.fresh = w.taps == 3;
    w.halves = w.fresh && (s->weight_dtype == KLAUS_F16 || s->codebook_dtype == KLAUS_F16);
    return w;
}

/* Instructions, roughly, of both ways: what counts is which is much less. */
static bool pays(const klaus_shape *s) {
    const klaus_winograd w = klaus_winograd_of(s);
    const double tiles = w.tiles, filters = w.filters / 4.0 * s->groups, quads = (w.channels + 3) / 4 * s->groups;
    const double positions = w.points * w.points, phases = w.stride * w.stride;
    const double direct = 1.25 * s->out_rows * s->out_cols * filters * (double)klaus_shape_weights_per_row(s);
    const double products = 1.2 * tiles * filters * (double)w.depth, back = 6 * positions * tiles * filters;
    return products + back + 9 * positions * phases * tiles * quads < 0.8 * direct;
}

bool klaus_winograd_can(const klaus_shape *s) {
    if (!klaus_conv_is_sound(s) || s->kernel_rows != s->kernel_cols || s->stride_rows != s->stride_cols ||
        s->pad_top < 0 || s->pad_left < 0 || s->pad_top > s->kernel_rows || s->pad_left > s->kernel_cols)
        return false;
    const bool known = (s->kernel_rows == 3 && s->stride_rows == 1) ||
                       ((s->kernel_rows == 5 || s->kernel_rows == 7) && s->stride_rows == 2);
    /* Sizes are those of feature maps; the limit keeps the arithmetic on them in 64 bits. */
    return known && s->out_channels / s->groups >= 8 && s->in_rows < 65536 && s->in_cols < 65536 && pays(s);
}

uint64_t klaus_winograd_panel_bytes(const klaus_shape *s, const klaus_winograd *w, int64_t width) {
    const uint64_t count = (uint64_t)width * (uint64_t)(w->fresh ? klaus_shape_weights_per_row(s) : w->depth);
    return 2 * (uint64_t)width * sizeof(float) + (w->halves ? 2 * count : count * sizeof(float));
}

uint64_t klaus_winograd_packed_bytes(const klaus_shape *s) {
    const klaus_winograd w = klaus_winograd_of(s);
    return (uint64_t)s->groups * klaus_winograd_panel_bytes(s, &w, klaus_panel_channels(w.filters));
}

/* The value of a filter's polynomial at point `index` is its taps times this power. */
static double factor(const klaus_winograd *w, int32_t index, int32_t tap) {
    static const double points[] = {0, 1, -1, 2, -2}; /* and infinity */
    if (index == w->points - 1)
        return tap == w->taps - 1 ? 1 : 0;
    double value = 1;
    for (int32_t i = 0; i < tap; i++)
        value *= points[index];
    return value;
}

/* One filter, one phase: taps[rows][cols] (missing ones zero) to values[n][n]. */
static void transform(const klaus_winograd *w, const double *taps, double *values) {
    double half[KLAUS_WINOGRAD_MOST_POINTS][KLAUS_WINOGRAD_MOST_POINTS];
    for (int32_t i = 0; i < w->points; i++)
        for (int32_t v = 0; v < w->taps; v++) {
            half[i][v] = 0;
            for (int32_t u = 0; u < w->taps; u++)
                half[i][v] += factor(w, i, u) * taps[u * w->taps + v];
        }
    for (int32_t i = 0; i < w->points; i++)
        for (int32_t j = 0; j < w->points; j++) {
            double sum = 0;
            for (int32_t v = 0; v < w->taps; v++)
                sum += factor(w, j, v) * half[i][v];
            values[i * w->points + j] = sum;
        }
}

/* Channels whose taps are decoded at once. */
#define SOME_CHANNELS 64
#define MOST_TAPS 49

/* One filter into column `column` of its panel's weights. */
static void pack_filter(const klaus_shape *s, const klaus_winograd *w, const klaus_weights *weights, int64_t filter,
                        float *panel, int32_t width) {
    float some[MOST_TAPS][SOME_CHANNELS];
    double taps[16], values[KLAUS_WINOGRAD_MOST_POSITIONS];
    for (int32_t first = 0; first < w->channels; first += SOME_CHANNELS) {
        const int32_t count = w->channels - first < SOME_CHANNELS ? w->channels - first : SOME_CHANNELS;
        for (int32_t tap = 0; tap < s->kernel_rows * s->kernel_cols; tap++)
            klaus_weights_read(s, weights, filter, (int64_t)tap * w->channels + first, count, some[tap]);
        for (int32_t c = 0; c < count; c++)
            for (int32_t phase = 0; phase < w->stride * w->stride; phase++) {
                const int32_t down = phase / w->stride, right = phase % w->stride;
                for (int32_t u = 0; u < w->taps; u++)
                    for (int32_t v = 0; v < w->taps; v++) {
                        const int32_t row = u * w->stride + down, col = v * w->stride + right;
                        const bool there = row < s->kernel_rows && col < s->kernel_cols;
                        taps[u * w->taps + v] = there ? some[row * s->kernel_cols + col][c] : 0;
                    }
                transform(w, taps, values);
                float *to = panel;
                for (int32_t i = 0; i < w->points; i++)
                    for (int32_t j = 0; j < w->points; j++) {
                        const int32_t across = klaus_winograd_phases(w, j);
                        if (down < klaus_winograd_phases(w, i) && right < across)
                            to[((down * across + right) * w->channels + first + c) * width] =
                                (float)values[i * w->points + j];
                        to += (int64_t)klaus_winograd_depth(w, i, j) * width;
                    }
            }
    }
}

/* One filter as it is. */
static void pack_taps(const klaus_shape *s, const klaus_winograd *w, const klaus_weights *weights, int64_t filter,
                      int32_t column, uint8_t *panel, int32_t width) {
    const int32_t count = s->kernel_rows * s->kernel_cols;
    float some[SOME_CHANNELS];
    for (int32_t tap = 0; tap < count; tap++)
        for (int32_t first = 0; first < w->channels; first += SOME_CHANNELS) {
            const int32_t channels = w->channels - first < SOME_CHANNELS ? w->channels - first : SOME_CHANNELS;
            const int64_t begin = (int64_t)tap * w->channels + first;
            klaus_weights_read(s, weights, filter, begin, channels, some);
            for (int32_t c = 0; c < channels; c++) {
                const size_t at = (size_t)(((int64_t)(first + c) * count + tap) * width + column);
                if (!w->halves) {
                    memcpy(panel + 4 * at, &some[c], 4);
                    continue;
                }
                const uint8_t *halves = s->weight_dtype == KLAUS_F16 ? weights->values : weights->codebook;
                const size_t half = s->weight_dtype == KLAUS_F16
                                        ? (size_t)filter * weights->row_bytes / 2 + (size_t)(begin + c)
                                        : klaus_weight_index(s, weights, filter, begin + c);
                memcpy(panel + 2 * at, halves + 2 * half, 2);
            }
        }
}

void klaus_winograd_pack(const klaus_shape *s, const klaus_weights *weights, void *packed, int32_t panel_width) {
    const klaus_winograd w = klaus_winograd_of(s);
    uint8_t *to = packed;
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t first = 0, width; first < w.filters; first += width) {
            width = klaus_panel_width(w.filters, first, panel_width);
            const size_t bytes = (size_t)klaus_winograd_panel_bytes(s, &w, width);
            memset(to, 0, bytes);
            float *head = (float *)(void *)to;
            for (int32_t c = 0; c < width && first + c < w.filters; c++) {
                const int64_t filter = (int64_t)group * w.filters + first + c;
                head[c] = weights->scale != NULL ? weights->scale[filter] : 1.0f;
                head[width + c] = weights->bias[filter];
                if (w.fresh)
                    pack_taps(s, &w, weights, filter, c, (uint8_t *)(head + 2 * width), width);
                else
                    pack_filter(s, &w, weights, filter, head + 2 * width + c, width);
            }
            to += bytes;
        }
}
