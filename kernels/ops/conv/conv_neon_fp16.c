/* General convolution of halves on the 7x24 micro-kernel. */
#include "ops/conv/conv_gemm_f16.h"
#include "ops/layouts.h"

const klaus_variant klaus_conv_f16_neon_fp16_7x24 = {
    .name = "klaus_conv_f16_neon_fp16_7x24",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_CONV_F16_PANELS_24,
    .phases = KLAUS_CONV_GEMM_F16_PHASES,
    .can = klaus_conv_gemm_f16_can,
    .packed_bytes = klaus_conv_gemm_f16_packed_bytes,
    .pack = klaus_conv_gemm_f16_pack,
    .scratch_bytes = klaus_conv_gemm_f16_scratch_bytes,
    .run = klaus_conv_gemm_f16_run,
};
