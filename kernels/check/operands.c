#include "check/operands.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "ops/shape.h"

static float hostile_value(klaus_random *random) {
    switch (klaus_random_int(random, 0, 5)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return klaus_random_float(random) * FLT_MIN; /* denormal */
    case 3:
        return klaus_random_float(random) * 1e15f;
    case 4:
        return klaus_random_float(random) * 1e-15f;
    default:
        return klaus_random_float(random);
    }
}

static void fill_floats(klaus_random *random, klaus_values kind, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        values[i] = klaus_random_float(random);
        if (kind == KLAUS_VALUES_SPARSE && klaus_random_int(random, 0, 1) == 0)
            values[i] = klaus_random_int(random, 0, 3) == 0 ? -0.0f : 0.0f;
        if (kind == KLAUS_VALUES_HOSTILE)
            values[i] = hostile_value(random);
    }
}

/* Halves of ordinary size: sign, an exponent for about 2^-6 .. 1, any mantissa; now and then zero or a denormal. */
static void fill_halves(klaus_random *random, uint16_t *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = klaus_random_bits(random);
        const uint16_t exponent = (uint16_t)(9 + (bits >> 16) % 6);
        values[i] = (uint16_t)((bits & 0x8000) | (uint16_t)(exponent << 10) | (bits & 0x3ff));
        if ((bits >> 32) % 16 == 0)
            values[i] &= 0x83ff;
    }
}

static bool make_weights(klaus_operands *o, klaus_random *random, klaus_place place) {
    const klaus_shape *s = &o->shape;
    const size_t rows = (size_t)s->out_channels, row = (size_t)klaus_shape_weights_per_row(s);
    const uint32_t dtype = s->weight_dtype;
    const size_t row_bytes = dtype == KLAUS_F32   ? row * 4
                             : dtype == KLAUS_F16 ? row * 2
                             : dtype == KLAUS_Q8  ? row
                             : dtype == KLAUS_Q4  ? (row + 1) / 2
                                                  : (row + 3) / 4;
    const size_t entry_bytes = s->codebook_dtype == KLAUS_F16 ? 2 : 4;
    if (!klaus_block_make(&o->values, rows * row_bytes,
                          dtype == KLAUS_F32   ? 4
                          : dtype == KLAUS_F16 ? 2
                                               : 1,
                          place) ||
        !klaus_block_make(&o->codebook, s->codebook_entries * entry_bytes, entry_bytes, place) ||
        !klaus_block_make(&o->scale, s->has_scale ? rows * 4 : 0, 4, place) ||
        !klaus_block_make(&o->bias, rows * 4, 4, place))
        return false;
    if (dtype == KLAUS_F32)
        fill_floats(random, KLAUS_VALUES_ORDINARY, (float *)(void *)o->values.bytes, rows * row);
    else if (dtype == KLAUS_F16)
        fill_halves(random, (uint16_t *)(void *)o->values.bytes, rows * row);
    else
        for (size_t r = 0; r < rows; r++) { /* any index below the number of entries, padding bits zero */
            uint8_t *bytes = o->values.bytes + r * row_bytes;
            const size_t bits = dtype == KLAUS_Q8 ? 8 : dtype == KLAUS_Q4 ? 4 : 2;
            memset(bytes, 0, row_bytes);
            for (size_t i = 0; i < row; i++)
                bytes[i * bits / 8] |=
                    (uint8_t)(klaus_random_int(random, 0, (int32_t)s->codebook_entries - 1) << (i * bits % 8));
        }
    if (s->codebook_dtype == KLAUS_F16)
        fill_halves(random, (uint16_t *)(void *)o->codebook.bytes, s->codebook_entries);
    else if (s->codebook_dtype == KLAUS_F32)
        fill_floats(random, KLAUS_VALUES_ORDINARY, (float *)(void *)o->codebook.bytes, s->codebook_entries);
    if (s->has_scale)
        fill_floats(random, KLAUS_VALUES_ORDINARY, (float *)(void *)o->scale.bytes, rows);
    fill_floats(random, KLAUS_VALUES_ORDINARY, (float *)(void *)o->bias.bytes, rows);
    o->weights.values = o->values.bytes;
    o->weights.row_bytes = row_bytes;
    o->weights.codebook = s->codebook_dtype != 0 ? o->codebook.bytes : NULL;
    o->weights.scale = s->has_scale ? (const float *)(const void *)o->scale.bytes : NULL;
    o->weights.bias = (const float *)(const void *)o->bias.bytes;
    return true;
}

bool klaus_operands_make(klaus_operands *o, const klaus_shape *shape, klaus_random *random, klaus_values kind,
                         klaus_place place) {
    memset(o, 0, sizeof *o);
    o->shape = *shape;
    for (int32_t n = 0; n < klaus_shape_inputs(shape); n++) {
        const size_t count = (size_t)klaus_shape_input_count(shape, n);
        if (!klaus_block_make(&o->input[n], count * 4, 4, place))
            return false;
        float *values = (float *)(void *)o->input[n].bytes;
        fill_floats(random, kind, values, count);
        if (kind == KLAUS_VALUES_NAN) {
            values[klaus_random_int(random, 0, (int32_t)count - 1)] = INFINITY;
            values[klaus_random_int(random, 0, (int32_t)count - 1)] = NAN;
        }
    }
    if (klaus_shape_weights_per_row(shape) > 0 && !make_weights(o, random, place))
        return false;
    o->out_count = (size_t)klaus_shape_output_count(shape);
    o->expected = malloc(o->out_count * sizeof(float));
    o->terms = malloc(o->out_count * sizeof(float));
    return o->expected != NULL && o->terms != NULL;
}

void klaus_operands_free(klaus_operands *o) {
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        klaus_block_free(&o->input[n]);
    klaus_block_free(&o->values);
    klaus_block_free(&o->codebook);
    klaus_block_free(&o->scale);
    klaus_block_free(&o->bias);
    free(o->expected);
    free(o->terms);
}

static void make_absolute(klaus_block *block, size_t number_bytes) {
    for (size_t i = number_bytes - 1; i < block->size; i += number_bytes)
        block->bytes[i] &= 0x7f; /* the sign bit of a little-endian float or half */
}

/* Runs the oracle into ordinary memory. */
static bool run_oracle(const klaus_operands *o, const klaus_shape *shape, float *output) {
    const klaus_variant *oracle = klaus_dispatch_oracle(shape->op);
    klaus_call call = {.shape = shape, .output = output, .weights = &o->weights};
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        call.input[n] = o->input[n].bytes;
    call.scratch = malloc((size_t)oracle->scratch_bytes(shape, 1) + 1);
    if (call.scratch == NULL)
        return false;
    oracle->run(&call, 0, 0, 1);
    free(call.scratch);
    return true;
}

bool klaus_operands_expect(klaus_operands *o, klaus_check_rule rule) {
    if (!run_oracle(o, &o->shape, o->expected))
        return false;
    if (rule != KLAUS_CHECK_TERMS)
        return true;
    klaus_operands absolute = *o;
    bool made = true;
    klaus_block *const from[] = {&o->values, &o->codebook, &o->scale, &o->bias};
    klaus_block *const to[] = {&absolute.values, &absolute.codebook, &absolute.scale, &absolute.bias};
    const bool indices = o->shape.codebook_dtype != 0;
    const size_t number_bytes[] = {indices                              ? 0
                                   : o->shape.weight_dtype == KLAUS_F16 ? 2
                                                                        : 4,
                                   o->shape.codebook_dtype == KLAUS_F16 ? 2 : 4, 4, 4};
    for (int i = 0; i < 4; i++) {
        made = klaus_block_make(to[i], from[i]->size, 4, KLAUS_PLACE_FRONT) && made;
        if (!made || from[i]->size == 0)
            continue;
        memcpy(to[i]->bytes, from[i]->bytes, from[i]->size);
        if (number_bytes[i] != 0)
            make_absolute(to[i], number_bytes[i]);
    }
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++) {
        made = klaus_block_make(&absolute.input[n], o->input[n].size, 4, KLAUS_PLACE_FRONT) && made;
        if (!made || o->input[n].size == 0)
            continue;
        memcpy(absolute.input[n].bytes, o->input[n].bytes, o->input[n].size);
        make_absolute(&absolute.input[n], 4);
    }
    absolute.weights.values = absolute.values.bytes;
    absolute.weights.codebook = o->weights.codebook != NULL ? absolute.codebook.bytes : NULL;
    absolute.weights.scale = o->weights.scale != NULL ? (const float *)(const void *)absolute.scale.bytes : NULL;
    absolute.weights.bias = (const float *)(const void *)absolute.bias.bytes;
    klaus_shape linear = o->shape;
    linear.activation = KLAUS_LINEAR;
    made = made && run_oracle(&absolute, &linear, o->terms);
    absolute.expected = absolute.terms = NULL;
    klaus_operands_free(&absolute);
    return made;
}
