#include "ops/conv/conv_gemm.h"

#include <string.h>

#include "ops/conv/conv.h"
#include "ops/shape.h"
#include "ops/weights.h"

/* Tiles whose input pointers are made at once; a panel of weights serves all of them before the next is fetched. */
#define CHUNK_TILES 8
/* Below this many channels a tap is a whole kernel row. */
#define JOIN_CHANNELS 16

typedef struct geometry {
    bool joined;                  /* a tap is a kernel row */
    bool padded;                  /* the input is a padded copy in scratch */
    bool direct;                  /* pointwise: an output's pixel is its input's */
    int64_t rows, cols, channels; /* of what is read: the input or its padded copy */
    int32_t top, left;            /* padding that remains to be seen to while reading */
    int32_t taps, depth;
    int32_t group_channels, group_filters;
    uint64_t shared_bytes; /* scratch for all parts: the padded copy */
    uint64_t part_bytes;   /* scratch a part: zeros, pointers */
} geometry;

static uint64_t aligned(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

static geometry geometry_of(const klaus_shape *s, int32_t tile_rows) {
    geometry g;
    memset(&g, 0, sizeof g);
    g.rows = s->in_rows;
    g.cols = s->in_cols;
    g.channels = s->in_channels;
    g.top = s->pad_top;
    g.left = s->pad_left;
    g.group_channels = s->in_channels / s->groups;
    g.group_filters = s->out_channels / s->groups;
    g.direct = s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
               s->pad_top == 0 && s->pad_left == 0 && s->out_rows == s->in_rows && s->out_cols == s->in_cols;
    g.joined = s->groups == 1 && s->in_channels < JOIN_CHANNELS && s->kernel_cols > 1;
    g.taps = s->kernel_rows * s->kernel_cols;
    g.depth = g.group_channels;
    if (g.joined) {
        const int64_t rows = (int64_t)(s->out_rows - 1) * s->stride_rows + s->kernel_rows;
        const int64_t cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
        g.taps = s->kernel_rows;
        g.depth = s->kernel_cols * s->in_channels;
        g.padded = s->pad_top != 0 || s->pad_left != 0 || rows > s->in_rows || cols > s->in_cols;
        if (g.padded) {
            g.rows = rows;
            g.cols = cols;
            g.top = g.left = 0;
            g.shared_bytes = aligned((uint64_t)(rows * cols * s->in_channels) * sizeof(float));
        }
    }
    g.part_bytes = aligned((uint64_t)s->in_channels * sizeof(float)) +
                   aligned((uint64_t)g.taps * (uint64_t)(CHUNK_TILES * tile_rows) * sizeof(float *));
    return g;
}

bool klaus_conv_gemm_can(const klaus_shape *shape) {
    return klaus_conv_is_sound(shape);
}

/* Floats of a panel: scale, bias, weights. */
static int64_t panel_floats(const klaus_shape *shape, int64_t width) {
    return width * (2 + klaus_shape_weights_per_row(shape));
}

uint64_t klaus_conv_gemm_packed_bytes(const klaus_shape *shape) {
    const int64_t channels = klaus_panel_channels(shape->out_channels / shape->groups);
    return (uint64_t)(shape->groups * panel_floats(shape, channels)) * sizeof(float);
}

void klaus_conv_gemm_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed, int32_t panel_width) {
    const int32_t filters = shape->out_channels / shape->groups;
    const int64_t row = klaus_shape_weights_per_row(shape);
    float *to = packed;
    for (int32_t group = 0; group < shape->groups; group++)
        for (int32_t first = 0, width; first < filters; first += width) {
            width = klaus_panel_width(filters, first, panel_width);
            memset(to, 0, (size_t)panel_floats(shape, width) * sizeof(float));
            for (int32_t c = 0; c < width && first + c < filters; c++) {
                const int64_t channel = (int64_t)group * filters + first + c;
                to[c] = weights->scale != NULL ? weights->scale[channel] : 1.0f;
                to[width + c] = weights->bias[channel];
                float *column = to + 2 * width + c, some[256];
                for (int64_t i = 0; i < row; i += 256) {
                    const int64_t count = row - i < 256 ? row - i : 256;
                    klaus_weights_read(shape, weights, channel, i, count, some);
                    for (int64_t n = 0; n < count; n++)
                        column[(i + n) * width] = some[n];
                }
            }
            to += panel_floats(shape, width);
        }
}

uint64_t klaus_conv_gemm_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t tile_rows) {
    const geometry g = geometry_of(shape, tile_rows);
    return g.shared_bytes + (uint64_t)parts * g.part_bytes;
}

/* Phase 0: rows part by part of the padded copy. */
static void pad(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const float *input = call->input[0];
    const int64_t row_floats = g->cols * g->channels;
    int64_t begin, end;
    klaus_share(g->rows, 1, part, parts, &begin, &end);
    for (int64_t y = begin; y < end; y++) {
        float *to = (float *)call->scratch + y * row_floats;
        const int64_t from_row = y - s->pad_top;
        int64_t cols = g->cols - s->pad_left < s->in_cols ? g->cols - s->pad_left : s->in_cols;
        if (from_row < 0 || from_row >= s->in_rows || cols < 0)
            cols = 0;
        int64_t before = s->pad_left < g->cols ? s->pad_left : g->cols;
        if (cols == 0)
            before = g->cols;
        memset(to, 0, (size_t)(before * g->channels) * sizeof(float));
        if (cols > 0)
            memcpy(to + before * g->channels, input + from_row * s->in_cols * g->channels,
                   (size_t)(cols * g->channels) * sizeof(float));
        memset(to + (before + cols) * g->channels, 0,
               (size_t)((g->cols - before - cols) * g->channels) * sizeof(float));
    }
}

/* The input pointers of `count` pixels from `pixel` on, [taps][count]. */
static void point(const klaus_shape *s, const geometry *g, const float *input, const float *zeros, int64_t pixel,
                  int32_t count, const float **pointers) {
    const int32_t columns = g->joined ? 1 : s->kernel_cols;
    if (g->direct) {
        for (int32_t r = 0; r < count; r++)
            pointers[r] = input + (pixel + r) * g->channels;
        return;
    }
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    for (int32_t r = 0; r < count; r++) {
        const int64_t y = row * s->stride_rows - g->top, x = col * s->stride_cols - g->left;
        const float **to = pointers + r;
        if (++col == s->out_cols) {
            col = 0;
            row++;
        }
        for (int32_t u = 0; u < s->kernel_rows; u++)
            for (int32_t v = 0; v < columns; v++, to += count) {
                const bool inside = y + u >= 0 && y + u < g->rows && x + v >= 0 && x + v < g->cols;
                *to = inside ? input + ((y + u) * g->cols + x + v) * g->channels : zeros;
            }
    }
}

void klaus_conv_gemm_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                         const klaus_gemm_kernel *kernel) {
    const klaus_shape *s = call->shape;
    const geometry g = geometry_of(s, kernel->rows);
    if (phase == 0) {
        if (g.padded)
            pad(call, &g, part, parts);
        return;
    }
    uint8_t *own = (uint8_t *)call->scratch + (size_t)(g.shared_bytes + (uint64_t)part * g.part_bytes);
    float *zeros = (float *)(void *)own;
    const float **pointers = (const float **)(void *)(own + (size_t)aligned((uint64_t)s->in_channels * sizeof(float)));
    const float *input = g.padded ? call->scratch : call->input[0];
    const float *addend = s->has_addend ? call->input[1] : NULL;
    memset(zeros, 0, (size_t)s->in_channels * sizeof(float));
    klaus_gemm_tile tile = {.taps = g.taps,
                            .depth = g.depth,
                            .finished = 1,
                            .activation = s->activation,
                            .stride = (size_t)s->out_channels};
    int64_t begin, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, kernel->rows, part, parts, &begin, &end);
    const int64_t chunk_pixels = (int64_t)CHUNK_TILES * kernel->rows;
    for (int64_t chunk = begin; chunk < end; chunk += chunk_pixels) {
        const int64_t chunk_end = chunk + chunk_pixels < end ? chunk + chunk_pixels : end;
        for (int64_t pixel = chunk; pixel < chunk_end; pixel += kernel->rows) {
            const int64_t count = chunk_end - pixel < kernel->rows ? chunk_end - pixel : kernel->rows;
            point(s, &g, input, zeros, pixel, (int32_t)count, pointers + (pixel - chunk) * g.taps);
        }
        const float *panel = call->packed;
        for (int32_t group = 0; group < s->groups; group++) {
            tile.offset = (size_t)group * (size_t)g.group_channels;
            for (int32_t first = 0; first < g.group_filters; first += tile.width) {
                const int64_t channel = (int64_t)group * g.group_filters + first;
                tile.width = klaus_panel_width(g.group_filters, first, kernel->width);
                tile.outputs = g.group_filters - first < tile.width ? g.group_filters - first : tile.width;
                tile.scale = s->has_scale ? panel : NULL;
                tile.bias = panel + tile.width;
                tile.weights = panel + 2 * tile.width;
                for (int64_t pixel = chunk; pixel < chunk_end; pixel += kernel->rows) {
                    tile.rows = (int32_t)(chunk_end - pixel < kernel->rows ? chunk_end - pixel : kernel->rows);
                    tile.inputs = pointers + (pixel - chunk) * g.taps;
                    tile.output = (float *)call->output + pixel * s->out_channels + channel;
                    tile.addend = addend != NULL ? addend + pixel * s->out_channels + channel : NULL;
                    kernel->run(&tile);
                }
                panel += panel_floats(s, tile.width);
            }
        }
    }
}
