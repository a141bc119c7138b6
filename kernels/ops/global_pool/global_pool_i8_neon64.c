/* int8 average over all cells: one window as large as the map. */
#include "ops/pool_i8_neon64.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_GLOBAL_POOL && klaus_shape_is(s, KLAUS_I8) && s->batch <= 1 && s->in_rows > 0 &&
           s->in_cols > 0 && s->in_channels >= 8 && s->out_channels == s->in_channels &&
           (int64_t)s->in_rows * s->in_cols <= KLAUS_INT8_MOST_WEIGHTS;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_int8_target target = klaus_int8_target_of(s);
    const klaus_window all = {.top = 0, .bottom = s->in_rows, .left = 0, .right = s->in_cols};
    int64_t begin, end; /* only the last part has an edge; another may write the same numbers beside it */
    klaus_share(s->in_channels, 8, part, parts, &begin, &end);
    klaus_pool_i8_cell(s, &target, &all, call->input[0], call->output, begin, end);
}

const klaus_variant klaus_global_pool_i8_neon = {
    .name = "klaus_global_pool_i8_neon",
    .op = KLAUS_OP_GLOBAL_POOL,
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
