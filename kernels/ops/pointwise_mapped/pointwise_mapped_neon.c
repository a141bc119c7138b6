/* Pointwise convolution from canonical rows on the 4x8 micro-kernel. */
#include "ops/pointwise_mapped/pointwise_mapped.h"
#include "ops/shape.h"

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_pointwise_mapped_scratch_bytes(shape, parts, klaus_gemm_f32_neon_4x8.width);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_pointwise_mapped_run(call, part, parts, &klaus_gemm_f32_neon_4x8);
}

const klaus_variant klaus_pointwise_mapped_f32_neon_4x8 = {
    .name = "klaus_pointwise_mapped_f32_neon_4x8",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_pointwise_mapped_can,
    .lean = klaus_pointwise_mapped_lean,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
