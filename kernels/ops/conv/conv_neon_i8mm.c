/* General convolution of int8 on the 8x12 matrix multiply micro-kernel. */
#include "ops/conv/conv_dot.h"
#include "ops/layouts.h"

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    klaus_conv_dot_run(call, phase, part, parts, &klaus_gemm_i8_neon_i8mm_8x12);
}

/* Not where the dot products need fewer instructions: a single pixel, which fills no pair of rows, and few channels of
 * which only fours, no eights, can be interleaved as they lie. */
static bool can(const klaus_shape *s) {
    if (!klaus_conv_dot_can(s) || (s->out_rows == 1 && s->out_cols == 1))
        return false;
    const bool fours = s->kernel_rows == 1 && s->kernel_cols == 1 && s->in_channels / s->groups % 8 == 4;
    return !fours || s->out_channels / s->groups >= 64;
}

const klaus_variant klaus_conv_i8_neon_i8mm_8x12 = {
    .name = "klaus_conv_i8_neon_i8mm_8x12",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON_I8MM,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_CONV_I8_EIGHTS_12,
    .phases = KLAUS_CONV_DOT_PHASES,
    .can = can,
    .packed_bytes = klaus_conv_dot_packed_bytes,
    .pack = klaus_conv_dot_pack_eights,
    .scratch_bytes = klaus_conv_dot_scratch_bytes,
    .run = run,
};
