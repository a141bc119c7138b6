#include "ops/pool_neon.h"

static bool can(const klaus_shape *shape) {
    return shape->op == KLAUS_OP_MAX_POOL && klaus_pool_neon_can(shape);
}

static float32x4_t fold(float32x4_t sum, float32x4_t value) {
    return vmaxq_f32(sum, value);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_pool_rows(call, part, parts, fold, false);
}

const klaus_variant klaus_max_pool_f32_neon = {
    .name = "klaus_max_pool_f32_neon",
    .op = KLAUS_OP_MAX_POOL,
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
