#include <string.h>

#include "ops/conv/conv.h"
#include "ops/conv/conv_gemm_f16.h"
#include "ops/gemm/gemm_f16.h"
#include "ops/neon_fp16.h"
#include "ops/shape.h"

/* Tiles whose input pointers are made at once. */
#define CHUNK_TILES 8
/* Pointwise, where there are no pointers: about so many bytes of input, which stay near while the panels pass. */
#define CHUNK_BYTES 32768
/* Below this many channels a tap is a whole kernel row. */
#define JOIN_CHANNELS 16
#define ROWS KLAUS_GEMM_F16_ROWS

typedef struct geometry {
    bool joined;                  /* windows are copied beside each other from a padded copy of the input */
    bool direct;                  /* pointwise: an output's pixel is its input's */
    int64_t rows, cols, channels; /* of what is read: the input or its padded copy */
    int32_t taps, depth;
    int32_t group_channels, group_filters;
    int32_t kernel_row;    /* joined: numbers of a window's row */
    size_t window_step;    /* ... and from window to window */
    uint64_t shared_bytes; /* scratch for all parts: the padded copy */
    int64_t tiles;         /* of a chunk: a panel of weights serves all of them before the next is fetched */
    uint64_t part_bytes;   /* scratch a part: pieces of sums, zeros, pointers */
    uint64_t sums_bytes;
} geometry;

static bool is_joined(const klaus_shape *s) {
    return s->groups == 1 && s->in_channels < JOIN_CHANNELS && s->kernel_cols > 1;
}

static geometry geometry_of(const klaus_shape *s) {
    geometry g;
    memset(&g, 0, sizeof g);
    g.rows = s->in_rows;
    g.cols = s->in_cols;
    g.channels = s->in_channels;
    g.group_channels = s->in_channels / s->groups;
    g.group_filters = s->out_channels / s->groups;
    g.direct = s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
               s->pad_top == 0 && s->pad_left == 0 && s->out_rows == s->in_rows && s->out_cols == s->in_cols;
    g.joined = is_joined(s);
    g.taps = s->kernel_rows * s->kernel_cols;
    g.depth = g.group_channels;
    if (g.joined) {
        g.kernel_row = s->kernel_cols * s->in_channels;
        g.taps = 1;
        g.depth = s->kernel_rows * g.kernel_row;
        g.window_step = ((size_t)g.depth + 7) / 8 * 8;
        g.rows = (int64_t)(s->out_rows - 1) * s->stride_rows + s->kernel_rows;
        g.cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
        g.shared_bytes =
            klaus_aligned((uint64_t)(g.rows * g.cols * s->in_channels + 8) * 2); /* rows are read by eights */
    }
    const bool matrix = g.direct || g.joined; /* rows lie at equal distances */
    const int64_t tile_bytes = 2 * ROWS * (g.joined ? (int64_t)g.window_step : g.channels);
    g.tiles = matrix ? CHUNK_BYTES / tile_bytes + 1 : CHUNK_TILES;
    g.sums_bytes = klaus_aligned(klaus_gemm_f16_sums_bytes(matrix ? (int32_t)g.tiles : 1, g.taps, g.depth));
    g.part_bytes = g.sums_bytes;
    if (g.joined)
        g.part_bytes += klaus_aligned((uint64_t)g.tiles * (uint64_t)tile_bytes + 16);
    else if (!g.direct)
        g.part_bytes += klaus_aligned((uint64_t)s->in_channels * 2) +
                        klaus_aligned((uint64_t)g.taps * (CHUNK_TILES * ROWS) * sizeof(uint16_t *));
    return g;
}

bool klaus_conv_gemm_f16_can(const klaus_shape *shape) {
    const bool dtypes = shape->in_dtype == KLAUS_F16
                            ? shape->out_dtype == KLAUS_F16 || shape->out_dtype == KLAUS_F32
                            : shape->in_dtype == KLAUS_F32 && shape->out_dtype == KLAUS_F16 && is_joined(shape);
    return dtypes && klaus_conv_has_geometry(shape);
}

uint64_t klaus_conv_gemm_f16_packed_bytes(const klaus_shape *s) {
    return (uint64_t)s->groups *
           klaus_gemm_f16_panels_bytes(s->out_channels / s->groups, klaus_shape_weights_per_row(s));
}

void klaus_conv_gemm_f16_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const int32_t filters = s->out_channels / s->groups;
    uint8_t *to = packed;
    for (int32_t group = 0; group < s->groups; group++)
        to = klaus_gemm_f16_pack(s, weights, (int64_t)group * filters, filters, klaus_shape_weights_per_row(s), to);
}

uint64_t klaus_conv_gemm_f16_scratch_bytes(const klaus_shape *shape, int32_t parts) {
    const geometry g = geometry_of(shape);
    return g.shared_bytes + (uint64_t)parts * g.part_bytes;
}

/* `count` numbers of the input from number `from` on, as halves. */
static void copy(const klaus_call *call, int64_t from, int64_t count, uint16_t *to) {
    if (call->shape->in_dtype == KLAUS_F16) {
        memcpy(to, (const uint16_t *)call->input[0] + from, (size_t)count * 2);
        return;
    }
    const float *floats = (const float *)call->input[0] + from;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        klaus_store_8h(to + i, klaus_narrow_8h(vld1q_f32(floats + i), vld1q_f32(floats + i + 4)));
    for (; i < count; i++)
        vst1_lane_u16(to + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_dup_f32(floats + i))), 0);
}

/* Phase 0: rows part by part of the padded copy. */
static void pad(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int64_t row_numbers = g->cols * g->channels;
    int64_t begin, end;
    klaus_share(g->rows, 1, part, parts, &begin, &end);
    if (end == g->rows)
        memset((uint16_t *)call->scratch + g->rows * row_numbers, 0, 16);
    for (int64_t y = begin; y < end; y++) {
        uint16_t *to = (uint16_t *)call->scratch + y * row_numbers;
        const int64_t from_row = y - s->pad_top;
        int64_t cols = g->cols - s->pad_left < s->in_cols ? g->cols - s->pad_left : s->in_cols;
        if (from_row < 0 || from_row >= s->in_rows || cols < 0)
            cols = 0;
        int64_t before = s->pad_left < g->cols ? s->pad_left : g->cols;
        if (cols == 0)
            before = g->cols;
        memset(to, 0, (size_t)(before * g->channels) * 2);
        if (cols > 0)
            copy(call, from_row * s->in_cols * g->channels, cols * g->channels, to + before * g->channels);
        memset(to + (before + cols) * g->channels, 0, (size_t)((g->cols - before - cols) * g->channels) * 2);
    }
}

/* The input pointers of `count` pixels from `pixel` on, [taps][count]. */
static void point(const klaus_shape *s, const geometry *g, const uint16_t *input, const uint16_t *zeros, int64_t pixel,
                  int32_t count, const uint16_t **pointers) {
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    for (int32_t r = 0; r < count; r++) {
        const int64_t y = row * s->stride_rows - s->pad_top, x = col * s->stride_cols - s->pad_left;
        const uint16_t **to = pointers + r;
        if (++col == s->out_cols) {
            col = 0;
            row++;
        }
        for (int32_t u = 0; u < s->kernel_rows; u++)
            for (int32_t v = 0; v < s->kernel_cols; v++, to += count) {
                const bool inside = y + u >= 0 && y + u < g->rows && x + v >= 0 && x + v < g->cols;
                *to = inside ? input + ((y + u) * g->cols + x + v) * g->channels : zeros;
            }
    }
}

/* The windows of `count` pixels from `pixel` on. Rows are copied by eights: what is too much of one is overwritten by
 * the next. `eights` is a constant where it is inlined. */
__attribute__((always_inline)) static inline void join_some(const klaus_shape *s, const geometry *g,
                                                            const uint16_t *padded, int64_t pixel, int64_t count,
                                                            uint16_t *windows, const int eights) {
    const int64_t line = g->cols * g->channels, step = s->stride_cols * g->channels;
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    const uint16_t *from = padded + row * s->stride_rows * line + col * step;
    for (; count > 0; count--, windows += g->window_step) {
        const uint16_t *at = from;
        uint16_t *to = windows;
        for (int32_t u = s->kernel_rows; u > 0; u--, at += line, to += g->kernel_row)
            for (int n = 0; n < eights; n++)
                klaus_store_8h(to + 8 * n, klaus_load_8h(at + 8 * n));
        from += step;
        if (++col == s->out_cols) {
            col = 0;
            from = padded + ++row * s->stride_rows * line;
        }
    }
}

static void join(const klaus_shape *s, const geometry *g, const uint16_t *padded, int64_t pixel, int64_t count,
                 uint16_t *windows) {
    const int eights = (g->kernel_row + 7) / 8;
    if (eights == 2)
        join_some(s, g, padded, pixel, count, windows, 2);
    else if (eights == 3)
        join_some(s, g, padded, pixel, count, windows, 3);
    else
        join_some(s, g, padded, pixel, count, windows, eights);
}

void klaus_conv_gemm_f16_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const geometry g = geometry_of(s);
    if (phase == 0) {
        if (g.joined)
            pad(call, &g, part, parts);
        return;
    }
    uint8_t *own = (uint8_t *)call->scratch + (size_t)(g.shared_bytes + (uint64_t)part * g.part_bytes);
    uint16_t *more = (uint16_t *)(void *)(own + (size_t)g.sums_bytes); /* zeros and pointers, or windows */
    const uint16_t **pointers =
        (const uint16_t **)(void *)((uint8_t *)more + (size_t)klaus_aligned((uint64_t)s->in_channels * 2));
    const bool pointed = !g.direct && !g.joined;
    if (pointed)
        memset(more, 0, (size_t)s->in_channels * 2);
    klaus_gemm_f16_strip strip = {.taps = g.taps,
                                  .depth = g.depth,
                                  .input_step = g.joined ? g.window_step : (size_t)g.channels,
                                  .readable = g.joined,
                                  .activation = s->activation,
                                  .out_dtype = s->out_dtype,
                                  .sums = (uint16_t *)(void *)own,
                                  .stride = (size_t)s->out_channels};
    const int64_t number_bytes = (int64_t)klaus_dtype_bytes(s->out_dtype);
    int64_t begin, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, ROWS, part, parts, &begin, &end);
    for (int64_t chunk = begin; chunk < end; chunk += g.tiles * ROWS) {
        const int64_t chunk_end = chunk + g.tiles * ROWS < end ? chunk + g.tiles * ROWS : end;
        const int32_t whole = (int32_t)((chunk_end - chunk) / ROWS), rest = (int32_t)((chunk_end - chunk) % ROWS);
        const uint16_t *input = call->input[0];
        if (g.joined) {
            join(s, &g, call->scratch, chunk, chunk_end - chunk, more);
            input = more;
        } else if (g.direct) {
            input += chunk * g.channels;
        }
        if (pointed)
            for (int64_t pixel = chunk; pixel < chunk_end; pixel += ROWS)
                point(s, &g, input, more, pixel, (int32_t)(chunk_end - pixel < ROWS ? chunk_end - pixel : ROWS),
                      pointers + (pixel - chunk) * g.taps);
        const uint8_t *panel = call->packed;
        for (int32_t group = 0; group < s->groups; group++) {
            strip.offset = (size_t)group * (size_t)g.group_channels;
            for (int32_t first = 0; first < g.group_filters; first += strip.width) {
                const int64_t channel = (int64_t)group * g.group_filters + first;
                strip.width = klaus_gemm_f16_panel_width(g.group_filters, first);
                strip.outputs = g.group_filters - first < strip.width ? g.group_filters - first : strip.width;
                strip.panel = panel;
                for (int32_t last = whole == 0; last < 1 + (rest > 0); last++) { /* whole tiles, the rest */
                    const int64_t pixel = last ? chunk + whole * ROWS : chunk;
                    const int64_t at = pixel * s->out_channels + channel;
                    strip.tiles = last ? 1 : whole;
                    strip.rows = last ? rest : ROWS;
                    strip.inputs = pointed ? pointers + (pixel - chunk) * g.taps : NULL;
                    strip.input = input + (size_t)(pixel - chunk) * strip.input_step;
                    strip.output = (uint8_t *)call->output + at * number_bytes;
                    strip.addend = s->has_addend ? (const uint8_t *)call->input[1] + at * number_bytes : NULL;
                    klaus_gemm_f16_run(&strip);
                }
                panel += klaus_gemm_f16_panel_bytes(strip.width, (int64_t)g.taps * g.depth);
            }
        }
    }
}
