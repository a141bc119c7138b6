/* Average over all rows and columns: float32 HWC -> [channels]. */
#include "ops/finish.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_GLOBAL_POOL && klaus_shape_is_f32(s) && s->batch <= 1 && s->in_rows > 0 &&
           s->in_cols > 0 && s->in_channels > 0 && s->out_channels == s->in_channels;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const float *input = call->input[0];
    float *output = call->output;
    const int64_t cells = (int64_t)s->in_rows * s->in_cols;
    int64_t begin, end;
    klaus_share(s->in_channels, 1, part, parts, &begin, &end);
    for (int64_t c = begin; c < end; c++) {
        double sum = 0;
        for (int64_t i = 0; i < cells; i++)
            sum += input[i * s->in_channels + c];
        output[c] = (float)klaus_activate(s->activation, sum / (double)cells);
    }
}

const klaus_variant klaus_global_pool_f32_ref = {
    .name = "klaus_global_pool_f32_ref",
    .op = KLAUS_OP_GLOBAL_POOL,
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
