#include <math.h>
#include <string.h>

#include "ops/full_connect/full_connect.h"
#include "ops/full_connect/full_connect_f16.h"
#include "ops/halves.h"
#include "ops/shape.h"
#include "ops/weights.h"

#define WIDTH KLAUS_FULL_CONNECT_F16_WIDTH
#define SOME 256

bool klaus_full_connect_f16_can(const klaus_shape *shape) {
    return shape->in_dtype == KLAUS_F16 && (shape->out_dtype == KLAUS_F16 || shape->out_dtype == KLAUS_F32) &&
           klaus_full_connect_has_geometry(shape);
}

uint32_t klaus_full_connect_f16_stored(const klaus_shape *s) {
    return s->weight_dtype == KLAUS_Q4 || s->weight_dtype == KLAUS_Q2 ? s->weight_dtype : KLAUS_F16;
}

size_t klaus_full_connect_f16_table_bytes(const klaus_shape *s) {
    return klaus_full_connect_f16_stored(s) == KLAUS_F16 ? 0 : 32;
}

/* Of eight inputs of a panel. */
static size_t eight_bytes(const klaus_shape *s) {
    const uint32_t stored = klaus_full_connect_f16_stored(s);
    return 8 * WIDTH * (stored == KLAUS_F16 ? 16 : stored == KLAUS_Q4 ? 4 : 2) / 8;
}

static int64_t eights_of(const klaus_shape *s) {
    return (klaus_shape_inputs_per_row(s) + 7) / 8;
}

size_t klaus_full_connect_f16_panel_bytes(const klaus_shape *s) {
    return 2 * WIDTH * sizeof(float) + (size_t)eights_of(s) * eight_bytes(s);
}

uint64_t klaus_full_connect_f16_packed_bytes(const klaus_shape *s) {
    return klaus_full_connect_f16_table_bytes(s) +
           ((uint64_t)s->out_channels + WIDTH - 1) / WIDTH * klaus_full_connect_f16_panel_bytes(s);
}

/* What all weights are divided by. */
static float divisor(const klaus_shape *s, const klaus_weights *weights) {
    float largest = 0, some[SOME];
    if (s->codebook_dtype != 0) {
        for (uint32_t i = 0; i < s->codebook_entries; i++)
            largest = fmaxf(largest, fabsf(klaus_codebook_entry(s, weights, i)));
    } else {
        const int64_t inputs = klaus_shape_inputs_per_row(s);
        for (int32_t row = 0; row < s->out_channels; row++)
            for (int64_t i = 0; i < inputs; i += SOME) {
                const int64_t count = inputs - i < SOME ? inputs - i : SOME;
                klaus_weights_read(s, weights, row, i, count, some);
                for (int64_t n = 0; n < count; n++)
                    largest = fmaxf(largest, fabsf(some[n]));
            }
    }
    return klaus_half_scale(largest, largest, 0);
}

static uint16_t divided(float weight, float by) {
    return klaus_float_to_half((float)((double)weight / (double)by));
}

static void pack_row(const klaus_shape *s, const klaus_weights *weights, int32_t row, int32_t column, float by,
                     uint8_t *to) {
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const uint32_t stored = klaus_full_connect_f16_stored(s);
    float some[SOME];
    for (int64_t i = 0; i < inputs && stored == KLAUS_F16; i += SOME) {
        const int64_t count = inputs - i < SOME ? inputs - i : SOME;
        klaus_weights_read(s, weights, row, i, count, some);
        for (int64_t n = 0; n < count; n++)
            ((uint16_t *)(void *)to)[(i + n) * WIDTH + column] = divided(some[n], by);
    }
    for (int64_t i = 0; i < inputs && stored != KLAUS_F16; i++) {
        const uint32_t index = klaus_weight_index(s, weights, row, i);
        if (stored == KLAUS_Q4)
            to[i / 2 * 16 + column] |= (uint8_t)(index << (i % 2 * 4));
        else
            to[i / 4 * 16 + column] |= (uint8_t)(index << (i % 4 * 2));
    }
}

void klaus_full_connect_f16_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    uint8_t *to = packed;
    const float by = divisor(s, weights);
    memset(packed, 0, (size_t)klaus_full_connect_f16_packed_bytes(s));
    if (klaus_full_connect_f16_table_bytes(s) != 0) {
        for (uint32_t i = 0; i < s->codebook_entries && i < 16; i++) {
            const uint16_t half = divided(klaus_codebook_entry(s, weights, i), by);
            to[i] = (uint8_t)half;
            to[16 + i] = (uint8_t)(half >> 8);
        }
        to += 32;
    }
    for (int32_t first = 0; first < s->out_channels; first += WIDTH, to += klaus_full_connect_f16_panel_bytes(s)) {
        float *head = (float *)(void *)to;
        for (int32_t c = 0; c < WIDTH && first + c < s->out_channels; c++) {
            head[c] = (weights->scale != NULL ? weights->scale[first + c] : 1.0f) * by;
            head[WIDTH + c] = weights->bias[first + c];
            pack_row(s, weights, first + c, c, by, to + 2 * WIDTH * sizeof(float));
        }
    }
}
