/* Full connect as its definition says, sums in double. Takes every weight dtype. */
#include "ops/finish.h"
#include "ops/full_connect/full_connect.h"
#include "ops/int8.h"
#include "ops/shape.h"
#include "ops/weights.h"

/* One output's weights as float32, for each part. */
static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)klaus_shape_inputs_per_row(shape) * sizeof(float) * (uint64_t)parts;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_weights *weights = call->weights;
    const int64_t inputs = klaus_shape_inputs_per_row(s), batch = klaus_at_least_one(s->batch);
    float *row = (float *)call->scratch + inputs * part;
    float *output = call->output;
    int64_t begin, end;
    klaus_share(s->out_channels, 1, part, parts, &begin, &end);
    for (int64_t j = begin; j < end; j++) {
        klaus_weights_read(s, weights, j, 0, inputs, row);
        const double scale = weights->scale != NULL ? weights->scale[j] : 1.0;
        for (int64_t b = 0; b < batch; b++) {
            const float *x = (const float *)call->input[0] + b * inputs;
            double sum = 0;
            for (int64_t i = 0; i < inputs; i++)
                sum += (double)row[i] * x[i];
            output[b * s->out_channels + j] = (float)klaus_activate(s->activation, scale * sum + weights->bias[j]);
        }
    }
}

const klaus_variant klaus_full_connect_f32_ref = {
    .name = "klaus_full_connect_f32_ref",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_full_connect_is_sound,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

/* ---- int8: ops/int8.h ---- */

static bool can_i8(const klaus_shape *shape) {
    return klaus_full_connect_has_geometry(shape) && klaus_int8_fits(shape);
}

static uint64_t scratch_bytes_i8(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)klaus_shape_inputs_per_row(shape) * (uint64_t)parts;
}

static void run_i8(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_weights *weights = call->weights;
    const int64_t inputs = klaus_shape_inputs_per_row(s), batch = klaus_at_least_one(s->batch);
    int8_t *row = (int8_t *)call->scratch + inputs * part;
    int64_t begin, end;
    klaus_share(s->out_channels, 1, part, parts, &begin, &end);
    for (int64_t j = begin; j < end; j++) {
        const float step = klaus_int8_weight_step(s, weights, j);
        const float multiplier = klaus_int8_multiplier(s, weights, j, step);
        const float offset = klaus_int8_offset(s, weights, j);
        klaus_int8_weights_read(s, weights, j, step, 0, inputs, row);
        for (int64_t b = 0; b < batch; b++) {
            const int8_t *x = (const int8_t *)call->input[0] + b * inputs;
            int32_t sum = 0;
            for (int64_t i = 0; i < inputs; i++)
                sum += row[i] * (x[i] - s->in_quantization[0].zero);
            klaus_int8_finish(call, sum, multiplier, offset, b * s->out_channels + j);
        }
    }
}

const klaus_variant klaus_full_connect_i8_ref = {
    .name = "klaus_full_connect_i8_ref",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can_i8,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes_i8,
    .run = run_i8,
};
