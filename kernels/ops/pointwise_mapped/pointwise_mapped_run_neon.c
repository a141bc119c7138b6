#include "ops/pointwise_mapped/pointwise_mapped.h"

#include <string.h>

#include "ops/conv/conv.h"
#include "ops/mapped/mapped.h"
#include "ops/shape.h"

#define DECODED_BYTES (96u << 10) /* of panels at once, where one panel is not more */
#define CHUNK_TILES 8             /* whose input pointers are made at once */
#define MOST_ROWS 8               /* of a tile */

bool klaus_pointwise_mapped_can(const klaus_shape *s) {
    return klaus_conv_is_sound(s) && klaus_shape_is_f32(s) && s->groups == 1 && s->kernel_rows == 1 &&
           s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 && s->pad_top == 0 && s->pad_left == 0 &&
           s->out_rows == s->in_rows && s->out_cols == s->in_cols;
}

bool klaus_pointwise_mapped_lean(const klaus_shape *shape) {
    (void)shape;
    return true;
}

/* Floats of a decoded panel: scale, bias, weights. */
static int64_t panel_floats(const klaus_shape *s, int64_t width) {
    return width * (2 + (int64_t)s->in_channels);
}

/* Panels that are decoded at once. */
static int64_t panels_of(const klaus_shape *s, int32_t panel_width) {
    const int64_t all = (s->out_channels + panel_width - 1) / panel_width;
    const int64_t fit = (int64_t)DECODED_BYTES / (panel_floats(s, panel_width) * (int64_t)sizeof(float));
    return fit < 1 ? 1 : fit < all ? fit : all;
}

static uint64_t part_bytes(const klaus_shape *s, int32_t panel_width) {
    const uint64_t bytes = (uint64_t)(panels_of(s, panel_width) * panel_floats(s, panel_width)) * sizeof(float);
    return klaus_aligned(bytes);
}

uint64_t klaus_pointwise_mapped_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width) {
    return part_bytes(shape, panel_width) * (uint64_t)parts;
}

/* Panels of the channels first .. stop - 1. */
static void decode(const klaus_call *call, const klaus_mapped *rows, int32_t first, int32_t stop, int32_t panel_width,
                   float *to) {
    const klaus_shape *s = call->shape;
    for (int32_t width; first < stop; first += width) {
        width = klaus_panel_width(s->out_channels, first, panel_width);
        const int32_t outputs = s->out_channels - first < width ? s->out_channels - first : width;
        memset(to, 0, 2 * (size_t)width * sizeof(float));
        if (call->weights->scale != NULL)
            memcpy(to, call->weights->scale + first, (size_t)outputs * sizeof(float));
        memcpy(to + width, call->weights->bias + first, (size_t)outputs * sizeof(float));
        klaus_mapped_read(rows, first, outputs, width, 0, s->in_channels, to + 2 * width);
        to += panel_floats(s, width);
    }
}

/* The decoded panels on `count` pixels from `pixel` on. */
static void multiply(const klaus_call *call, const klaus_gemm_kernel *kernel, int32_t first, int32_t stop,
                     const float *panel, int64_t pixel, int64_t count) {
    const klaus_shape *s = call->shape;
    const float *pointers[CHUNK_TILES * MOST_ROWS];
    for (int64_t r = 0; r < count; r++)
        pointers[r] = (const float *)call->input[0] + (pixel + r) * s->in_channels;
    klaus_gemm_tile tile = {.taps = 1,
                            .depth = s->in_channels,
                            .finished = 1,
                            .activation = s->activation,
                            .stride = (size_t)s->out_channels};
    for (; first < stop; first += tile.width) {
        tile.width = klaus_panel_width(s->out_channels, first, kernel->width);
        tile.outputs = s->out_channels - first < tile.width ? s->out_channels - first : tile.width;
        tile.scale = call->weights->scale != NULL ? panel : NULL;
        tile.bias = panel + tile.width;
        tile.weights = panel + 2 * tile.width;
        for (int64_t r = 0; r < count; r += kernel->rows) {
            const int64_t at = (pixel + r) * s->out_channels + first;
            tile.rows = (int32_t)(count - r < kernel->rows ? count - r : kernel->rows);
            tile.inputs = pointers + r;
            tile.output = (float *)call->output + at;
            tile.addend = s->has_addend ? (const float *)call->input[1] + at : NULL;
            kernel->run(&tile);
        }
        panel += panel_floats(s, tile.width);
    }
}

void klaus_pointwise_mapped_run(const klaus_call *call, int32_t part, int32_t parts, const klaus_gemm_kernel *kernel) {
    const klaus_shape *s = call->shape;
    float *panels = (float *)call->scratch + part_bytes(s, kernel->width) / sizeof(float) * (size_t)part;
    const int32_t at_once = (int32_t)(panels_of(s, kernel->width) * kernel->width);
    const int64_t chunk = (int64_t)CHUNK_TILES * kernel->rows;
    klaus_mapped rows;
    int64_t begin, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, kernel->rows, part, parts, &begin, &end);
    if (begin == end)
        return;
    klaus_mapped_open(&rows, s, call->weights);
    for (int32_t first = 0; first < s->out_channels; first += at_once) {
        const int32_t stop = s->out_channels - first < at_once ? s->out_channels : first + at_once;
        decode(call, &rows, first, stop, kernel->width, panels);
        for (int64_t pixel = begin; pixel < end; pixel += chunk)
            multiply(call, kernel, first, stop, panels, pixel, end - pixel < chunk ? end - pixel : chunk);
    }
}
