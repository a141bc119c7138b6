/* Full connect from canonical rows: on the 4x8 micro-kernel, and four dot products at a time. */
#include "ops/full_connect/full_connect.h"
#include "ops/full_connect_mapped/full_connect_mapped.h"
#include "ops/shape.h"

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_full_connect_mapped_scratch_bytes(shape, parts, klaus_gemm_f32_neon_4x8.width);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_full_connect_mapped_run(call, part, parts, &klaus_gemm_f32_neon_4x8);
}

const klaus_variant klaus_full_connect_mapped_f32_neon_4x8 = {
    .name = "klaus_full_connect_mapped_f32_neon_4x8",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_full_connect_is_sound,
    .lean = klaus_full_connect_mapped_lean,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

static void run_one(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_full_connect_mapped_one(call, part, parts);
}

/* For one row of input. */
const klaus_variant klaus_full_connect_mapped_f32_neon_1x4 = {
    .name = "klaus_full_connect_mapped_f32_neon_1x4",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_full_connect_mapped_one_can,
    .lean = klaus_full_connect_mapped_one_lean,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run_one,
};
