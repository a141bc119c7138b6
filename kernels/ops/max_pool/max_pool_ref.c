/* Maximum over the window's cells inside the picture; NaN wins, as in NEON's FMAX. */
#include "ops/finish.h"
#include "ops/pool.h"
#include "ops/shape.h"

static bool can(const klaus_shape *shape) {
    return shape->op == KLAUS_OP_MAX_POOL && klaus_shape_is_f32(shape) && klaus_pool_is_sound(shape);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const float *input = call->input[0];
    float *output = call->output;
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < s->out_cols; j++) {
            const klaus_window w = klaus_pool_window(s, i, j);
            for (int64_t c = 0; c < s->in_channels; c++) {
                bool seen = false;
                float best = 0;
                for (int64_t y = w.top; y < w.bottom; y++)
                    for (int64_t x = w.left; x < w.right; x++) {
                        const float value = input[(y * s->in_cols + x) * s->in_channels + c];
                        if (!seen || value > best || value != value)
                            best = value;
                        seen = true;
                    }
                output[(i * s->out_cols + j) * s->in_channels + c] = (float)klaus_activate(s->activation, best);
            }
        }
}

const klaus_variant klaus_max_pool_f32_ref = {
    .name = "klaus_max_pool_f32_ref",
    .op = KLAUS_OP_MAX_POOL,
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
