/* int8 convolution in the transform domain, exact: ops/int8.h says what it computes, to the bit. See winograd.h for the
 * method; here everything is an integer.
 *
 * The six points 0, 1, -1, 2, -2 and infinity of samples x - zero and of weights fit 16 bits: (4 + 5 + 1)^2 * 255, 49 *
 * 127 for three taps, 225 * 127 for four. SMLAL multiplies them into 32 bits, where sums may wrap: what comes out is
 * right modulo 2^32. The way back leaves each output times 9 * 2^k, k = 2 .. 6, as no fraction may arise: 9 has an
 * inverse modulo 2^32, and SCVTF divides by 2^k while it converts. So an output is exact where its sum is less than
 * 2^25 in magnitude. 255 times the larger of the sums of its positive and its negative weights bounds it: where that is
 * not enough for a panel, pack() says so, and the panel is computed without transforms.
 *
 * A multiply takes seven tiles by twelve channels. Eight steps of depth stand in a register of each tile, so that
 * transformed samples are stored as they come, channels side by side, and SMLAL takes them by element. Depths are even:
 * weights of two steps fill three registers.
 * For a stride of two and few channels both columns' phases lie side by side in memory and are taken as one stretch.
 *
 * Packed layout, KLAUS_LAYOUT_WINOGRAD_I8: for each group its panels (klaus_panel_width() channels wide), each
 *     float step[width]; int32 exact, 0, 0, 0: whether transforms give exact sums
 *     3x3, 5x5: int8 weight[pair of channels][kernel row][kernel column][2 * width]
 *     7x7, or few channels: int16 weight[position row][position column][pair of steps][2 * width], transformed
 * a pair's weights in this order: 12 wide: 0-7 of the first; 8-11 of the first, of the second; 0-7 of the second; 8 and
 * 4 wide: those of the first, those of the second. */
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/gemm/gemm.h"
#include "ops/int8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define POINTS 6
#define POSITIONS (POINTS * POINTS)
#define WIDTH 12
#define TILES 7
#define MOST_TAPS 49
#define SOME 64                  /* channels whose weights are read at once */
#define MOST_SUM 131585          /* of magnitudes of weights: 255 * 131585 < 2^25 */
#define MOST_WEIGHTS 1036        /* whose sum is never more, positive or negative alone */
#define INVERSE_OF_9 0x38e38e39u /* modulo 2^32 */
#define UNROLLED KLAUS_INT8_UNROLLED

typedef struct geometry {
    int32_t kernel, stride, taps, tile;
    int32_t tile_rows, tile_cols, tiles, blocks; /* blocks of TILES */
    int32_t channels, filters, panels;           /* of a group */
    bool joined;                                 /* a stretch of depth is both columns' phases */
    bool fresh;                                  /* weights are transformed while the network runs */
    int64_t rows, cols;                          /* of the padded copy */
    int32_t depths[POSITIONS];                   /* even */
    int64_t offsets[POSITIONS];                  /* of a position in the transformed samples of a block */
    int64_t block_size, depth;                   /* all transformed samples of a block; of all positions together */
    uint64_t copy_bytes, inputs_bytes, sums_bytes, weights_bytes;
} geometry;

static uint64_t aligned(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

static int32_t even(int32_t count) {
    return (count + 1) / 2 * 2;
}

/* Phases of position `index` in one direction: odd ones have nothing at infinity. */
static int32_t phases_of(const geometry *g, int32_t index) {
    return index == POINTS - 1 ? 1 : g->stride;
}

/* Steps of depth of one stretch. */
static int32_t stretch_of(const geometry *g, int32_t col) {
    return even(g->joined ? g->channels * phases_of(g, col) : g->channels);
}

/* Where a phase's stretch begins in a position's depth. */
static int32_t stretch_at(const geometry *g, int32_t col, int32_t down, int32_t right) {
    const int32_t number = g->joined ? down : down * phases_of(g, col) + right;
    return number * stretch_of(g, col);
}

static geometry geometry_of(const klaus_shape *s) {
    geometry g;
    memset(&g, 0, sizeof g);
    g.kernel = s->kernel_rows;
    g.stride = s->stride_rows;
    g.taps = (g.kernel + g.stride - 1) / g.stride;
    g.tile = POINTS + 1 - g.taps;
    g.tile_rows = (s->out_rows + g.tile - 1) / g.tile;
    g.tile_cols = (s->out_cols + g.tile - 1) / g.tile;
    g.tiles = g.tile_rows * g.tile_cols;
    g.blocks = (g.tiles + TILES - 1) / TILES;
    g.channels = s->in_channels / s->groups;
    g.filters = s->out_channels / s->groups;
    g.panels = (g.filters + WIDTH - 1) / WIDTH;
    g.joined = g.stride == 2 && s->groups == 1 && 2 * g.channels <= 8;
    g.fresh = g.taps == 3 && !g.joined;
    g.rows = ((int64_t)(g.tile_rows - 1) * g.tile + POINTS) * g.stride;
    g.cols = ((int64_t)(g.tile_cols - 1) * g.tile + POINTS) * g.stride;
    for (int32_t i = 0; i < POINTS; i++)
        for (int32_t j = 0; j < POINTS; j++) {
            const int32_t stretches = phases_of(&g, i) * (g.joined ? 1 : phases_of(&g, j));
            const int32_t depth = stretches * stretch_of(&g, j);
            g.depths[i * POINTS + j] = depth;
            g.offsets[i * POINTS + j] = g.block_size;
            g.block_size += TILES * (depth + 8); /* a vector that is stored may have 7 numbers too many */
            g.depth += depth;
        }
    g.copy_bytes = aligned((uint64_t)(g.rows * g.cols) * (uint64_t)s->in_channels + 8);
    g.inputs_bytes = aligned((uint64_t)s->groups * (uint64_t)g.blocks * (uint64_t)g.block_size * sizeof(int16_t));
    g.sums_bytes = aligned((uint64_t)(POSITIONS * TILES * WIDTH) * sizeof(int32_t));
    g.weights_bytes = g.fresh ? aligned((uint64_t)g.depth * WIDTH * sizeof(int16_t)) : 0;
    return g;
}

/* Instructions, roughly, of both ways. */
static bool pays(const klaus_shape *s) {
    const geometry g = geometry_of(s);
    const double phases = g.stride * g.stride, quads = (g.filters + 3) / 4 * s->groups;
    const double direct = 0.2 * s->out_rows * s->out_cols * s->out_channels * (double)klaus_shape_weights_per_row(s);
    const double products = g.tiles * quads * (double)g.depth, back = 250.0 * g.tiles * quads;
    const double samples = 250.0 * phases * g.tiles * s->groups * ((g.channels + 7) / 8);
    const double weights = g.fresh ? 10 * phases * s->in_channels * quads : 0;
    return products + back + samples + weights < 0.9 * direct;
}

static bool can(const klaus_shape *s) {
    if (!klaus_conv_has_geometry(s) || !klaus_int8_fits(s) || s->out_dtype != KLAUS_I8 ||
        s->kernel_rows != s->kernel_cols || s->stride_rows != s->stride_cols || s->pad_top < 0 || s->pad_left < 0)
        return false;
    const bool known = (s->kernel_rows == 3 && s->stride_rows == 1) ||
                       ((s->kernel_rows == 5 || s->kernel_rows == 7) && s->stride_rows == 2);
    /* Sizes are those of feature maps; the limits keep the arithmetic on them in 64 bits, an offset in a map in 32. */
    if (!known || s->out_channels / s->groups < 8 || s->out_rows >= 32768 || s->out_cols >= 32768)
        return false;
    const geometry g = geometry_of(s);
    return (g.fresh || klaus_shape_weights_per_row(s) <= MOST_WEIGHTS) &&
           g.rows * g.cols * s->in_channels < (1 << 30) && pays(s);
}

/* ---- packing ---- */

static uint64_t panel_bytes(const geometry *g, int64_t width) {
    const int64_t taps = (int64_t)g->kernel * g->kernel;
    const int64_t weights = g->fresh ? even(g->channels) * taps * width : g->depth * width * (int64_t)sizeof(int16_t);
    return (uint64_t)(width * (int64_t)sizeof(float) + 4 * (int64_t)sizeof(int32_t) + weights);
}

static uint64_t group_bytes(const geometry *g) {
    const int32_t full = g->filters / WIDTH, rest = klaus_panel_channels(g->filters - full * WIDTH);
    return (uint64_t)full * panel_bytes(g, WIDTH) + (rest > 0 ? panel_bytes(g, rest) : 0);
}

static uint64_t packed_bytes(const klaus_shape *s) {
    const geometry g = geometry_of(s);
    return (uint64_t)s->groups * group_bytes(&g);
}

/* The parts of a panel. */
typedef struct panel {
    int32_t first, width, count; /* its first filter in the group; count: filters that exist */
    float *steps;
    int32_t *exact;
    void *weights;
} panel;

static panel panel_at(uint8_t *packed, const geometry *g, int32_t group, int32_t number) {
    uint8_t *at = packed + (size_t)group * (size_t)group_bytes(g) + (size_t)number * (size_t)panel_bytes(g, WIDTH);
    panel p = {.first = number * WIDTH, .width = klaus_panel_width(g->filters, number * WIDTH, WIDTH)};
    p.count = g->filters - p.first < p.width ? g->filters - p.first : p.width;
    p.steps = (float *)(void *)at;
    p.exact = (int32_t *)(void *)(p.steps + p.width);
    p.weights = p.exact + 4;
    return p;
}

/* Where the weight of filter `column` for step `step` of depth stands among a panel's. */
static int64_t place_of(int64_t step, int32_t column, int32_t width) {
    const int32_t second = (int32_t)(step % 2);
    const int64_t pair = step / 2 * 2 * width;
    if (width == WIDTH)
        return pair + (column < 8 ? 16 * second + column : 8 + 4 * second + column - 8);
    return pair + width * second + column;
}

/* The value at point `index` of a polynomial with `taps` coefficients. */
static int32_t value_at(int32_t index, const int32_t *coefficients, int32_t step, int32_t taps) {
    static const int32_t points[] = {0, 1, -1, 2, -2}; /* and infinity */
    if (index == POINTS - 1)
        return coefficients[(taps - 1) * step];
    int32_t value = 0;
    for (int32_t i = taps - 1; i >= 0; i--)
        value = value * points[index] + coefficients[i * step];
    return value;
}

/* One filter's weights of one channel, transformed, into their places. */
static void pack_transformed(const geometry *g, const int8_t *filter, int32_t channel, int32_t column, const panel *p) {
    for (int32_t down = 0; down < g->stride; down++)
        for (int32_t right = 0; right < g->stride; right++) {
            int32_t taps[16], half[POINTS * 4];
            for (int32_t u = 0; u < g->taps; u++)
                for (int32_t v = 0; v < g->taps; v++) {
                    const int32_t row = u * g->stride + down, col = v * g->stride + right;
                    taps[u * g->taps + v] = row < g->kernel && col < g->kernel ? filter[row * g->kernel + col] : 0;
                }
            for (int32_t i = 0; i < POINTS; i++)
                for (int32_t v = 0; v < g->taps; v++)
                    half[i * g->taps + v] = value_at(i, taps + v, g->taps, g->taps);
            int64_t begin = 0;
            for (int32_t i = 0; i < POINTS; i++)
                for (int32_t j = 0; j < POINTS; j++) {
                    if (down < phases_of(g, i) && right < phases_of(g, j)) {
                        const int32_t step = stretch_at(g, j, down, right) + (g->joined ? right * g->channels : 0);
                        const int64_t at = begin * p->width + place_of(step + channel, column, p->width);
                        ((int16_t *)p->weights)[at] = (int16_t)value_at(j, half + i * g->taps, 1, g->taps);
                    }
                    begin += g->depths[i * POINTS + j];
                }
        }
}

static void pack_filter(const klaus_shape *s, const geometry *g, const klaus_weights *weights, int64_t filter,
                        int32_t column, const panel *p) {
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
                    ((int8_t *)p->weights)[pair * 2 * p->width + place_of((first + c) % 2, column, p->width)] =
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

static void pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const geometry g = geometry_of(s);
    memset(packed, 0, (size_t)packed_bytes(s));
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t number = 0; number < g.panels; number++) {
            const panel p = panel_at(packed, &g, group, number);
            p.exact[0] = 1;
            for (int32_t c = 0; c < p.width; c++) {
                const int64_t filter = (int64_t)group * g.filters + p.first + c;
                p.steps[c] = c < p.count ? klaus_int8_weight_step(s, weights, filter) : 1;
                if (c < p.count)
                    pack_filter(s, &g, weights, filter, c, &p);
            }
        }
}

/* ---- phase 0: the padded copy ---- */

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    const geometry g = geometry_of(s);
    return g.copy_bytes + g.inputs_bytes + (uint64_t)parts * (g.sums_bytes + g.weights_bytes);
}

static void copy_rows(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int32_t zero = s->in_quantization[0].zero;
    const size_t cell = (size_t)s->in_channels;
    const int64_t before = s->pad_left < g->cols ? s->pad_left : g->cols;
    const int64_t cells = g->cols - before < s->in_cols ? g->cols - before : s->in_cols;
    int64_t begin, end;
    klaus_share(g->rows, 1, part, parts, &begin, &end);
    for (int64_t y = begin; y < end; y++) {
        int8_t *to = (int8_t *)call->scratch + (size_t)(y * g->cols) * cell;
        const int64_t from = y - s->pad_top;
        if (from < 0 || from >= s->in_rows) {
            memset(to, zero, (size_t)g->cols * cell);
            continue;
        }
        memset(to, zero, (size_t)before * cell);
        to += (size_t)before * cell;
        memcpy(to, (const int8_t *)call->input[0] + (size_t)(from * s->in_cols) * cell, (size_t)cells * cell);
        to += (size_t)cells * cell;
        memset(to, zero, (size_t)(g->cols - before - cells) * cell);
    }
    if (end == g->rows) /* what the last vector reads beyond the last cell */
        memset((int8_t *)call->scratch + (size_t)(g->rows * g->cols) * cell, zero, 8);
}

/* ---- phase 1: samples ---- */

/* A vector that the compiler does not know the value of, so that it multiplies and adds in one instruction where it
 * would shift and add. */
static inline int16x8_t unknown_s16(int16_t value) {
    int16x8_t vector = vdupq_n_s16(value);
    __asm__("" : "+w"(vector));
    return vector;
}

static inline int32x4_t unknown_s32(int32_t value) {
    int32x4_t vector = vdupq_n_s32(value);
    __asm__("" : "+w"(vector));
    return vector;
}

typedef struct factors {
    int16x8_t two, four, five;
} factors;

/* Six samples in a line to their values at six points, times what makes integers of them. */
__attribute__((always_inline)) static inline void transform_6(const int16x8_t *d, int16x8_t *to, const int step,
                                                              const factors *by) {
    const int16x8_t d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const int16x8_t a = vmlsq_s16(d4, d2, by->four), b = vmlsq_s16(d3, d1, by->four);
    const int16x8_t c = vsubq_s16(d4, d2), e = vsubq_s16(d3, d1);
    to[0] = vmlaq_s16(vmlsq_s16(d4, d2, by->five), d[0], by->four);
    to[step] = vaddq_s16(a, b);
    to[2 * step] = vsubq_s16(a, b);
    to[3 * step] = vmlaq_s16(c, e, by->two);
    to[4 * step] = vmlsq_s16(c, e, by->two);
    to[5 * step] = vmlaq_s16(vmlsq_s16(d[5 * step], d3, by->five), d1, by->four);
}

/* Eight channels of one phase of one tile. */
__attribute__((noinline)) static void transform_samples(const int8_t *from, int64_t row_step, int64_t col_step,
                                                        int8x8_t zero, int16x8_t *values) {
    const factors by = {unknown_s16(2), unknown_s16(4), unknown_s16(5)};
    int16x8_t samples[POSITIONS], half[POSITIONS];
    for (int i = 0; i < POINTS; i++, from += row_step) {
        const int8_t *cell = from;
        UNROLLED for (int j = 0; j < POINTS; j++, cell += col_step) samples[i * POINTS + j] =
            vsubl_s8(vld1_s8(cell), zero);
    }
    UNROLLED for (int j = 0; j < POINTS; j++) transform_6(samples + j, half + j, POINTS, &by);
    UNROLLED for (int i = 0; i < POINTS; i++) transform_6(half + POINTS * i, values + POINTS * i, 1, &by);
}

static int16_t *inputs_of(const klaus_call *call, const geometry *g, int64_t block) {
    return (int16_t *)(void *)((uint8_t *)call->scratch + (size_t)g->copy_bytes) + block * g->block_size;
}

/* All channels of one tile, [position][tile of the block][step of depth]. */
static void transform_tile(const klaus_call *call, const geometry *g, int32_t group, int32_t tile) {
    const int64_t cell = call->shape->in_channels;
    const int8x8_t zero = vdup_n_s8((int8_t)call->shape->in_quantization[0].zero);
    const int64_t top = (int64_t)(tile / g->tile_cols) * g->tile * g->stride;
    const int64_t left = (int64_t)(tile % g->tile_cols) * g->tile * g->stride;
    const int8_t *window = (const int8_t *)call->scratch + (top * g->cols + left) * cell + group * g->channels;
    int16_t *inputs = inputs_of(call, g, (int64_t)group * g->blocks + tile / TILES);
    const int32_t number = tile % TILES, rights = g->joined ? 1 : g->stride;
    const int32_t channels = g->joined ? 2 * g->channels : g->channels;
    /* Ascending places in each position: what a vector stores too many is written over. */
    for (int32_t down = 0; down < g->stride; down++)
        for (int32_t right = 0; right < rights; right++)
            for (int32_t c = 0; c < channels; c += 8) {
                int16x8_t values[POSITIONS];
                transform_samples(window + (down * g->cols + right) * cell + c, g->stride * g->cols * cell,
                                  g->stride * cell, zero, values);
                for (int32_t i = 0; i < POINTS; i++)
                    for (int32_t j = 0; j < POINTS; j++) {
                        const int32_t position = i * POINTS + j;
                        if (down < phases_of(g, i) && right < phases_of(g, j))
                            vst1q_s16(inputs + g->offsets[position] + number * (g->depths[position] + 8) +
                                          stretch_at(g, j, down, right) + c,
                                      values[position]);
                    }
            }
}

static void transform_tiles(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    int64_t begin, end;
    klaus_share((int64_t)call->shape->groups * g->tiles, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++)
        transform_tile(call, g, (int32_t)(item / g->tiles), (int32_t)(item % g->tiles));
}

/* ---- phase 2: weights ---- */

/* Three taps in a line to their values at six points. */
__attribute__((always_inline)) static inline void transform_taps(const int16x8_t *taps, const int step, int16x8_t *to,
                                                                 const int to_step, const factors *by) {
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
                                                                  const int right, const factors *by) {
    int16x8_t own[9], half[18];
    UNROLLED for (int u = 0; u < 3; u++) UNROLLED for (int v = 0; v < 3; v++) {
        const int row = u * stride + down, col = v * stride + right;
        own[3 * u + v] = row < kernel && col < kernel ? taps[row * kernel + col] : vdupq_n_s16(0);
    }
    UNROLLED for (int v = 0; v < 3; v++) transform_taps(own + v, 3, half + v, 3, by);
    UNROLLED for (int i = 0; i < POINTS; i++) {
        const int downs = stride == 2 && i == POINTS - 1 ? 1 : stride;
        if (down < downs) {
            int16x8_t values[POINTS];
            transform_taps(half + 3 * i, 1, values, 1, by);
            UNROLLED for (int j = 0; j < POINTS; j++) {
                const int across = stride == 2 && j == POINTS - 1 ? 1 : stride;
                /* Stretches before this one: of the rows above, of the positions before, of the phases before. */
                const int before = i * stride * (POINTS * stride - stride + 1) + j * stride * downs;
                if (right < across)
                    vst1q_s16(to + (before + down * across + right) * line, values[j]);
            }
        }
    }
}

__attribute__((always_inline)) static inline void transform_weights(const geometry *g, const panel *p, int16_t *to,
                                                                    const int kernel, const int stride) {
    const factors by = {unknown_s16(2), unknown_s16(4), unknown_s16(5)};
    const int32_t pairs = even(g->channels) / 2, numbers = 2 * p->width;
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

__attribute__((noinline)) static void transform_3x3(const geometry *g, const panel *p, int16_t *to) {
    transform_weights(g, p, to, 3, 1);
}

__attribute__((noinline)) static void transform_5x5(const geometry *g, const panel *p, int16_t *to) {
    transform_weights(g, p, to, 5, 2);
}

/* ---- phase 2: products ---- */

typedef struct product {
    const geometry *g;
    const int16_t *inputs;  /* of a block */
    const int16_t *weights; /* of a panel, transformed */
    int32_t *sums;          /* [position][tiles][width] */
} product;

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
__attribute__((always_inline)) static inline void multiply_body(const product *p, const int tiles, const int width) {
    const geometry *g = p->g;
    const int16_t *weights = p->weights;
    int32_t *to = p->sums;
    for (int32_t position = 0; position < POSITIONS; position++) {
        int32x4_t sums[TILES][3];
        int16x8_t x[TILES];
        int32_t depth = g->depths[position];
        const int64_t line = depth + 8;
        const int16_t *inputs[TILES];
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

static void multiply_1x4(const product *p) {
    multiply_body(p, 1, 4);
}

static void multiply_2x4(const product *p) {
    multiply_body(p, 2, 4);
}

static void multiply_3x4(const product *p) {
    multiply_body(p, 3, 4);
}

static void multiply_4x4(const product *p) {
    multiply_body(p, 4, 4);
}

static void multiply_5x4(const product *p) {
    multiply_body(p, 5, 4);
}

static void multiply_6x4(const product *p) {
    multiply_body(p, 6, 4);
}

static void multiply_7x4(const product *p) {
    multiply_body(p, 7, 4);
}

static void multiply_1x8(const product *p) {
    multiply_body(p, 1, 8);
}

static void multiply_2x8(const product *p) {
    multiply_body(p, 2, 8);
}

static void multiply_3x8(const product *p) {
    multiply_body(p, 3, 8);
}

static void multiply_4x8(const product *p) {
    multiply_body(p, 4, 8);
}

static void multiply_5x8(const product *p) {
    multiply_body(p, 5, 8);
}

static void multiply_6x8(const product *p) {
    multiply_body(p, 6, 8);
}

static void multiply_7x8(const product *p) {
    multiply_body(p, 7, 8);
}

static void multiply_1x12(const product *p) {
    multiply_body(p, 1, 12);
}

static void multiply_2x12(const product *p) {
    multiply_body(p, 2, 12);
}

static void multiply_3x12(const product *p) {
    multiply_body(p, 3, 12);
}

static void multiply_4x12(const product *p) {
    multiply_body(p, 4, 12);
}

static void multiply_5x12(const product *p) {
    multiply_body(p, 5, 12);
}

static void multiply_6x12(const product *p) {
    multiply_body(p, 6, 12);
}

static void multiply_7x12(const product *p) {
    multiply_body(p, 7, 12);
}

static void multiply(const product *p, int32_t tiles, int32_t width) {
    static void (*const all[3][TILES])(const product *) = {
        {multiply_1x4, multiply_2x4, multiply_3x4, multiply_4x4, multiply_5x4, multiply_6x4, multiply_7x4},
        {multiply_1x8, multiply_2x8, multiply_3x8, multiply_4x8, multiply_5x8, multiply_6x8, multiply_7x8},
        {multiply_1x12, multiply_2x12, multiply_3x12, multiply_4x12, multiply_5x12, multiply_6x12, multiply_7x12},
    };
    all[width / 4 - 1][tiles - 1](p);
}

/* ---- phase 2: outputs ---- */

/* What belongs to one panel. */
typedef struct target {
    const klaus_shape *shape;
    const geometry *g;
    const klaus_int8_target *finish;
    int8_t *output; /* of the panel's first channel */
    const int8_t *addend;
    int32_t count; /* channels that exist */
    float multiplier[WIDTH], offset[WIDTH];
} target;

/* The tile's first output and how much of it lies in the picture. */
typedef struct corner {
    int64_t at; /* of the panel's channel 0 */
    int32_t rows, cols;
} corner;

static corner corner_of(const target *to, int32_t tile) {
    const klaus_shape *s = to->shape;
    const geometry *g = to->g;
    const int32_t top = tile / g->tile_cols * g->tile, left = tile % g->tile_cols * g->tile;
    return (corner){((int64_t)top * s->out_cols + left) * s->out_channels,
                    s->out_rows - top < g->tile ? s->out_rows - top : g->tile,
                    s->out_cols - left < g->tile ? s->out_cols - left : g->tile};
}

/* Four channels from `channel` on of up to four outputs beside one another, the first `cols` of which exist. */
__attribute__((always_inline)) static inline void finish_row(const target *to, float32x4_t *values, int64_t at,
                                                             int32_t cols, int32_t channel, const bool plain) {
    const int64_t step = to->shape->out_channels;
    const int32_t count = to->count - channel;
    if (!plain && to->addend != NULL) {
        int8_t addends[16] = {0};
        for (int32_t j = 0; j < cols; j++)
            for (int32_t c = 0; c < 4 && c < count; c++)
                addends[4 * j + c] = to->addend[at + j * step + channel + c];
        klaus_int8_add(to->finish, vld1q_s8(addends), values);
    }
    const int32x4_t results = vreinterpretq_s32_s8(klaus_int8_rounded(to->finish, values, plain));
    int8_t *output = to->output + at + channel;
    if (plain || count >= 4) {
        vst1q_lane_s32((int32_t *)(void *)output, results, 0);
        if (cols > 1)
            vst1q_lane_s32((int32_t *)(void *)(output + step), results, 1);
        if (cols > 2)
            vst1q_lane_s32((int32_t *)(void *)(output + 2 * step), results, 2);
        if (cols > 3)
            vst1q_lane_s32((int32_t *)(void *)(output + 3 * step), results, 3);
        return;
    }
    int8_t all[16];
    vst1q_s8(all, vreinterpretq_s8_s32(results));
    for (int32_t j = 0; j < cols; j++)
        for (int32_t c = 0; c < count; c++)
            output[j * step + c] = all[4 * j + c];
}

typedef struct back_factors {
    int32x4_t two, four, six;
} back_factors;

/* Six sums in a line to outputs, times 24, 12, 6 and 6. */
__attribute__((always_inline)) static inline void back_6(const int32x4_t *m, const int step, int32x4_t *to,
                                                         const int to_step, const int tile, const back_factors *by) {
    const int32x4_t m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const int32x4_t inner = vaddq_s32(m1, m2), inner_minus = vsubq_s32(m2, m1);
    const int32x4_t outer = vaddq_s32(m3, m4), outer_minus = vsubq_s32(m3, m4);
    to[0] = vmlaq_s32(vmlsq_s32(outer, inner, by->four), m[0], by->six);
    to[to_step] = vmlaq_s32(outer_minus, inner_minus, by->two);
    const int32x4_t squares = vsubq_s32(outer, inner);
    if (tile == 3) {
        to[2 * to_step] = vmlaq_s32(squares, m[5 * step], by->six);
    } else {
        to[2 * to_step] = squares;
        to[3 * to_step] = vmlaq_s32(vmlaq_s32(inner_minus, outer_minus, by->two), m[5 * step], by->six);
    }
}

/* v / 2^bits as float32, one rounding. */
static inline float32x4_t to_float(int32x4_t v, const int bits) {
    switch (bits) {
    case 2:
        return vcvtq_n_f32_s32(v, 2);
    case 3:
        return vcvtq_n_f32_s32(v, 3);
    case 4:
        return vcvtq_n_f32_s32(v, 4);
    case 5:
        return vcvtq_n_f32_s32(v, 5);
    default:
        return vcvtq_n_f32_s32(v, 6);
    }
}

/* Four channels of one tile; sums[position * step]. */
__attribute__((always_inline)) static inline void finish_tile(const target *to, const int32_t *sums, int64_t step,
                                                              int32_t tile_number, int32_t channel, const int tile,
                                                              const bool plain) {
    static const int bits[] = {3, 2, 1, 1}; /* 24, 12, 6, 6 are 3 times 2^ these */
    const back_factors by = {unknown_s32(2), unknown_s32(4), unknown_s32(6)};
    const int32x4_t ninth = vreinterpretq_s32_u32(vdupq_n_u32(INVERSE_OF_9));
    int32x4_t half[4 * POINTS];
    UNROLLED for (int j = 0; j < POINTS; j++) {
        int32x4_t line[POINTS];
        UNROLLED for (int i = 0; i < POINTS; i++) line[i] = vld1q_s32(sums + (i * POINTS + j) * step);
        back_6(line, 1, half + j, POINTS, tile, &by);
    }
    const corner at = corner_of(to, tile_number);
    const float32x4_t multiplier = vld1q_f32(to->multiplier + channel);
    const int64_t line_step = (int64_t)to->shape->out_cols * to->shape->out_channels;
    UNROLLED for (int i = 0; i < tile; i++) {
        int32x4_t line[4];
        float32x4_t values[4];
        back_6(half + i * POINTS, 1, line, 1, tile, &by);
        UNROLLED for (int j = 0; j < tile; j++) values[j] = vfmaq_f32(
            klaus_int8_fresh(to->offset + channel), to_float(vmulq_s32(line[j], ninth), bits[i] + bits[j]), multiplier);
        if (tile == 3)
            values[3] = values[2];
        if (at.rows == tile && at.cols == tile)
            finish_row(to, values, at.at + i * line_step, tile, channel, plain);
        else if (i < at.rows)
            finish_row(to, values, at.at + i * line_step, at.cols, channel, plain);
    }
}

__attribute__((noinline)) static void finish_4(const target *to, const int32_t *sums, int64_t step, int32_t tile,
                                               int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 4, true);
}

__attribute__((noinline)) static void finish_3(const target *to, const int32_t *sums, int64_t step, int32_t tile,
                                               int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 3, true);
}

__attribute__((noinline)) static void finish_4_rare(const target *to, const int32_t *sums, int64_t step, int32_t tile,
                                                    int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 4, false);
}

__attribute__((noinline)) static void finish_3_rare(const target *to, const int32_t *sums, int64_t step, int32_t tile,
                                                    int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 3, false);
}

/* Four channels of one tile without transforms, for weights too large for them; `window` is the tile's, of the group.
 */
__attribute__((noinline)) static void finish_directly(const target *to, const panel *p, const int8_t *window,
                                                      int32_t tile_number, int32_t channel) {
    const klaus_shape *s = to->shape;
    const geometry *g = to->g;
    const corner at = corner_of(to, tile_number);
    const int32_t taps = g->kernel * g->kernel, zero = s->in_quantization[0].zero;
    const int8_t *weights = p->weights;
    for (int32_t i = 0; i < at.rows; i++)
        for (int32_t j = 0; j < at.cols; j++) {
            int32_t sums[4] = {0, 0, 0, 0};
            for (int32_t tap = 0; tap < taps; tap++) {
                const int64_t row = i * g->stride + tap / g->kernel, col = j * g->stride + tap % g->kernel;
                const int8_t *x = window + (row * g->cols + col) * s->in_channels;
                for (int32_t c = 0; c < g->channels; c++)
                    for (int32_t f = 0; f < 4; f++)
                        sums[f] += (x[c] - zero) * weights[((int64_t)(c / 2) * taps + tap) * 2 * p->width +
                                                           place_of(c % 2, channel + f, p->width)];
            }
            float32x4_t values[4];
            for (int n = 0; n < 4; n++)
                values[n] =
                    klaus_int8_value(vld1q_s32(sums), vld1q_f32(to->multiplier + channel), to->offset + channel);
            finish_row(to, values, at.at + ((int64_t)i * s->out_cols + j) * s->out_channels, 1, channel, false);
        }
}

/* ---- the work ---- */

static void multiply_all(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const klaus_int8_target finish = klaus_int8_target_of(s);
    uint8_t *own = (uint8_t *)call->scratch +
                   (size_t)(g->copy_bytes + g->inputs_bytes + (uint64_t)part * (g->sums_bytes + g->weights_bytes));
    int32_t *sums = (int32_t *)(void *)own;
    int16_t *transformed = (int16_t *)(void *)(own + (size_t)g->sums_bytes);
    int64_t begin, end, held = -1; /* the panel whose weights are `transformed` */
    klaus_share((int64_t)s->groups * g->panels * g->blocks, 1, part, parts, &begin, &end);
    target to = {.shape = s, .g = g, .finish = &finish};
    for (int64_t item = begin; item < end; item++) { /* a panel's blocks one after another: its weights stay near */
        const int32_t block = (int32_t)(item % g->blocks), group = (int32_t)(item / g->blocks / g->panels);
        const panel p = panel_at((uint8_t *)(uintptr_t)call->packed, g, group, (int32_t)(item / g->blocks % g->panels));
        const int32_t tiles = g->tiles - block * TILES < TILES ? g->tiles - block * TILES : TILES;
        const int64_t channel = (int64_t)group * g->filters + p.first;
        if (held != item / g->blocks) {
            held = item / g->blocks;
            to.output = (int8_t *)call->output + channel;
            to.addend = s->has_addend ? (const int8_t *)call->input[1] + channel : NULL;
            to.count = p.count;
            klaus_int8_head(call, channel, p.count, p.width, p.steps, to.multiplier, to.offset);
            if (g->fresh && p.exact[0] != 0)
                (g->stride == 1 ? transform_3x3 : transform_5x5)(g, &p, transformed);
        }
        if (p.exact[0] != 0) {
            const product product = {.g = g,
                                     .inputs = inputs_of(call, g, (int64_t)group * g->blocks + block),
                                     .weights = g->fresh ? transformed : p.weights,
                                     .sums = sums};
            multiply(&product, tiles, p.width);
        }
        for (int32_t t = 0; t < tiles; t++)
            for (int32_t c = 0; c < p.count; c += 4) {
                const int32_t *from = sums + (int64_t)t * p.width + c;
                const int32_t tile = block * TILES + t;
                const int64_t step = (int64_t)tiles * p.width;
                const bool plain = finish.plain && to.addend == NULL && p.count - c >= 4;
                if (p.exact[0] == 0) {
                    const int64_t top = (int64_t)(tile / g->tile_cols) * g->tile * g->stride;
                    const int64_t left = (int64_t)(tile % g->tile_cols) * g->tile * g->stride;
                    finish_directly(&to, &p,
                                    (const int8_t *)call->scratch + (top * g->cols + left) * s->in_channels +
                                        group * g->channels,
                                    tile, c);
                } else if (g->tile == 4) {
                    (plain ? finish_4 : finish_4_rare)(&to, from, step, tile, c);
                } else {
                    (plain ? finish_3 : finish_3_rare)(&to, from, step, tile, c);
                }
            }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const geometry g = geometry_of(call->shape);
    if (phase == 0)
        copy_rows(call, &g, part, parts);
    else if (phase == 1)
        transform_tiles(call, &g, part, parts);
    else
        multiply_all(call, &g, part, parts);
}

const klaus_variant klaus_winograd_i8_neon_7x12 = {
    .name = "klaus_winograd_i8_neon_7x12",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_WINOGRAD_I8,
    .phases = 3,
    .can = can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
