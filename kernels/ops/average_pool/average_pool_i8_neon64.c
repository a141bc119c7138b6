/* int8 average pooling. */
#include "ops/pool_i8_neon64.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_AVERAGE_POOL && klaus_shape_is(s, KLAUS_I8) && klaus_pool_is_sound(s) &&
           s->in_channels >= 8 && (int64_t)s->kernel_rows * s->kernel_cols <= KLAUS_INT8_MOST_WEIGHTS;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_int8_target target = klaus_int8_target_of(s);
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    int8_t *output = (int8_t *)call->output + begin * s->out_cols * s->in_channels;
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < s->out_cols; j++, output += s->in_channels) {
            const klaus_window w = klaus_pool_window(s, i, j);
            klaus_pool_i8_cell(s, &target, &w, call->input[0], output, 0, s->in_channels);
        }
}

const klaus_variant klaus_average_pool_i8_neon = {
    .name = "klaus_average_pool_i8_neon",
    .op = KLAUS_OP_AVERAGE_POOL,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
