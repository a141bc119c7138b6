/* Sum of two tensors, then the activation. The output may be either input. */
#include "ops/neon.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_ADD && klaus_shape_is_f32(s) && s->in_channels > 0;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const float *a = call->input[0], *b = call->input[1];
    float *output = call->output;
    const klaus_limits limits = klaus_activation_limits(call->shape->activation);
    int64_t i, end;
    klaus_share(klaus_shape_input_count(call->shape, 0), 16, part, parts, &i, &end);
    for (; i + 8 <= end; i += 8) {
        const float32x4_t low = vaddq_f32(vld1q_f32(a + i), vld1q_f32(b + i));
        const float32x4_t high = vaddq_f32(vld1q_f32(a + i + 4), vld1q_f32(b + i + 4));
        vst1q_f32(output + i, klaus_limit(low, limits));
        vst1q_f32(output + i + 4, klaus_limit(high, limits));
    }
    for (; i < end; i++)
        vst1q_lane_f32(output + i, klaus_limit(vaddq_f32(vld1q_dup_f32(a + i), vld1q_dup_f32(b + i)), limits), 0);
}

const klaus_variant klaus_add_f32_neon = {
    .name = "klaus_add_f32_neon",
    .op = KLAUS_OP_ADD,
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
