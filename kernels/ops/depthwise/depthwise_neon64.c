/* Depthwise convolution, for 3x3 two output rows at a time, which share input rows and keep six sums under way; 5x5
 * needs 25 registers for its weights, so one row. */
#include "ops/depthwise/depthwise_line_neon.h"
#include "ops/layouts.h"

__attribute__((noinline)) static void run_3x3(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 3, 1, 2);
}

__attribute__((noinline)) static void run_3x3_stride_2(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 3, 2, 2);
}

__attribute__((noinline)) static void run_5x5(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 5, 1, 1);
}

__attribute__((noinline)) static void run_5x5_stride_2(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 5, 2, 1);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    if (s->kernel_rows == 3 && s->stride_rows == 1)
        run_3x3(call, part, parts);
    else if (s->kernel_rows == 3)
        run_3x3_stride_2(call, part, parts);
    else if (s->stride_rows == 1)
        run_5x5(call, part, parts);
    else
        run_5x5_stride_2(call, part, parts);
}

const klaus_variant klaus_depthwise_f32_neon_2x4 = {
    .name = "klaus_depthwise_f32_neon_2x4",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_DEPTHWISE_F32,
    .phases = 1,
    .can = klaus_depthwise_can,
    .packed_bytes = klaus_depthwise_packed_bytes,
    .pack = klaus_depthwise_pack,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
