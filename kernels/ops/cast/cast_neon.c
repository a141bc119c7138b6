/* Casts, eight or sixteen numbers at a time. */
#include "ops/cast/cast.h"
#include "ops/elements.h"
#include "ops/neon.h"
#include "ops/shape.h"

static bool can_f16(const klaus_shape *shape) {
    return klaus_cast_is_sound(shape, KLAUS_F16);
}

static void run_f16(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t i, end;
    klaus_share(klaus_shape_input_count(s, 0), 16, part, parts, &i, &end);
    if (s->in_dtype == KLAUS_F32) {
        const float *from = call->input[0];
        uint16_t *to = call->output;
        for (; i + 8 <= end; i += 8) {
            const float16x4_t low = vcvt_f16_f32(vld1q_f32(from + i)), high = vcvt_f16_f32(vld1q_f32(from + i + 4));
            vst1q_u16(to + i, vcombine_u16(vreinterpret_u16_f16(low), vreinterpret_u16_f16(high)));
        }
        klaus_elements_write(from + i, end - i, KLAUS_F16, NULL, to + i);
    } else {
        const uint16_t *from = call->input[0];
        float *to = call->output;
        for (; i + 8 <= end; i += 8) {
            const uint16x8_t halves = vld1q_u16(from + i);
            vst1q_f32(to + i, vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves))));
            vst1q_f32(to + i + 4, klaus_widen_high(vreinterpretq_u8_u16(halves)));
        }
        klaus_elements_read(from + i, KLAUS_F16, NULL, end - i, to + i);
    }
}

const klaus_variant klaus_cast_f16_neon = {
    .name = "klaus_cast_f16_neon",
    .op = KLAUS_OP_CAST,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can_f16,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run_f16,
};
