/* The transforms of the input and of the sums, and the order of the work. */
#include "ops/gemm/gemm.h"
#include "ops/neon.h"
#include "ops/shape.h"
#include "ops/winograd/winograd.h"

#define MOST KLAUS_WINOGRAD_MOST_POINTS
#define UNROLLED _Pragma("clang loop unroll(full)")

static int32_t blocks_of(const klaus_winograd *w, const klaus_winograd_kernel *kernel) {
    return (w->tiles + kernel->tiles - 1) / kernel->tiles;
}

/* All transformed samples: [group][block of tiles][position][phase][channel][tile of the block]. */
static uint64_t inputs_bytes(const klaus_shape *s, const klaus_winograd *w, const klaus_winograd_kernel *kernel) {
    return klaus_aligned((uint64_t)((int64_t)s->groups * blocks_of(w, kernel) * w->depth * kernel->tiles) *
                         sizeof(float));
}

static uint64_t sums_bytes(const klaus_winograd *w, const klaus_winograd_kernel *kernel) {
    return klaus_aligned((uint64_t)(w->points * w->points * kernel->tiles * kernel->width) * sizeof(float));
}

/* A panel's weights, transformed. */
static uint64_t weights_bytes(const klaus_winograd *w, const klaus_winograd_kernel *kernel) {
    return w->fresh ? klaus_aligned((uint64_t)(w->depth * kernel->width) * sizeof(float)) : 0;
}

uint64_t klaus_winograd_scratch_bytes(const klaus_shape *shape, int32_t parts, const klaus_winograd_kernel *kernel) {
    const klaus_winograd w = klaus_winograd_of(shape);
    return inputs_bytes(shape, &w, kernel) + (uint64_t)parts * (sums_bytes(&w, kernel) + weights_bytes(&w, kernel));
}

/* ---- input ---- */

/* Six samples in a line to their values at six points: 0, 1, -1, 2, -2 and infinity. All factors are here, where there
 * is less to multiply than among the weights. */
__attribute__((always_inline)) static inline void transform_6(const float32x4_t *d, float32x4_t *to, const int step) {
    const float32x4_t d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const float32x4_t sixth = vdupq_n_f32(1.0f / 6), thirds = vdupq_n_f32(2.0f / 3);
    const float32x4_t a = vfmsq_f32(vmulq_f32(d2, thirds), d4, sixth), b = vfmsq_f32(vmulq_f32(d1, thirds), d3, sixth);
    const float32x4_t c = vmulq_f32(vsubq_f32(d4, d2), vdupq_n_f32(1.0f / 24)), e = vsubq_f32(d3, d1);
    to[0] = vfmaq_f32(vfmsq_f32(d[0], d2, vdupq_n_f32(1.25f)), d4, vdupq_n_f32(0.25f));
    to[step] = vaddq_f32(a, b);
    to[2 * step] = vsubq_f32(a, b);
    to[3 * step] = vfmaq_f32(c, e, vdupq_n_f32(1.0f / 12));
    to[4 * step] = vfmsq_f32(c, e, vdupq_n_f32(1.0f / 12));
    to[5 * step] = vfmaq_f32(vfmsq_f32(d[5 * step], d3, vdupq_n_f32(5)), d1, vdupq_n_f32(4));
}

static inline float32x4_t load_some(const float *from, int32_t count) {
    float32x4_t value = vdupq_n_f32(0);
    value = vld1q_lane_f32(from, value, 0);
    if (count > 1)
        value = vld1q_lane_f32(from + 1, value, 1);
    if (count > 2)
        value = vld1q_lane_f32(from + 2, value, 2);
    if (count > 3)
        value = vld1q_lane_f32(from + 3, value, 3);
    return value;
}

/* What belongs to one phase and four channels. */
typedef struct source {
    const klaus_shape *shape;
    const klaus_winograd *w;
    const float *input; /* of the first channel */
    const float *end;   /* of the tensor */
    int32_t count;      /* channels that exist, up to 4 */
    int32_t down, right;
} source;

/* The samples of one tile, zeros where there are none. */
__attribute__((always_inline)) static inline void sample(const source *from, int32_t tile, float32x4_t *samples,
                                                         const int points) {
    const klaus_shape *s = from->shape;
    const klaus_winograd *w = from->w;
    const int64_t top = (int64_t)(tile / w->tile_cols) * w->tile * w->stride + from->down - s->pad_top;
    const int64_t left = (int64_t)(tile % w->tile_cols) * w->tile * w->stride + from->right - s->pad_left;
    const int64_t stride = w->stride, last = (points - 1) * stride, step = stride * s->in_channels;
    const float *at = from->input + (top * s->in_cols + left) * s->in_channels;
    if (top >= 0 && left >= 0 && top + last < s->in_rows && left + last < s->in_cols &&
        at + (last * s->in_cols + last) * s->in_channels + 4 <= from->end) {
        for (int i = 0; i < points; i++, at += stride * s->in_cols * s->in_channels) {
            const float *cell = at;
            UNROLLED for (int j = 0; j < points; j++, cell += step) samples[i * points + j] = vld1q_f32(cell);
        }
        return;
    }
    for (int i = 0; i < points; i++) {
        const int64_t y = top + i * stride;
        const bool inside = y >= 0 && y < s->in_rows;
        for (int j = 0; j < points; j++) {
            const int64_t x = left + j * stride;
            if (!inside || x < 0 || x >= s->in_cols)
                samples[i * points + j] = vdupq_n_f32(0);
            else if (from->count == 4)
                samples[i * points + j] = vld1q_f32(from->input + (y * s->in_cols + x) * s->in_channels);
            else
                samples[i * points + j] = load_some(from->input + (y * s->in_cols + x) * s->in_channels, from->count);
        }
    }
}

/* Transformed samples of one tile, [position]. */
__attribute__((noinline)) static void transform_tile_6(const source *from, int32_t tile, float32x4_t *to) {
    float32x4_t samples[36], half[36];
    sample(from, tile, samples, 6);
    UNROLLED for (int j = 0; j < 6; j++) transform_6(samples + j, half + j, 6);
    UNROLLED for (int i = 0; i < 6; i++) transform_6(half + 6 * i, to + 6 * i, 1);
}

/* Where a block's samples of channel 0 and tile 0 go, in floats: [phase][position]; -1 where a position has no such
 * phase. */
typedef struct places {
    int64_t of[4][MOST * MOST];
} places;

static places places_of(const klaus_winograd *w, int32_t lanes) {
    places p;
    int64_t at = 0;
    for (int32_t i = 0; i < w->points; i++)
        for (int32_t j = 0; j < w->points; j++) {
            const int32_t across = klaus_winograd_phases(w, j);
            for (int32_t down = 0; down < w->stride; down++)
                for (int32_t right = 0; right < w->stride; right++) {
                    const bool there = down < klaus_winograd_phases(w, i) && right < across;
                    p.of[down * w->stride + right][i * w->points + j] =
                        there ? at + (int64_t)(down * across + right) * w->channels * lanes : -1;
                }
            at += (int64_t)klaus_winograd_depth(w, i, j) * lanes;
        }
    return p;
}

/* Four tiles' values of `count` channels to their places. */
__attribute__((always_inline)) static inline void turn(float32x4_t (*values)[MOST * MOST], const int64_t *place,
                                                       float *to, int32_t lanes, const int count) {
#pragma clang loop unroll(disable)
    for (int position = 0; position < MOST * MOST; position++) {
        if (place[position] < 0)
            continue;
        const float32x4x4_t tiles = {
            {values[0][position], values[1][position], values[2][position], values[3][position]}};
        float *cell = to + place[position];
        vst4q_lane_f32(cell, tiles, 0);
        if (count > 1)
            vst4q_lane_f32(cell + lanes, tiles, 1);
        if (count > 2)
            vst4q_lane_f32(cell + 2 * lanes, tiles, 2);
        if (count > 3)
            vst4q_lane_f32(cell + 3 * lanes, tiles, 3);
    }
}

/* One quad of channels of one block of tiles, all phases. `to` is the block's. */
static void transform_quad(const klaus_call *call, const klaus_winograd *w, const places *all, int32_t group,
                           int32_t quad, int32_t first_tile, int32_t tiles, int32_t lanes, float *to) {
    const klaus_shape *s = call->shape;
    const float *input = call->input[0];
    source from = {.shape = s,
                   .w = w,
                   .input = input + (int64_t)group * w->channels + 4 * quad,
                   .end = input + klaus_shape_input_count(s, 0)};
    from.count = w->channels - 4 * quad < 4 ? w->channels - 4 * quad : 4;
    float32x4_t values[4][MOST * MOST];
    for (from.down = 0; from.down < w->stride; from.down++)
        for (from.right = 0; from.right < w->stride; from.right++)
            for (int32_t four = 0; four < tiles; four += 4) {
                for (int32_t t = 0; t < 4; t++) { /* where there are fewer, the last once more */
                    const int32_t tile = first_tile + (four + t < tiles ? four + t : tiles - 1);
                    transform_tile_6(&from, tile, values[t]);
                }
                const int64_t *place = all->of[from.down * w->stride + from.right];
                float *at = to + (int64_t)4 * quad * lanes + four;
                if (from.count == 4)
                    turn(values, place, at, lanes, 4);
                else if (from.count == 3)
                    turn(values, place, at, lanes, 3);
                else if (from.count == 2)
                    turn(values, place, at, lanes, 2);
                else
                    turn(values, place, at, lanes, 1);
            }
}

static void transform_inputs(const klaus_call *call, const klaus_winograd *w, const klaus_winograd_kernel *kernel,
                             int32_t part, int32_t parts) {
    const int32_t blocks = blocks_of(w, kernel), quads = (w->channels + 3) / 4;
    const places all = places_of(w, kernel->tiles);
    int64_t begin, end;
    klaus_share((int64_t)call->shape->groups * blocks * quads, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        const int32_t quad = (int32_t)(item % quads);
        const int64_t block = item / quads; /* of all groups */
        const int32_t first = (int32_t)(block % blocks) * kernel->tiles;
        const int32_t tiles = w->tiles - first < kernel->tiles ? w->tiles - first : kernel->tiles;
        transform_quad(call, w, &all, (int32_t)(block / blocks), quad, first, tiles, kernel->tiles,
                       (float *)call->scratch + block * w->depth * kernel->tiles);
    }
}

/* ---- weights ---- */

/* Three taps in a line to their values at six points. */
__attribute__((always_inline)) static inline void transform_taps_6(const float32x4_t *g, const int step,
                                                                   float32x4_t *to, const int to_step) {
    const float32x4_t even = vaddq_f32(g[0], g[2 * step]), odd = g[step];
    const float32x4_t outer = vfmaq_f32(g[0], g[2 * step], vdupq_n_f32(4));
    to[0] = g[0];
    to[to_step] = vaddq_f32(even, odd);
    to[2 * to_step] = vsubq_f32(even, odd);
    to[3 * to_step] = vfmaq_f32(outer, odd, vdupq_n_f32(2));
    to[4 * to_step] = vfmsq_f32(outer, odd, vdupq_n_f32(2));
    to[5 * to_step] = g[2 * step];
}

/* One phase of four filters' weights for one channel. `to` is that channel's place at position 0, phase 0; `line` is
 * the distance of two channels' places. */
__attribute__((always_inline)) static inline void transform_phase(const klaus_winograd *w, const float32x4_t *taps,
                                                                  float *to, int64_t line, const int kernel,
                                                                  const int stride, const int down, const int right) {
    const int64_t all = line * w->channels, row_phases = stride == 1 ? 6 : 11;
    float32x4_t some[9], half[18];
    UNROLLED for (int u = 0; u < 3; u++) UNROLLED for (int v = 0; v < 3; v++) {
        const int row = u * stride + down, col = v * stride + right;
        some[3 * u + v] = row < kernel && col < kernel ? taps[row * kernel + col] : vdupq_n_f32(0);
    }
    UNROLLED for (int v = 0; v < 3; v++) transform_taps_6(some + v, 3, half + v, 3);
    UNROLLED for (int i = 0; i < 6; i++) {
        const int deep = stride == 2 && i == 5 ? 1 : stride;
        if (down < deep) {
            float32x4_t values[6];
            float *at = to + (i * stride * row_phases + down * stride + right) * all;
            transform_taps_6(half + 3 * i, 1, values, 1);
            UNROLLED for (int j = 0; j < 5; j++) klaus_store_step(&at, values[j], deep * stride * all);
            if (stride == 1 || right == 0) /* at infinity a row's phases stand closer */
                vst1q_f32(at - (stride - 1) * down * all, values[5]);
        }
    }
}

__attribute__((always_inline)) static inline void transform_weights(const klaus_winograd *w, const uint8_t *packed,
                                                                    float *to, int32_t width, const int kernel,
                                                                    const int stride, const bool halves) {
    for (int32_t c = 0; c < w->channels; c++, packed += kernel * kernel * width * (halves ? 2 : 4))
        for (int32_t v = 0; v < width; v += 4) {
            float32x4_t taps[25];
            UNROLLED for (int tap = 0; tap < kernel * kernel; tap++) {
                const uint8_t *at = packed + (tap * width + v) * (halves ? 2 : 4);
                taps[tap] =
                    halves ? vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at))) : vreinterpretq_f32_u8(vld1q_u8(at));
            }
            float *place = to + (int64_t)c * width + v;
            transform_phase(w, taps, place, width, kernel, stride, 0, 0);
            if (stride == 2) {
                transform_phase(w, taps, place, width, kernel, stride, 0, 1);
                transform_phase(w, taps, place, width, kernel, stride, 1, 0);
                transform_phase(w, taps, place, width, kernel, stride, 1, 1);
            }
        }
}

__attribute__((noinline)) static void transform_3x3(const klaus_winograd *w, const void *packed, float *to,
                                                    int32_t width) {
    if (w->halves)
        transform_weights(w, packed, to, width, 3, 1, true);
    else
        transform_weights(w, packed, to, width, 3, 1, false);
}

__attribute__((noinline)) static void transform_5x5(const klaus_winograd *w, const void *packed, float *to,
                                                    int32_t width) {
    if (w->halves)
        transform_weights(w, packed, to, width, 5, 2, true);
    else
        transform_weights(w, packed, to, width, 5, 2, false);
}

/* ---- output ---- */

/* Six sums in a line to the outputs of a tile, four or three. */
__attribute__((always_inline)) static inline void back_6(const float32x4_t *m, const int64_t step, float32x4_t *to,
                                                         const int to_step, const int tile) {
    const float32x4_t m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const float32x4_t sum = vaddq_f32(m1, m2), minus = vsubq_f32(m1, m2);
    const float32x4_t outer = vaddq_f32(m3, m4), outer_minus = vsubq_f32(m3, m4);
    to[0] = vaddq_f32(vaddq_f32(m[0], sum), outer);
    to[to_step] = vfmaq_f32(minus, outer_minus, vdupq_n_f32(2));
    const float32x4_t squares = vfmaq_f32(sum, outer, vdupq_n_f32(4));
    if (tile == 3) {
        to[2 * to_step] = vaddq_f32(squares, m[5 * step]);
    } else {
        to[2 * to_step] = squares;
        to[3 * to_step] = vaddq_f32(vfmaq_f32(minus, outer_minus, vdupq_n_f32(8)), m[5 * step]);
    }
}

/* What belongs to one panel. */
typedef struct target {
    const klaus_shape *shape;
    const klaus_winograd *w;
    float *output; /* of the panel's first channel */
    const float *addend;
    const float *scale, *bias;
    klaus_limits limits;
    int32_t outputs; /* channels that exist */
} target;

/* An output at the edge of the channels, or with an addend. */
__attribute__((noinline)) static void store_some(const target *to, float32x4_t value, int64_t at, int32_t count) {
    float values[4];
    vst1q_f32(values, value);
    for (int32_t c = 0; c < count && to->addend != NULL; c++)
        values[c] += to->addend[at + c];
    vst1q_f32(values, klaus_limit(vld1q_f32(values), to->limits));
    for (int32_t c = 0; c < count; c++)
        to->output[at + c] = values[c];
}

/* Four channels of one tile; sums[position * step]. */
__attribute__((always_inline)) static inline void finish_tile(const target *to, const float *sums, int64_t step,
                                                              int32_t tile_number, int32_t channel, const int points,
                                                              const int tile) {
    const klaus_shape *s = to->shape;
    float32x4_t half[MOST * MOST]; /* [position row][output column] */
    const int64_t bytes = step * (int64_t)sizeof(float);
    UNROLLED for (int i = 0; i < points; i++) {
        float32x4_t line[MOST];
        UNROLLED for (int j = 0; j < points; j++) line[j] = klaus_load_step(&sums, bytes);
        back_6(line, 1, half + i * tile, 1, tile);
    }
    const int32_t top = tile_number / to->w->tile_cols * tile, left = tile_number % to->w->tile_cols * tile;
    const int32_t rows = s->out_rows - top < tile ? s->out_rows - top : tile;
    const int32_t cols = s->out_cols - left < tile ? s->out_cols - left : tile;
    const int32_t count = to->outputs - channel;
    const float32x4_t scale = vld1q_f32(to->scale + channel), bias = vld1q_f32(to->bias + channel);
    const int64_t out_step = s->out_channels, line_step = out_step * s->out_cols;
    int64_t at = top * line_step + left * out_step + channel;
    const bool plain = rows == tile && cols == tile && count >= 4 && to->addend == NULL;
    float32x4_t done[MOST * MOST]; /* [output column][output row] */
    UNROLLED for (int j = 0; j < tile; j++) back_6(half + j, tile, done + j * tile, 1, tile);
    if (plain) {
        const klaus_limits limits = to->limits;
        float *output = to->output + at;
        UNROLLED for (int i = 0; i < tile; i++) {
            UNROLLED for (int j = 0; j < tile; j++) {
                const float32x4_t value = klaus_limit(vfmaq_f32(bias, done[j * tile + i], scale), limits);
                klaus_store_step(&output, value, j + 1 < tile ? out_step : line_step - (tile - 1) * out_step);
            }
        }
        return;
    }
    for (int i = 0; i < rows; i++, at += line_step)
        for (int j = 0; j < cols; j++)
            store_some(to, vfmaq_f32(bias, done[j * tile + i], scale), at + j * out_step, count < 4 ? count : 4);
}

__attribute__((noinline)) static void finish_6_4(const target *to, const float *sums, int64_t step, int32_t tile_number,
                                                 int32_t channel) {
    finish_tile(to, sums, step, tile_number, channel, 6, 4);
}

__attribute__((noinline)) static void finish_6_3(const target *to, const float *sums, int64_t step, int32_t tile_number,
                                                 int32_t channel) {
    finish_tile(to, sums, step, tile_number, channel, 6, 3);
}

/* ---- the work ---- */

static void multiply_all(const klaus_call *call, const klaus_winograd *w, const klaus_winograd_kernel *kernel,
                         int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int32_t blocks = blocks_of(w, kernel), panels = (w->filters + kernel->width - 1) / kernel->width;
    const uint64_t wide = klaus_winograd_panel_bytes(s, w, kernel->width);
    const uint64_t group_bytes = klaus_winograd_panel_bytes(s, w, klaus_panel_channels(w->filters));
    const uint64_t own_bytes = sums_bytes(w, kernel) + weights_bytes(w, kernel);
    uint8_t *own = (uint8_t *)call->scratch + (size_t)(inputs_bytes(s, w, kernel) + (uint64_t)part * own_bytes);
    float *sums = (float *)(void *)own, *weights = (float *)(void *)(own + (size_t)sums_bytes(w, kernel));
    const uint8_t *transformed = NULL; /* the panel that `weights` are those of */
    int32_t depths[KLAUS_WINOGRAD_MOST_POSITIONS];
    for (int32_t i = 0; i < w->points; i++)
        for (int32_t j = 0; j < w->points; j++)
            depths[i * w->points + j] = klaus_winograd_depth(w, i, j);
    int64_t begin, end;
    klaus_share((int64_t)s->groups * panels * blocks, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) { /* a panel's blocks one after another: its weights stay near */
        const int32_t block = (int32_t)(item % blocks), panel = (int32_t)(item / blocks % panels);
        const int32_t group = (int32_t)(item / blocks / panels), first = panel * kernel->width;
        const int32_t first_tile = block * kernel->tiles;
        const uint8_t *packed =
            (const uint8_t *)call->packed + (size_t)((uint64_t)group * group_bytes) + (size_t)((uint64_t)panel * wide);
        const float *head = (const float *)(const void *)packed;
        klaus_winograd_product product = {.positions = w->points * w->points, .depths = depths, .sums = sums};
        product.width = klaus_panel_width(w->filters, first, kernel->width);
        product.tiles = w->tiles - first_tile < kernel->tiles ? w->tiles - first_tile : kernel->tiles;
        product.weights = w->fresh ? weights : head + 2 * product.width;
        if (w->fresh && transformed != packed) {
            (w->stride == 1 ? transform_3x3 : transform_5x5)(w, head + 2 * product.width, weights, product.width);
            transformed = packed;
        }
        product.inputs = (const float *)call->scratch + ((int64_t)group * blocks + block) * w->depth * kernel->tiles;
        kernel->multiply(&product);
        const int64_t channel = (int64_t)group * w->filters + first;
        target to = {.shape = s,
                     .w = w,
                     .output = (float *)call->output + channel,
                     .addend = s->has_addend ? (const float *)call->input[1] + channel : NULL,
                     .scale = head,
                     .bias = head + product.width,
                     .limits = klaus_activation_limits(s->activation)};
        to.outputs = w->filters - first < product.width ? w->filters - first : product.width;
        const int64_t step = (int64_t)product.tiles * product.width;
        for (int32_t t = 0; t < product.tiles; t++)
            for (int32_t c = 0; c < to.outputs; c += 4) {
                const float *from = sums + (int64_t)t * product.width + c;
                if (w->tile == 4)
                    finish_6_4(&to, from, step, first_tile + t, c);
                else
                    finish_6_3(&to, from, step, first_tile + t, c);
            }
    }
}

void klaus_winograd_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                        const klaus_winograd_kernel *kernel) {
    const klaus_winograd w = klaus_winograd_of(call->shape);
    if (phase == 0)
        transform_inputs(call, &w, kernel, part, parts);
    else
        multiply_all(call, &w, kernel, part, parts);
}
