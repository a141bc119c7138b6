/* Sum of two tensors of halves, then the activation. The output may be either input. */
#include "ops/neon_fp16.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_ADD && klaus_shape_is(s, KLAUS_F16) && s->in_channels > 0;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const uint16_t *a = call->input[0], *b = call->input[1];
    uint16_t *output = call->output;
    const klaus_limits_8h limits = klaus_activation_limits_8h(call->shape->activation);
    int64_t i, end;
    klaus_share(klaus_shape_input_count(call->shape, 0), 32, part, parts, &i, &end);
    for (; i + 16 <= end; i += 16) {
        const float16x8_t low = vaddq_f16(klaus_load_8h(a + i), klaus_load_8h(b + i));
        const float16x8_t high = vaddq_f16(klaus_load_8h(a + i + 8), klaus_load_8h(b + i + 8));
        klaus_store_8h(output + i, klaus_limit_8h(low, limits));
        klaus_store_8h(output + i + 8, klaus_limit_8h(high, limits));
    }
    for (; i < end; i++) {
        const float16x8_t sum = klaus_limit_8h(vaddq_f16(klaus_dup_8h(a + i), klaus_dup_8h(b + i)), limits);
        vst1q_lane_u16(output + i, vreinterpretq_u16_f16(sum), 0);
    }
}

const klaus_variant klaus_add_f16_neon_fp16 = {
    .name = "klaus_add_f16_neon_fp16",
    .op = KLAUS_OP_ADD,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
