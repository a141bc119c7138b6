/* The activation alone. The output may be the input. */
#include "ops/finish.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_ACTIVATION && klaus_shape_is_f32(s) && s->in_channels > 0;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const float *input = call->input[0];
    float *output = call->output;
    int64_t begin, end;
    klaus_share(klaus_shape_input_count(call->shape, 0), 16, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        output[i] = (float)klaus_activate(call->shape->activation, input[i]);
}

const klaus_variant klaus_activation_f32_ref = {
    .name = "klaus_activation_f32_ref",
    .op = KLAUS_OP_ACTIVATION,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
