/* A batch: blocks of decoded weights through the micro-kernels. */
#include "ops/full_connect_mapped/full_connect_mapped.h"
#include "ops/mapped/mapped.h"
#include "ops/shape.h"

#include <string.h>

#define BLOCK 256 /* inputs that are decoded at once */
#define MOST_WIDTH 32

/* A part's scratch memory: where its pieces begin, in bytes. */
typedef struct part_scratch {
    uint64_t inputs;  /* const float *[batch] */
    uint64_t sums;    /* float [batch][panel width], kept between blocks */
    uint64_t weights; /* one decoded block */
    uint64_t bytes;
} part_scratch;

static part_scratch scratch_of(const klaus_shape *s, int32_t panel_width) {
    const uint64_t batch = (uint64_t)klaus_at_least_one(s->batch), width = (uint64_t)panel_width;
    part_scratch scratch = {0};
    scratch.sums = klaus_aligned(batch * sizeof(float *));
    scratch.weights = scratch.sums + klaus_aligned(batch * width * sizeof(float));
    scratch.bytes = scratch.weights + klaus_aligned(BLOCK * width * sizeof(float));
    return scratch;
}

uint64_t klaus_full_connect_mapped_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width) {
    return scratch_of(shape, panel_width).bytes * (uint64_t)parts;
}

bool klaus_full_connect_mapped_lean(const klaus_shape *shape) {
    (void)shape;
    return true;
}

void klaus_full_connect_mapped_run(const klaus_call *call, int32_t part, int32_t parts,
                                   const klaus_gemm_kernel *kernel) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch);
    const int32_t tiles = (batch + kernel->rows - 1) / kernel->rows, rows_of_tile = (batch + tiles - 1) / tiles;
    const part_scratch at = scratch_of(s, kernel->width);
    uint8_t *scratch = (uint8_t *)call->scratch + (size_t)((uint64_t)part * at.bytes);
    const float **rows_of_input = (const float **)(void *)(scratch + (size_t)at.inputs);
    float *all_sums = (float *)(void *)(scratch + (size_t)at.sums);
    float *decoded = (float *)(void *)(scratch + (size_t)at.weights);
    float scale[MOST_WIDTH] = {0}, bias[MOST_WIDTH] = {0};
    klaus_mapped rows;
    klaus_mapped_open(&rows, s, call->weights);
    for (int32_t b = 0; b < batch; b++)
        rows_of_input[b] = (const float *)call->input[0] + b * inputs;
    klaus_gemm_tile tile = {.taps = 1,
                            .activation = s->activation,
                            .weights = decoded,
                            .scale = call->weights->scale != NULL ? scale : NULL,
                            .bias = bias};
    int64_t begin, end;
    klaus_share(s->out_channels, kernel->width, part, parts, &begin, &end);
    for (int64_t first = begin; first < end; first += tile.width) {
        tile.width = klaus_panel_width(s->out_channels, (int32_t)first, kernel->width);
        tile.outputs = s->out_channels - (int32_t)first;
        tile.outputs = tile.outputs < tile.width ? tile.outputs : tile.width;
        memcpy(bias, call->weights->bias + first, (size_t)tile.outputs * sizeof(float));
        if (tile.scale != NULL)
            memcpy(scale, call->weights->scale + first, (size_t)tile.outputs * sizeof(float));
        for (int64_t done = 0; done < inputs; done += BLOCK) {
            const int64_t count = inputs - done < BLOCK ? inputs - done : BLOCK;
            klaus_mapped_read(&rows, first, tile.outputs, tile.width, done, count, decoded);
            tile.depth = (int32_t)count;
            tile.offset = (size_t)done;
            tile.finished = done + count == inputs;
            for (int32_t b = 0; b < batch; b += rows_of_tile) {
                float *sums = all_sums + b * tile.width;
                tile.rows = batch - b < rows_of_tile ? batch - b : rows_of_tile;
                tile.inputs = rows_of_input + b;
                tile.start = done > 0 ? sums : NULL;
                tile.output = tile.finished ? (float *)call->output + (int64_t)b * s->out_channels + first : sums;
                tile.stride = tile.finished ? (size_t)s->out_channels : (size_t)tile.width;
                kernel->run(&tile);
            }
        }
    }
}
