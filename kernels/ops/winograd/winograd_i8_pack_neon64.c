#include <string.h>

#include "ops/conv/conv.h"
#include "ops/shape.h"
#include "ops/winograd/winograd_i8.h"

#define MOST_TAPS 49
#define SOME 64           /* channels whose weights are read at once */
#define MOST_SUM 131585   /* of magnitudes of weights: 255 * 131585 < 2^25 */
#define MOST_WEIGHTS 1036 /* whose sum is never more, positive or negative alone */

klaus_winograd_i8 klaus_winograd_i8_of(const klaus_shape *s) {
    klaus_winograd_i8 g;
    memset(&g, 0, sizeof g);
    g.kernel = s->kernel_rows;
    g.stride = s->stride_rows;
    g.taps = (g.kernel + g.stride - 1) / g.stride;
    g.tile = KLAUS_WINOGRAD_I8_POINTS + 1 - g.taps;
    g.tile_rows = (s->out_rows + g.tile - 1) / g.tile;
    g.tile_cols = (s->out_cols + g.tile - 1) / g.tile;
    g.tiles = g.tile_rows * g.tile_cols;
    g.blocks = (g.tiles + KLAUS_WINOGRAD_I8_TILES - 1) / KLAUS_WINOGRAD_I8_TILES;
    g.channels = s->in_channels / s->groups;
    g.filters = s->out_channels / s->groups;
    g.panels = (g.filters + KLAUS_WINOGRAD_I8_WIDTH - 1) / KLAUS_WINOGRAD_I8_WIDTH;
    g.joined = g.stride == 2 && s->groups == 1 && 2 * g.channels <= 8;
    g.fresh = g.taps == 3 && !g.joined;
    g.rows = ((int64_t)(g.tile_rows - 1) * g.tile + KLAUS_WINOGRAD_I8_POINTS) * g.stride;
    g.cols = ((int64_t)(g.tile_cols - 1) * g.tile + KLAUS_WINOGRAD_I8_POINTS) * g.stride;
    for (int32_t i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++)
        for (int32_t j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++) {
            const int32_t stretches =
                klaus_winograd_i8_phases(&g, i) * (g.joined ? 1 : klaus_winograd_i8_phases(&g, j));
            const int32_t depth = stretches * klaus_winograd_i8_stretch(&g, j);
            g.depths[i * KLAUS_WINOGRAD_I8_POINTS + j] = depth;
            g.offsets[i * KLAUS_WINOGRAD_I8_POINTS + j] = g.block_size;
            g.block_size +=
                KLAUS_WINOGRAD_I8_TILES * (depth + 8); /* a vector that is stored may have 7 numbers too many */
            g.depth += depth;
        }
    g.copy_bytes = klaus_aligned((uint64_t)(g.rows * g.cols) * (uint64_t)s->in_channels + 8);
    g.inputs_bytes = klaus_aligned((uint64_t)s->groups * (uint64_t)g.blocks * (uint64_t)g.block_size * sizeof(int16_t));
    g.sums_bytes = klaus_aligned(
        (uint64_t)(KLAUS_WINOGRAD_I8_POSITIONS * KLAUS_WINOGRAD_I8_TILES * KLAUS_WINOGRAD_I8_WIDTH) * sizeof(int32_t));
    g.weights_bytes = g.fresh ? klaus_aligned((uint64_t)g.depth * KLAUS_WINOGRAD_I8_WIDTH * sizeof(int16_t)) : 0;
    return g;
}

/* Instructions, roughly, of both ways. */
static bool pays(const klaus_shape *s) {
    const klaus_winograd_i8 g = klaus_winograd_i8_of(s);
    const double phases = g.stride * g.stride, quads = (g.filters + 3) / 4 * s->groups;
    const double direct = 0.2 * s->out_rows * s->out_cols * s->out_channels * (double)klaus_shape_weights_per_row(s);
    const double products = g.tiles * quads * (double)g.depth, back = 250.0 * g.tiles * quads;
    const double samples = 250.0 * phases * g.tiles * s->groups * ((g.channels + 7) / 8);
    const double weights = g.fresh ? 10 * phases * s->in_channels * quads : 0;
    return products + back + samples + weights < 0.9 * direct;
}

bool klaus_winograd_i8_can(const klaus_shape *s) {
    if (!klaus_conv_has_geometry(s) || !klaus_int8_fits(s) || s->out_dtype != KLAUS_I8 ||
        s->kernel_rows != s->kernel_cols || s->stride_rows != s->stride_cols || s->pad_top < 0 || s->pad_left < 0)
        return false;
    const bool known = (s->kernel_rows == 3 && s->stride_rows == 1) ||
                       ((s->kernel_rows == 5 || s->kernel_rows == 7) && s->stride_rows == 2);
    /* Sizes are those of feature maps; the limits keep the arithmetic on them in 64 bits, an offset in a map in 32. */
    if (!known || s->out_channels / s->groups < 8 || s->out_rows >= 32768 || s->out_cols >= 32768)
        return false;
    const klaus_winograd_i8 g = klaus_winograd_i8_of(s);
    return (g.fresh || klaus_shape_weights_per_row(s) <= MOST_WEIGHTS) &&
           g.rows * g.cols * s->in_channels < (1 << 30) && pays(s);
}

/* ---- packing ---- */

uint64_t klaus_winograd_i8_packed_bytes(const klaus_shape *s) {
    const klaus_winograd_i8 g = klaus_winograd_i8_of(s);
    return (uint64_t)s->groups * klaus_winograd_i8_group_bytes(&g);
}

/* The value at point `index` of a polynomial with `taps` coefficients. */
static int32_t value_at(int32_t index, const int32_t *coefficients, int32_t step, int32_t taps) {
    static const int32_t points[] = {0, 1, -1, 2, -2}; /* and infinity */
    if (index == KLAUS_WINOGRAD_I8_POINTS - 1)
        return coefficients[(taps - 1) * step];
    int32_t value = 0;
    for (int32_t i = taps - 1; i >= 0; i--)
        value = value * points[index] + coefficients[i * step];
    return value;
}

/* One filter's weights of one channel, transformed, into their places. */
static void pack_transformed(const klaus_winograd_i8 *g, const int8_t *filter, int32_t channel, int32_t column,
                             const klaus_winograd_i8_panel *p) {
    for (int32_t down = 0; down < g->stride; down++)
        for (int32_t right = 0; right < g->stride; right++) {
            int32_t taps[16], half[KLAUS_WINOGRAD_I8_POINTS * 4];
            for (int32_t u = 0; u < g->taps; u++)
                for (int32_t v = 0; v < g->taps; v++) {
                    const int32_t row = u * g->stride + down, col = v * g->stride + right;
                    taps[u * g->taps + v] = row < g->kernel && col < g->kernel ? filter[row * g->kernel + col] : 0;
                }
            for (int32_t i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++)
                for (int32_t v = 0; v < g->taps; v++)
                    half[i * g->taps + v] = value_at(i, taps + v, g->taps, g->taps);
            int64_t begin = 0;
            for (int32_t i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++)
                for (int32_t j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++) {
                    if (down < klaus_winograd_i8_phases(g, i) && right < klaus_winograd_i8_phases(g, j)) {
                        const int32_t step =
                            klaus_winograd_i8_stretch_at(g, j, down, right) + (g->joined ? right * g->channels : 0);
                        const int64_t at = begin * p->width + klaus_winograd_i8_place(step + channel, column, p->width);
                        ((int16_t *)p->weights)[at] = (int16_t)value_at(j, half + i * g->taps, 1, g->taps);
                    }
                    begin += g->depths[i * KLAUS_WINOGRAD_I8_POINTS + j];
                }
        }
}

static void pack_filter(const klaus_shape *s, const klaus_winograd_i8 *g, const klaus_weights *weights, int64_t filter,
                        int32_t column, const klaus_winograd_i8_panel *p) {
    int8_t some[MOST_TAPS][SOME], own[MOST_TAPS];
    const int32_t taps = g->kernel * g->kernel;
    int64_t positive = 0, negative = 0;
    for (int32_t first = 0; first < g->channels; first += SOME) {
        const int32_t count = g->channels - first < SOME ? g->channels - first : SOME;
        for (int32_t tap = 0; tap < taps; tap++)
            klaus_int8_weights_read(s, weights, filter, p->steps[column], (int64_t)tap * g->channels + first, count,
                                    some[tap]);
        for (int32_t c = 0; c < count; c++) {
            for (int32_t tap = 0; tap < taps; tap++) {
                own[tap] = some[tap][c];
                positive += own[tap] > 0 ? own[tap] : 0;
                negative -= own[tap] < 0 ? own[tap] : 0;
                if (g->fresh) {
                    const int64_t pair = (int64_t)(first + c) / 2 * taps + tap;
                    ((int8_t *)
                         p->weights)[pair * 2 * p->width + klaus_winograd_i8_place((first + c) % 2, column, p->width)] =
                        own[tap];
                }
            }
            if (!g->fresh)
                pack_transformed(g, own, first + c, column, p);
        }
    }
    if (positive > MOST_SUM || negative > MOST_SUM)
        p->exact[0] = 0;
}

void klaus_winograd_i8_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const klaus_winograd_i8 g = klaus_winograd_i8_of(s);
    memset(packed, 0, (size_t)klaus_winograd_i8_packed_bytes(s));
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t number = 0; number < g.panels; number++) {
            const klaus_winograd_i8_panel p = klaus_winograd_i8_panel_at(packed, &g, group, number);
            p.exact[0] = 1;
            for (int32_t c = 0; c < p.width; c++) {
                const int64_t filter = (int64_t)group * g.filters + p.first + c;
                p.steps[c] = c < p.count ? klaus_int8_weight_step(s, weights, filter) : 1;
                if (c < p.count)
                    pack_filter(s, &g, weights, filter, c, &p);
            }
        }
}
