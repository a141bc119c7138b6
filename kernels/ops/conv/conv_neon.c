/* General convolution on the 4x8 micro-kernel. */
#include "ops/conv/conv_gemm.h"
#include "ops/layouts.h"

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_conv_gemm_pack(shape, weights, packed, klaus_gemm_f32_neon_4x8.width);
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_conv_gemm_scratch_bytes(shape, parts, klaus_gemm_f32_neon_4x8.rows);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    klaus_conv_gemm_run(call, phase, part, parts, &klaus_gemm_f32_neon_4x8);
}

const klaus_variant klaus_conv_f32_neon_4x8 = {
    .name = "klaus_conv_f32_neon_4x8",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_CONV_F32_PANELS_8,
    .phases = KLAUS_CONV_GEMM_PHASES,
    .can = klaus_conv_gemm_can,
    .packed_bytes = klaus_conv_gemm_packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
