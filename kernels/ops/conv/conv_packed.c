#include "ops/conv/conv_packed.h"

#include <string.h>

#include "ops/conv/conv.h"
#include "ops/conv/conv_cells.h"
#include "ops/shape.h"
#include "ops/weights.h"

/* Inputs that are packed before the panels of weights pass over them: enough tiles that a panel is worth fetching, more
 * while they stay in the first cache, fewer where they would leave the second. */
#define USUAL_TILES 8
#define MOST_TILES 32
#define FIRST_CACHE_BYTES 32768
#define SECOND_CACHE_BYTES 327680
#define MOST_WIDTH 12
#define MOST_ROWS 8

/* Groups of four weights a filter, the last one filled up. */
static int64_t quads_of(const klaus_shape *s) {
    return (klaus_shape_weights_per_row(s) + 3) / 4;
}

/* Floats of a panel: bias, weights. */
static int64_t panel_floats(const klaus_shape *s, int64_t width) {
    return width * (1 + 4 * quads_of(s));
}

bool klaus_conv_packed_can(const klaus_shape *s) {
    return klaus_conv_is_sound(s);
}

uint64_t klaus_conv_packed_packed_bytes(const klaus_shape *s) {
    const int64_t channels = klaus_panel_channels(s->out_channels / s->groups);
    return (uint64_t)(s->groups * panel_floats(s, channels)) * sizeof(float);
}

void klaus_conv_packed_pack(const klaus_shape *s, const klaus_weights *weights, void *packed, int32_t panel_width) {
    const int32_t filters = s->out_channels / s->groups;
    const int64_t row = klaus_shape_weights_per_row(s);
    float *to = packed;
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t first = 0, width; first < filters; first += width) {
            width = klaus_panel_width(filters, first, panel_width);
            memset(to, 0, (size_t)panel_floats(s, width) * sizeof(float));
            for (int32_t c = 0; c < width && first + c < filters; c++) {
                const int64_t channel = (int64_t)group * filters + first + c;
                const float scale = weights->scale != NULL ? weights->scale[channel] : 1.0f;
                float *column = to + width + c, some[256];
                to[c] = weights->bias[channel];
                for (int64_t i = 0; i < row; i += 256) {
                    const int64_t count = row - i < 256 ? row - i : 256;
                    klaus_weights_read(s, weights, channel, i, count, some);
                    for (int64_t n = 0; n < count; n++)
                        column[(i + n) * width] = scale * some[n];
                }
            }
            to += panel_floats(s, width);
        }
}

/* ---- run ---- */

/* A part's scratch memory: where its pieces begin, in bytes. */
typedef struct part_scratch {
    uint64_t zeros;    /* float [channels] */
    uint64_t pointers; /* const float *[taps][rows] of one tile */
    uint64_t rows;     /* float [rows][4 * quads]: a tile whose taps are no multiples of four */
    uint64_t edge;     /* float [2][rows of all tiles][width]: output and addend of a panel wider than its channels */
    uint64_t inputs;   /* packed tiles */
    uint64_t bytes;
    int64_t tiles; /* that are packed at once */
} part_scratch;

static part_scratch scratch_of(const klaus_shape *s, const klaus_conv_cells *cells,
                               const klaus_gemm_packed_kernel *kernel) {
    const uint64_t rows = (uint64_t)kernel->rows;
    const uint64_t tile_bytes = rows * 4 * (uint64_t)quads_of(s) * sizeof(float);
    const uint64_t near = FIRST_CACHE_BYTES / tile_bytes, far = SECOND_CACHE_BYTES / tile_bytes;
    uint64_t tiles = near > MOST_TILES ? MOST_TILES : near < USUAL_TILES ? USUAL_TILES : near;
    const uint64_t all = ((uint64_t)s->out_rows * (uint64_t)s->out_cols + rows - 1) / rows;
    tiles = tiles > far ? (far > 0 ? far : 1) : tiles;
    tiles = tiles > all ? all : tiles;
    part_scratch at = {.tiles = (int64_t)tiles};
    at.pointers = klaus_aligned((uint64_t)s->in_channels * sizeof(float));
    at.rows = at.pointers + klaus_aligned((uint64_t)cells->taps * rows * sizeof(float *));
    at.edge = at.rows + (cells->depth % 4 != 0 ? klaus_aligned(tile_bytes) : 0);
    at.inputs = at.edge;
    if (cells->group_filters % 4 != 0)
        at.inputs += klaus_aligned(2 * tiles * rows * (uint64_t)kernel->width * sizeof(float));
    at.bytes = at.inputs + klaus_aligned(tiles * tile_bytes);
    return at;
}

uint64_t klaus_conv_packed_scratch_bytes(const klaus_shape *s, int32_t parts, const klaus_gemm_packed_kernel *kernel) {
    const klaus_conv_cells cells = klaus_conv_cells_of(s);
    return cells.copy_bytes + (uint64_t)parts * scratch_of(s, &cells, kernel).bytes;
}

/* What a part works with. */
typedef struct worker {
    const klaus_call *call;
    const klaus_gemm_packed_kernel *kernel;
    klaus_conv_cells cells;
    int64_t quads;
    const float *input; /* or its padded copy */
    float *zeros, *rows, *edge, *inputs;
    const float **pointers;
} worker;

/* The inputs of whole tiles from `pixel` on. */
static void pack_tiles(const worker *w, int64_t pixel, int64_t tiles, size_t offset) {
    const klaus_conv_cells *cells = &w->cells;
    const int32_t rows = w->kernel->rows;
    const bool whole = cells->depth % 4 == 0;
    const float *laid_out[MOST_ROWS];
    float *to = w->inputs;
    for (int32_t r = 0; r < rows && !whole; r++) {
        laid_out[r] = w->rows + r * 4 * w->quads;
        for (int64_t i = klaus_shape_weights_per_row(w->call->shape); i < 4 * w->quads; i++)
            w->rows[r * 4 * w->quads + i] = 0;
    }
    for (int64_t t = 0; t < tiles; t++, pixel += rows) {
        klaus_conv_point(w->call->shape, cells, w->input, w->zeros, pixel, rows, w->pointers);
        if (whole) {
            for (int32_t tap = 0; tap < cells->taps; tap++)
                to = w->kernel->pack(w->pointers + (int64_t)tap * rows, offset, cells->depth / 4, to);
        } else {
            w->kernel->lay_out(w->pointers, offset, cells->taps, cells->depth, w->rows, 4 * w->quads);
            to = w->kernel->pack(laid_out, 0, w->quads, to);
        }
    }
}

/* A panel wider than its channels: by way of a buffer of whole rows. */
static void multiply_edge(const worker *w, const klaus_gemm_panel *panel, int32_t outputs) {
    const int64_t rows = panel->tiles * w->kernel->rows, width = panel->width;
    klaus_gemm_panel whole = *panel;
    whole.output = w->edge;
    whole.stride = (size_t)width;
    if (panel->addend != NULL) {
        float *addend = w->edge + rows * width;
        memset(addend, 0, (size_t)(rows * width) * sizeof(float));
        for (int64_t r = 0; r < rows; r++)
            memcpy(addend + r * width, panel->addend + (size_t)r * panel->stride, (size_t)outputs * sizeof(float));
        whole.addend = addend;
    }
    w->kernel->multiply(&whole);
    for (int64_t r = 0; r < rows; r++)
        memcpy(panel->output + (size_t)r * panel->stride, w->edge + r * width, (size_t)outputs * sizeof(float));
}

/* One group of `tiles` whole tiles from `pixel` on and of `rest` pixels behind them. */
static void multiply_group(const worker *w, int32_t group, int64_t pixel, int64_t tiles, int32_t rest) {
    const klaus_call *call = w->call;
    const klaus_shape *s = call->shape;
    const int32_t filters = w->cells.group_filters;
    const size_t offset = (size_t)group * (size_t)w->cells.group_channels;
    const int64_t behind = pixel + tiles * w->kernel->rows;
    const float *weights =
        (const float *)call->packed + group * panel_floats(s, klaus_panel_channels(w->cells.group_filters));
    klaus_gemm_panel panel = {.tiles = tiles,
                              .quads = w->quads,
                              .inputs = w->inputs,
                              .activation = s->activation,
                              .stride = (size_t)s->out_channels};
    klaus_gemm_tile tile = {.rows = rest,
                            .taps = w->cells.taps,
                            .depth = w->cells.depth,
                            .inputs = w->pointers,
                            .offset = offset,
                            .finished = 1,
                            .activation = s->activation,
                            .stride = (size_t)s->out_channels};
    pack_tiles(w, pixel, tiles, offset);
    if (rest > 0)
        klaus_conv_point(s, &w->cells, w->input, w->zeros, behind, rest, w->pointers);
    for (int32_t first = 0; first < filters; first += panel.width) {
        float *output = (float *)call->output + (int64_t)group * filters + first;
        const float *addend = s->has_addend ? (const float *)call->input[1] + (int64_t)group * filters + first : NULL;
        panel.width = klaus_panel_width(filters, first, w->kernel->width);
        panel.bias = weights;
        panel.weights = weights + panel.width;
        panel.output = output + pixel * s->out_channels;
        panel.addend = addend != NULL ? addend + pixel * s->out_channels : NULL;
        const int32_t outputs = filters - first < panel.width ? filters - first : panel.width;
        if (tiles > 0 && outputs == panel.width)
            w->kernel->multiply(&panel);
        else if (tiles > 0)
            multiply_edge(w, &panel, outputs);
        if (rest > 0) {
            tile.width = panel.width;
            tile.outputs = outputs;
            tile.bias = panel.bias;
            tile.weights = panel.weights;
            tile.output = output + behind * s->out_channels;
            tile.addend = addend != NULL ? addend + behind * s->out_channels : NULL;
            w->kernel->rest->run(&tile);
        }
        weights += panel_floats(s, panel.width);
    }
}

void klaus_conv_packed_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                           const klaus_gemm_packed_kernel *kernel) {
    const klaus_shape *s = call->shape;
    worker w = {.call = call, .kernel = kernel, .cells = klaus_conv_cells_of(s), .quads = quads_of(s)};
    if (phase == 0) {
        if (w.cells.padded)
            klaus_conv_pad(call, &w.cells, part, parts);
        return;
    }
    const part_scratch at = scratch_of(s, &w.cells, kernel);
    uint8_t *own = (uint8_t *)call->scratch + (size_t)(w.cells.copy_bytes + (uint64_t)part * at.bytes);
    w.input = w.cells.padded ? call->scratch : call->input[0];
    w.zeros = (float *)(void *)own;
    w.pointers = (const float **)(void *)(own + (size_t)at.pointers);
    w.rows = (float *)(void *)(own + (size_t)at.rows);
    w.edge = (float *)(void *)(own + (size_t)at.edge);
    w.inputs = (float *)(void *)(own + (size_t)at.inputs);
    memset(w.zeros, 0, (size_t)s->in_channels * sizeof(float));
    int64_t begin, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, kernel->rows, part, parts, &begin, &end);
    for (int64_t pixel = begin; pixel < end;) {
        const int64_t left = end - pixel, tiles = left / kernel->rows < at.tiles ? left / kernel->rows : at.tiles;
        const int64_t behind = left - tiles * kernel->rows;
        const int32_t rest = behind < kernel->rows ? (int32_t)behind : 0;
        for (int32_t group = 0; group < s->groups; group++)
            multiply_group(&w, group, pixel, tiles, rest);
        pixel += tiles * kernel->rows + rest;
    }
}
