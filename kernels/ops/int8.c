#include "ops/int8.h"

#include <math.h>

#include "ops/elements.h"
#include "ops/finish.h"
#include "ops/shape.h"
#include "ops/weights.h"

#define SOME 256

static float step_of(float largest) {
    return largest > 0 ? largest / 127 : 1;
}

float klaus_int8_weight_step(const klaus_shape *shape, const klaus_weights *weights, int64_t row) {
    float largest = 0;
    if (shape->codebook_dtype != 0 && shape->op == KLAUS_OP_FULL_CONNECT) {
        for (uint32_t i = 0; i < shape->codebook_entries; i++)
            largest = fmaxf(largest, fabsf(klaus_codebook_entry(shape, weights, i)));
        return step_of(largest);
    }
    const int64_t all = klaus_shape_weights_per_row(shape);
    float some[SOME];
    for (int64_t begin = 0; begin < all; begin += SOME) {
        const int64_t count = all - begin < SOME ? all - begin : SOME;
        klaus_weights_read(shape, weights, row, begin, count, some);
        for (int64_t i = 0; i < count; i++)
            largest = fmaxf(largest, fabsf(some[i]));
    }
    return step_of(largest);
}

/* Files that were not verified may hold infinite weights: those and no numbers at all become 0, or the largest. */
static int8_t rounded(float value, float step) {
    const float q = rintf(value / step);
    if (isnan(q)) {
        return 0;
    }
    return (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
}

void klaus_int8_weights_read(const klaus_shape *shape, const klaus_weights *weights, int64_t row, float step,
                             int64_t begin, int64_t count, int8_t *values) {
    float some[SOME];
    for (int64_t done = 0; done < count; done += SOME) {
        const int64_t part = count - done < SOME ? count - done : SOME;
        klaus_weights_read(shape, weights, row, begin + done, part, some);
        for (int64_t i = 0; i < part; i++)
            values[done + i] = rounded(some[i], step);
    }
}

void klaus_int8_codebook(const klaus_shape *shape, const klaus_weights *weights, int8_t entries[256]) {
    const float step = klaus_int8_weight_step(shape, weights, 0);
    for (uint32_t i = 0; i < 256; i++)
        entries[i] = rounded(klaus_codebook_entry(shape, weights, i), step);
}

float klaus_int8_multiplier(const klaus_shape *shape, const klaus_weights *weights, int64_t row, float step) {
    const float scale = weights->scale != NULL ? weights->scale[row] : 1.0f;
    const float multiplier = shape->in_quantization[0].scale * step * scale;
    return shape->out_dtype == KLAUS_I8 ? multiplier / shape->out_quantization.scale : multiplier;
}

float klaus_int8_offset(const klaus_shape *shape, const klaus_weights *weights, int64_t row) {
    const float bias = weights->correction != NULL ? weights->bias[row] + weights->correction[row] : weights->bias[row];
    return shape->out_dtype == KLAUS_I8 ? bias / shape->out_quantization.scale : bias;
}

void klaus_int8_limits(const klaus_shape *shape, int32_t *low, int32_t *high) {
    const klaus_quantization *out = &shape->out_quantization;
    *low = shape->activation == KLAUS_LINEAR ? -128 : out->zero;
    *high = 127;
    if (shape->activation == KLAUS_RELU6) {
        const float six = rintf(6 / out->scale) + (float)out->zero;
        *high = six < 127 ? (int32_t)six : 127;
    }
}

bool klaus_int8_fits(const klaus_shape *shape) {
    return shape->in_dtype == KLAUS_I8 && (shape->out_dtype == KLAUS_I8 || shape->out_dtype == KLAUS_F32) &&
           klaus_shape_weights_per_row(shape) <= KLAUS_INT8_MOST_WEIGHTS;
}

void klaus_int8_finish(const klaus_call *call, int32_t sum, float multiplier, float offset, int64_t at) {
    const klaus_shape *s = call->shape;
    float value = fmaf((float)sum, multiplier, offset);
    if (s->out_dtype == KLAUS_F32) {
        if (s->has_addend)
            value += ((const float *)call->input[1])[at];
        ((float *)call->output)[at] = (float)klaus_activate(s->activation, value);
        return;
    }
    if (s->has_addend) {
        const klaus_quantization *addend = &s->in_quantization[1];
        const int32_t q = ((const int8_t *)call->input[1])[at] - addend->zero;
        value = fmaf((float)q, addend->scale / s->out_quantization.scale, value);
    }
    int32_t low, high;
    klaus_int8_limits(s, &low, &high);
    const int32_t q = klaus_quantize(value, 1, s->out_quantization.zero);
    ((int8_t *)call->output)[at] = (int8_t)(q < low ? low : q > high ? high : q);
}
