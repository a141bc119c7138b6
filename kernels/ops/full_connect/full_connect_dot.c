#include "ops/full_connect/full_connect_dot.h"

#include <string.h>

#include "ops/full_connect/full_connect.h"
#include "ops/int8.h"
#include "ops/shape.h"
#include "ops/weights.h"

#define WIDTH KLAUS_FULL_CONNECT_DOT_WIDTH
#define SOME 256 /* inputs at a time, whole groups of indices */

bool klaus_full_connect_dot_can(const klaus_shape *shape) {
    return klaus_full_connect_has_geometry(shape) && klaus_int8_fits(shape);
}

int64_t klaus_full_connect_dot_inputs(const klaus_shape *shape) {
    return (klaus_shape_inputs_per_row(shape) + 31) / 32 * 32;
}

uint32_t klaus_full_connect_dot_stored(const klaus_shape *shape) {
    return shape->weight_dtype == KLAUS_Q4 || shape->weight_dtype == KLAUS_Q2 ? shape->weight_dtype : KLAUS_I8;
}

size_t klaus_full_connect_dot_table_bytes(const klaus_shape *shape) {
    return klaus_full_connect_dot_stored(shape) == KLAUS_I8 ? 0 : 64;
}

size_t klaus_full_connect_dot_panel_bytes(const klaus_shape *shape) {
    const size_t weights = (size_t)klaus_full_connect_dot_inputs(shape) * WIDTH;
    const uint32_t stored = klaus_full_connect_dot_stored(shape);
    return 8 * WIDTH + (stored == KLAUS_I8 ? weights : stored == KLAUS_Q4 ? weights / 2 : weights / 4);
}

uint64_t klaus_full_connect_dot_packed_bytes(const klaus_shape *shape) {
    const uint64_t panels = ((uint64_t)shape->out_channels + WIDTH - 1) / WIDTH;
    return klaus_full_connect_dot_table_bytes(shape) + panels * klaus_full_connect_dot_panel_bytes(shape);
}

/* Output `c` of a panel; returns the sum of its weights. */
static int32_t pack_output(const klaus_shape *s, const klaus_weights *weights, int64_t row, float step,
                           const int8_t entries[256], size_t c, uint8_t *to) {
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const uint32_t stored = klaus_full_connect_dot_stored(s);
    int8_t some[SOME];
    int32_t sum = 0;
    for (int64_t i = 0; i < inputs; i++) {
        const size_t at = (size_t)(i / 4) * 4 * WIDTH + 4 * c + (size_t)(i % 4);
        if (stored == KLAUS_I8) {
            if (i % SOME == 0)
                klaus_int8_weights_read(s, weights, row, step, i, inputs - i < SOME ? inputs - i : SOME, some);
            to[at] = (uint8_t)some[i % SOME];
            sum += some[i % SOME];
            continue;
        }
        const uint32_t index = klaus_weight_index(s, weights, row, i);
        sum += entries[index];
        if (stored == KLAUS_Q4)
            to[at / 32 * 16 + at % 16] |= (uint8_t)(index << (at % 32 / 16 * 4));
        else
            to[at / 64 * 16 + at % 16] |= (uint8_t)(index << (at % 64 / 16 * 2));
    }
    return sum;
}

void klaus_full_connect_dot_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    const size_t table_bytes = klaus_full_connect_dot_table_bytes(shape);
    const bool codebook = shape->codebook_dtype != 0;
    int8_t entries[256] = {0};
    float step = codebook ? klaus_int8_weight_step(shape, weights, 0) : 0;
    memset(packed, 0, (size_t)klaus_full_connect_dot_packed_bytes(shape));
    if (codebook)
        klaus_int8_codebook(shape, weights, entries);
    if (table_bytes > 0)
        memcpy(packed, entries, 16);
    uint8_t *panel = (uint8_t *)packed + table_bytes;
    for (int64_t first = 0; first < shape->out_channels; first += WIDTH) {
        for (int64_t c = 0; c < WIDTH && first + c < shape->out_channels; c++) {
            if (!codebook)
                step = klaus_int8_weight_step(shape, weights, first + c);
            const int32_t sum = pack_output(shape, weights, first + c, step, entries, (size_t)c, panel + 8 * WIDTH);
            memcpy(panel + 4 * c, &step, 4);
            memcpy(panel + 4 * (WIDTH + c), &sum, 4);
        }
        panel += klaus_full_connect_dot_panel_bytes(shape);
    }
}
