/* Softmax over the channels of each cell and batch row, the maximum subtracted. The output may be the input. */
#include <math.h>

#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_SOFTMAX && klaus_shape_is_f32(s) && s->in_channels > 0 && s->activation == KLAUS_LINEAR;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(klaus_at_least_one(s->batch) * klaus_at_least_one(s->in_rows) * klaus_at_least_one(s->in_cols), 1, part,
                parts, &begin, &end);
    for (int64_t cell = begin; cell < end; cell++) {
        const float *input = (const float *)call->input[0] + cell * s->in_channels;
        float *output = (float *)call->output + cell * s->in_channels;
        float largest = input[0];
        for (int32_t c = 1; c < s->in_channels; c++)
            largest = input[c] > largest ? input[c] : largest;
        double sum = 0;
        for (int32_t c = 0; c < s->in_channels; c++) {
            output[c] = expf(input[c] - largest);
            sum += output[c];
        }
        for (int32_t c = 0; c < s->in_channels; c++)
            output[c] = (float)(output[c] / sum);
    }
}

const klaus_variant klaus_softmax_f32_ref = {
    .name = "klaus_softmax_f32_ref",
    .op = KLAUS_OP_SOFTMAX,
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
