#include "ops/full_connect/full_connect_gemm.h"

#include <string.h>

#include "ops/shape.h"
#include "ops/weights.h"

#define GROUP 64 /* most weights of a group: what decoders may write beyond `count` rounds up to this */

static uint64_t aligned(uint64_t bytes, uint64_t to) {
    return (bytes + to - 1) / to * to;
}

uint32_t klaus_full_connect_stored(const klaus_shape *s) {
    return s->weight_dtype == KLAUS_Q8 && s->codebook_dtype == KLAUS_F16 ? KLAUS_F16 : s->weight_dtype;
}

size_t klaus_full_connect_table_bytes(const klaus_shape *s) {
    const uint32_t stored = klaus_full_connect_stored(s);
    return stored == KLAUS_Q8 ? 1024 : stored == KLAUS_Q4 || stored == KLAUS_Q2 ? 64 : 0;
}

uint64_t klaus_full_connect_block_bytes(const klaus_shape *s, int64_t inputs, int32_t width) {
    const uint64_t count = (uint64_t)(inputs * width);
    switch (klaus_full_connect_stored(s)) {
    case KLAUS_F32:
        return count * 4;
    case KLAUS_F16:
        return count * 2;
    case KLAUS_Q4:
        return aligned(count, 32) / 2;
    case KLAUS_Q2:
        return aligned(count, 64) / 4;
    default:
        return count;
    }
}

int64_t klaus_full_connect_block_inputs(int64_t inputs, int64_t first) {
    return inputs - first < KLAUS_FULL_CONNECT_BLOCK ? inputs - first : KLAUS_FULL_CONNECT_BLOCK;
}

uint64_t klaus_full_connect_panel_bytes(const klaus_shape *s, int32_t width) {
    const int64_t inputs = klaus_shape_inputs_per_row(s), full = inputs / KLAUS_FULL_CONNECT_BLOCK;
    return (uint64_t)(2 * width) * sizeof(float) +
           aligned((uint64_t)full * klaus_full_connect_block_bytes(s, KLAUS_FULL_CONNECT_BLOCK, width) +
                       klaus_full_connect_block_bytes(s, inputs % KLAUS_FULL_CONNECT_BLOCK, width),
                   16);
}

uint64_t klaus_full_connect_gemm_packed_bytes(const klaus_shape *s, int32_t panel_width) {
    const int32_t full = s->out_channels / panel_width;
    const int32_t rest = klaus_panel_channels(s->out_channels - full * panel_width);
    return klaus_full_connect_table_bytes(s) + (uint64_t)full * klaus_full_connect_panel_bytes(s, panel_width) +
           (rest > 0 ? klaus_full_connect_panel_bytes(s, rest) : 0);
}

static void pack_table(const klaus_shape *s, const klaus_weights *weights, uint8_t *table) {
    if (klaus_full_connect_table_bytes(s) == 0)
        return;
    memset(table, 0, klaus_full_connect_table_bytes(s));
    for (uint32_t i = 0; i < s->codebook_entries; i++) {
        const float entry = klaus_codebook_entry(s, weights, i);
        if (s->weight_dtype == KLAUS_Q8)
            memcpy(table + 4 * i, &entry, 4);
        else if (s->codebook_dtype == KLAUS_F16)
            for (uint32_t row = 0; row < 2; row++)
                table[16 * row + i] = ((const uint8_t *)weights->codebook)[2 * i + row];
        else
            for (uint32_t row = 0; row < 4; row++)
                table[16 * row + i] = ((const uint8_t *)weights->codebook)[4 * i + row];
    }
}

/* One weight of a block, number `at` of its order. */
static void pack_weight(const klaus_shape *s, const klaus_weights *weights, int64_t row, int64_t input, size_t at,
                        uint8_t *block) {
    const uint8_t *from = (const uint8_t *)weights->values + (size_t)row * weights->row_bytes;
    switch (s->weight_dtype) {
    case KLAUS_F32:
        memcpy(block + 4 * at, from + 4 * input, 4);
        break;
    case KLAUS_F16:
        memcpy(block + 2 * at, from + 2 * input, 2);
        break;
    case KLAUS_Q8:
        if (klaus_full_connect_stored(s) == KLAUS_F16)
            memcpy(block + 2 * at, (const uint8_t *)weights->codebook + 2 * from[input], 2);
        else
            block[at] = from[input];
        break;
    case KLAUS_Q4:
        block[at / 32 * 16 + at % 16] |= (uint8_t)(klaus_weight_index(s, weights, row, input) << (at % 32 / 16 * 4));
        break;
    case KLAUS_Q2:
        block[at / 64 * 16 + at % 16] |= (uint8_t)(klaus_weight_index(s, weights, row, input) << (at % 64 / 16 * 2));
        break;
    default:
        break; /* can() takes no other */
    }
}

void klaus_full_connect_gemm_pack(const klaus_shape *s, const klaus_weights *weights, void *packed,
                                  int32_t panel_width) {
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    uint8_t *to = packed;
    pack_table(s, weights, to);
    to += klaus_full_connect_table_bytes(s);
    for (int32_t first = 0, width; first < s->out_channels; first += width) {
        width = klaus_panel_width(s->out_channels, first, panel_width);
        memset(to, 0, (size_t)klaus_full_connect_panel_bytes(s, width));
        const int32_t outputs = s->out_channels - first < width ? s->out_channels - first : width;
        float *head = (float *)(void *)to;
        uint8_t *block = to + (size_t)(2 * width) * sizeof(float);
        for (int32_t c = 0; c < outputs; c++) {
            head[c] = weights->scale != NULL ? weights->scale[first + c] : 1.0f;
            head[width + c] = weights->bias[first + c];
        }
        for (int64_t begin = 0; begin < inputs; begin += KLAUS_FULL_CONNECT_BLOCK) {
            const int64_t count = klaus_full_connect_block_inputs(inputs, begin);
            for (int32_t c = 0; c < outputs; c++)
                for (int64_t i = 0; i < count; i++)
                    pack_weight(s, weights, first + c, begin + i, (size_t)(i * width + c), block);
            block += (size_t)klaus_full_connect_block_bytes(s, count, width);
        }
        to += (size_t)klaus_full_connect_panel_bytes(s, width);
    }
}

/* ---- run ---- */

/* Rows of a tile: the batch cut evenly, so that 10 rows are 5 and 5 and not 7 and 3. */
static int32_t tile_rows(int32_t batch, int32_t most) {
    const int32_t tiles = (batch + most - 1) / most;
    return (batch + tiles - 1) / tiles;
}

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
    scratch.sums = aligned(batch * sizeof(float *), KLAUS_ALIGNMENT);
    scratch.weights = scratch.sums + aligned(batch * width * sizeof(float), KLAUS_ALIGNMENT);
    scratch.bytes = scratch.weights;
    if (s->weight_dtype != KLAUS_F32)
        scratch.bytes += aligned(KLAUS_FULL_CONNECT_BLOCK * width, GROUP) * sizeof(float);
    return scratch;
}

uint64_t klaus_full_connect_gemm_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width) {
    return scratch_of(shape, panel_width).bytes * (uint64_t)parts;
}

klaus_decoder klaus_full_connect_decoder(const klaus_shape *s) {
    const bool half = s->codebook_dtype == KLAUS_F16;
    switch (klaus_full_connect_stored(s)) {
    case KLAUS_F16:
        return klaus_decode_f16;
    case KLAUS_Q8:
        return klaus_decode_q8;
    case KLAUS_Q4:
        return half ? klaus_decode_q4_f16 : klaus_decode_q4_f32;
    case KLAUS_Q2:
        return half ? klaus_decode_q2_f16 : klaus_decode_q2_f32;
    default:
        return NULL;
    }
}

void klaus_full_connect_gemm_run(const klaus_call *call, int32_t part, int32_t parts, const klaus_gemm_kernel *kernel) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch), rows = tile_rows(batch, kernel->rows);
    const part_scratch at = scratch_of(s, kernel->width);
    uint8_t *scratch = (uint8_t *)call->scratch + (size_t)((uint64_t)part * at.bytes);
    const float **rows_of_input = (const float **)(void *)(scratch + (size_t)at.inputs);
    float *all_sums = (float *)(void *)(scratch + (size_t)at.sums),
          *decoded = (float *)(void *)(scratch + (size_t)at.weights);
    const klaus_decoder decode = klaus_full_connect_decoder(s);
    /* floats need no decoding and no blocks */
    const int64_t block = decode != NULL ? KLAUS_FULL_CONNECT_BLOCK : inputs;
    for (int32_t b = 0; b < batch; b++)
        rows_of_input[b] = (const float *)call->input[0] + b * inputs;
    klaus_gemm_tile tile = {.taps = 1, .activation = s->activation};
    int64_t begin, end;
    klaus_share(s->out_channels, kernel->width, part, parts, &begin, &end);
    const uint8_t *table = call->packed;
    const uint8_t *panel =
        table + klaus_full_connect_table_bytes(s) +
        (size_t)((uint64_t)(begin / kernel->width) * klaus_full_connect_panel_bytes(s, kernel->width));
    for (int64_t first = begin; first < end; first += tile.width) {
        tile.width = klaus_panel_width(s->out_channels, (int32_t)first, kernel->width);
        tile.outputs = s->out_channels - (int32_t)first;
        tile.outputs = tile.outputs < tile.width ? tile.outputs : tile.width;
        tile.scale = s->has_scale ? (const float *)(const void *)panel : NULL;
        tile.bias = (const float *)(const void *)panel + tile.width;
        const uint8_t *encoded = panel + (size_t)(2 * tile.width) * sizeof(float);
        for (int64_t done = 0; done < inputs; done += block) {
            const int64_t count = inputs - done < block ? inputs - done : block;
            if (decode != NULL)
                decode(table, encoded, count * tile.width, decoded);
            tile.weights = decode != NULL ? decoded : (const float *)(const void *)encoded;
            tile.depth = (int32_t)count;
            tile.offset = (size_t)done;
            tile.finished = done + count == inputs;
            for (int32_t b = 0; b < batch; b += rows) {
                float *sums = all_sums + b * tile.width;
                tile.rows = batch - b < rows ? batch - b : rows;
                tile.inputs = rows_of_input + b;
                tile.start = done > 0 ? sums : NULL;
                tile.output = tile.finished ? (float *)call->output + (int64_t)b * s->out_channels + first : sums;
                tile.stride = tile.finished ? (size_t)s->out_channels : (size_t)tile.width;
                kernel->run(&tile);
            }
            encoded += (size_t)klaus_full_connect_block_bytes(s, count, tile.width);
        }
        panel += (size_t)klaus_full_connect_panel_bytes(s, tile.width);
    }
}
