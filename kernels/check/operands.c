#include "check/operands.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "ops/elements.h"
#include "ops/shape.h"
#include "ops/weights.h"

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

/* What float32 calls hostile, within the range of halves: denormals, zeros of both signs. */
static void fill_half_inputs(klaus_random *random, klaus_values kind, uint16_t *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float value = klaus_random_float(random);
        if (kind == KLAUS_VALUES_SPARSE && klaus_random_int(random, 0, 1) == 0)
            value = klaus_random_int(random, 0, 3) == 0 ? -0.0f : 0.0f;
        if (kind == KLAUS_VALUES_HOSTILE) {
            static const float sizes[] = {0, 6e-8f, 6e-5f, 1e-3f, 1, 16};
            value *= sizes[klaus_random_int(random, 0, 5)];
        }
        values[i] = klaus_float_to_half(value);
    }
}

/* The same as float32, for a layer that makes halves of what it reads: beyond them its sums are not defined. */
static void fill_half_range(klaus_random *random, klaus_values kind, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        fill_half_inputs(random, kind, &half, 1);
        values[i] = klaus_half_to_float(half);
    }
}

/* All 256 numbers, the ends and zero more often. */
static void fill_bytes(klaus_random *random, klaus_values kind, int32_t zero, int8_t *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        values[i] = (int8_t)klaus_random_int(random, -128, 127);
        if (kind == KLAUS_VALUES_SPARSE && klaus_random_int(random, 0, 1) == 0)
            values[i] = (int8_t)zero;
        if (kind == KLAUS_VALUES_HOSTILE)
            values[i] = klaus_random_int(random, 0, 1) == 0 ? -128 : 127;
    }
}

static klaus_quantization any_quantization(klaus_random *random) {
    static const int32_t zeros[] = {-128, -128, 0, 127, -1, 37};
    const int32_t zero = zeros[klaus_random_int(random, 0, 5)];
    return (klaus_quantization){ldexpf(1.5f + 0.5f * klaus_random_float(random), klaus_random_int(random, -9, -4)),
                                zero};
}

/* Ops whose results are some of their inputs need no other scale. */
static bool keeps_numbers(uint32_t op) {
    return op == KLAUS_OP_MAX_POOL || op == KLAUS_OP_SLICE || op == KLAUS_OP_CONCAT || op == KLAUS_OP_ACTIVATION;
}

static void quantize_shape(klaus_shape *s, klaus_random *random) {
    for (int32_t n = 0; n < klaus_shape_inputs(s); n++) {
        const bool own = n == 0 || !keeps_numbers(s->op);
        s->in_quantization[n] = own ? any_quantization(random) : s->in_quantization[0];
    }
    s->out_quantization = keeps_numbers(s->op) ? s->in_quantization[0] : any_quantization(random);
    if (klaus_shape_weights_per_row(s) > 0) /* sums of many terms: so that most results are not cut off */
        s->out_quantization.scale *= sqrtf((float)klaus_shape_weights_per_row(s));
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
        !klaus_block_make(&o->bias, rows * 4, 4, place) ||
        !klaus_block_make(&o->correction, s->in_dtype == KLAUS_I8 ? rows * 4 : 0, 4, place))
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
    if (s->in_dtype == KLAUS_I8)
        fill_floats(random, KLAUS_VALUES_ORDINARY, (float *)(void *)o->correction.bytes, rows);
    o->weights.values = o->values.bytes;
    o->weights.row_bytes = row_bytes;
    o->weights.codebook = s->codebook_dtype != 0 ? o->codebook.bytes : NULL;
    o->weights.scale = s->has_scale ? (const float *)(const void *)o->scale.bytes : NULL;
    o->weights.bias = (const float *)(const void *)o->bias.bytes;
    o->weights.correction = s->in_dtype == KLAUS_I8 ? (const float *)(const void *)o->correction.bytes : NULL;
    return true;
}

bool klaus_operands_make(klaus_operands *o, const klaus_shape *shape, klaus_random *random, klaus_values kind,
                         klaus_place place) {
    memset(o, 0, sizeof *o);
    o->shape = *shape;
    if (shape->in_dtype == KLAUS_I8 || shape->out_dtype == KLAUS_I8)
        quantize_shape(&o->shape, random);
    for (int32_t n = 0; n < klaus_shape_inputs(shape); n++) {
        const size_t count = (size_t)klaus_shape_input_count(shape, n);
        const uint32_t dtype = klaus_shape_input_dtype(shape, n);
        const size_t bytes = klaus_dtype_bytes(dtype);
        if (!klaus_block_make(&o->input[n], count * bytes, bytes, place))
            return false;
        float *values = (float *)(void *)o->input[n].bytes;
        if (dtype == KLAUS_F16) {
            uint16_t *halves = (uint16_t *)(void *)o->input[n].bytes;
            fill_half_inputs(random, kind, halves, count);
            if (kind == KLAUS_VALUES_NAN) {
                halves[klaus_random_int(random, 0, (int32_t)count - 1)] = 0x7c00;
                halves[klaus_random_int(random, 0, (int32_t)count - 1)] = 0x7e00;
            }
            continue;
        }
        if (dtype == KLAUS_I8) {
            fill_bytes(random, kind, o->shape.in_quantization[n].zero, (int8_t *)o->input[n].bytes, count);
            continue;
        }
        if (kind == KLAUS_VALUES_HOSTILE && shape->out_dtype == KLAUS_F16 && shape->op != KLAUS_OP_CAST)
            fill_half_range(random, kind, values, count);
        else
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
    klaus_block_free(&o->correction);
    free(o->expected);
    free(o->terms);
}

static void make_absolute(klaus_block *block, size_t number_bytes) {
    for (size_t i = number_bytes - 1; i < block->size; i += number_bytes)
        block->bytes[i] &= 0x7f; /* the sign bit of a little-endian float or half */
}

static bool run_in(const klaus_variant *oracle, klaus_call *call) {
    call->scratch = malloc((size_t)oracle->scratch_bytes(call->shape, 1) + 1);
    if (call->scratch == NULL)
        return false;
    for (int32_t phase = 0; phase < oracle->phases; phase++)
        oracle->run(call, phase, 0, 1);
    free(call->scratch);
    return true;
}

/* The oracle of the shape's own dtype. */
static bool run_own(const klaus_operands *o, const klaus_shape *shape, const klaus_variant *oracle, float *values) {
    void *output = malloc(o->out_count * sizeof(float));
    klaus_call call = {.shape = shape, .output = output, .weights = &o->weights};
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        call.input[n] = o->input[n].bytes;
    const bool ran = output != NULL && run_in(oracle, &call);
    if (ran)
        klaus_operands_read(o, output, values);
    free(output);
    return ran;
}

/* The oracle of float32 on the numbers that the inputs stand for; not rounded yet. */
static bool run_widened(const klaus_operands *o, const klaus_shape *shape, const bool absolute, float *values) {
    klaus_shape wide = *shape;
    wide.in_dtype = wide.out_dtype = KLAUS_F32;
    klaus_call call = {.shape = &wide, .output = values, .weights = &o->weights};
    float *inputs[KLAUS_MAX_INPUTS] = {NULL};
    bool ran = true;
    for (int32_t n = 0; n < klaus_shape_inputs(shape); n++) {
        const int64_t count = klaus_shape_input_count(shape, n);
        inputs[n] = malloc((size_t)count * sizeof(float));
        call.input[n] = inputs[n];
        ran = ran && inputs[n] != NULL;
        if (inputs[n] == NULL)
            continue;
        klaus_elements_read(o->input[n].bytes, klaus_shape_input_dtype(shape, n), &shape->in_quantization[n], count,
                            inputs[n]);
        for (int64_t i = 0; absolute && i < count; i++)
            inputs[n][i] = fabsf(inputs[n][i]);
    }
    ran = ran && run_in(klaus_dispatch_oracle(shape->op, KLAUS_F32), &call);
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        free(inputs[n]);
    return ran;
}

/* What the oracle makes of the operands, as `expected` holds it. */
static bool run_oracle(const klaus_operands *o, float *values) {
    const klaus_shape *shape = &o->shape;
    const uint32_t dtype = shape->in_dtype != KLAUS_F32 ? shape->in_dtype : shape->out_dtype;
    const klaus_variant *own = klaus_dispatch_oracle(shape->op, dtype);
    if (own != NULL && own->can(shape))
        return run_own(o, shape, own, values);
    if (!run_widened(o, shape, false, values))
        return false;
    if (shape->out_dtype == KLAUS_F32)
        return true;
    uint8_t *rounded = malloc(o->out_count * 2);
    if (rounded == NULL)
        return false;
    klaus_elements_write(values, (int64_t)o->out_count, shape->out_dtype, &shape->out_quantization, rounded);
    klaus_operands_read(o, rounded, values);
    free(rounded);
    return true;
}

void klaus_operands_read(const klaus_operands *o, const void *output, float *values) {
    static const klaus_quantization plain = {1, 0};
    klaus_elements_read(output, o->shape.out_dtype, &plain, (int64_t)o->out_count, values);
}

bool klaus_operands_expect(klaus_operands *o, klaus_check_rule rule) {
    const klaus_variant *own = klaus_dispatch_oracle(o->shape.op, KLAUS_I8);
    o->own_oracle = own != NULL && own->can(&o->shape);
    if (!run_oracle(o, o->expected))
        return false;
    if (rule != KLAUS_CHECK_TERMS || o->shape.out_dtype == KLAUS_I8)
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
    memset(&absolute.correction, 0, sizeof absolute.correction); /* the caller's: this oracle is float32's */
    absolute.weights.correction = NULL;
    memset(absolute.input, 0, sizeof absolute.input);
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        absolute.input[n].bytes = o->input[n].bytes;
    absolute.weights.values = absolute.values.bytes;
    absolute.weights.codebook = o->weights.codebook != NULL ? absolute.codebook.bytes : NULL;
    absolute.weights.scale = o->weights.scale != NULL ? (const float *)(const void *)absolute.scale.bytes : NULL;
    absolute.weights.bias = (const float *)(const void *)absolute.bias.bytes;
    klaus_shape linear = o->shape;
    linear.activation = KLAUS_LINEAR;
    made = made && run_widened(&absolute, &linear, true, o->terms);
    absolute.expected = absolute.terms = NULL;
    memset(absolute.input, 0, sizeof absolute.input); /* they are the caller's */
    klaus_operands_free(&absolute);
    return made;
}
