/* Tensors of one height and width beside each other along the channels, then the activation. */
#include "ops/finish.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    if (s->op != KLAUS_OP_CONCAT || !klaus_shape_is_f32(s) || s->input_count < 1 || s->input_count > KLAUS_MAX_INPUTS)
        return false;
    int64_t channels = 0;
    for (int32_t n = 0; n < s->input_count; n++) {
        if (s->input_channels[n] <= 0)
            return false;
        channels += s->input_channels[n];
    }
    return channels == s->out_channels;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(klaus_at_least_one(s->batch) * klaus_at_least_one(s->in_rows) * klaus_at_least_one(s->in_cols), 1, part,
                parts, &begin, &end);
    for (int64_t cell = begin; cell < end; cell++) {
        float *output = (float *)call->output + cell * s->out_channels;
        for (int32_t n = 0; n < s->input_count; n++) {
            const float *input = (const float *)call->input[n] + cell * s->input_channels[n];
            for (int32_t c = 0; c < s->input_channels[n]; c++)
                *output++ = (float)klaus_activate(s->activation, input[c]);
        }
    }
}

const klaus_variant klaus_concat_f32_ref = {
    .name = "klaus_concat_f32_ref",
    .op = KLAUS_OP_CONCAT,
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
