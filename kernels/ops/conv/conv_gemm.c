#include "ops/conv/conv_gemm.h"

#include <string.h>

#include "ops/conv/conv.h"
#include "ops/conv/conv_cells.h"
#include "ops/shape.h"
#include "ops/weights.h"

/* Tiles whose input pointers are made at once; a panel of weights serves all of them before the next is fetched. */
#define CHUNK_TILES 8
/* Bytes of scratch a part: zeros, pointers. */
static uint64_t part_bytes(const klaus_shape *s, const klaus_conv_cells *cells, int32_t tile_rows) {
    return klaus_aligned((uint64_t)s->in_channels * sizeof(float)) +
           klaus_aligned((uint64_t)cells->taps * (uint64_t)(CHUNK_TILES * tile_rows) * sizeof(float *));
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
    const klaus_conv_cells g = klaus_conv_cells_of(shape);
    return g.copy_bytes + (uint64_t)parts * part_bytes(shape, &g, tile_rows);
}

void klaus_conv_gemm_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                         const klaus_gemm_kernel *kernel) {
    const klaus_shape *s = call->shape;
    const klaus_conv_cells g = klaus_conv_cells_of(s);
    if (phase == 0) {
        if (g.padded)
            klaus_conv_pad(call, &g, part, parts);
        return;
    }
    uint8_t *own = (uint8_t *)call->scratch + (size_t)(g.copy_bytes + (uint64_t)part * part_bytes(s, &g, kernel->rows));
    float *zeros = (float *)(void *)own;
    const float **pointers =
        (const float **)(void *)(own + (size_t)klaus_aligned((uint64_t)s->in_channels * sizeof(float)));
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
            klaus_conv_point(s, &g, input, zeros, pixel, (int32_t)count, pointers + (pixel - chunk) * g.taps);
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
