/* General convolution on the 7x12 micro-kernel. */
#include "ops/conv/conv_packed.h"
#include "ops/layouts.h"

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_conv_packed_pack(shape, weights, packed, klaus_gemm_f32_neon_packed_7x12.width);
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_conv_packed_scratch_bytes(shape, parts, &klaus_gemm_f32_neon_packed_7x12);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    klaus_conv_packed_run(call, phase, part, parts, &klaus_gemm_f32_neon_packed_7x12);
}

const klaus_variant klaus_conv_f32_neon_7x12 = {
    .name = "klaus_conv_f32_neon_7x12",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_CONV_F32_SCALED_12,
    .phases = KLAUS_CONV_PACKED_PHASES,
    .can = klaus_conv_packed_can,
    .packed_bytes = klaus_conv_packed_packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
