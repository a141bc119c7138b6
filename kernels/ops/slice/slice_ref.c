/* Channels begin .. begin + out_channels - 1 of each cell, then the activation. */
#include "ops/finish.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_SLICE && klaus_shape_is_f32(s) && s->begin >= 0 && s->out_channels > 0 &&
           (int64_t)s->begin + s->out_channels <= s->in_channels;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(klaus_at_least_one(s->batch) * klaus_at_least_one(s->in_rows) * klaus_at_least_one(s->in_cols), 1, part,
                parts, &begin, &end);
    for (int64_t cell = begin; cell < end; cell++) {
        const float *input = (const float *)call->input[0] + cell * s->in_channels + s->begin;
        float *output = (float *)call->output + cell * s->out_channels;
        for (int32_t c = 0; c < s->out_channels; c++)
            output[c] = (float)klaus_activate(s->activation, input[c]);
    }
}

const klaus_variant klaus_slice_f32_ref = {
    .name = "klaus_slice_f32_ref",
    .op = KLAUS_OP_SLICE,
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
