/* Sum of two int8 tensors, each of its own scale: one rounding behind those of float32. The output may be either
 * input. */
#include "ops/elements.h"
#include "ops/int8_neon64.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_ADD && klaus_shape_is(s, KLAUS_I8) && s->in_channels > 0;
}

/* Sixteen numbers, the zero taken off, times a factor. */
static inline void scaled(int8x16_t q, int16x8_t zero, float32x4_t factor, float32x4_t *values) {
    const int16x8_t low = vsubq_s16(vmovl_s8(vget_low_s8(q)), zero), high = vsubq_s16(vmovl_high_s8(q), zero);
    values[0] = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), factor);
    values[1] = vmulq_f32(vcvtq_f32_s32(vmovl_high_s16(low)), factor);
    values[2] = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), factor);
    values[3] = vmulq_f32(vcvtq_f32_s32(vmovl_high_s16(high)), factor);
}

static inline int8x16_t sum(const klaus_int8_target *target, const klaus_quantization *first, int8x16_t a, int8x16_t b,
                            float32x4_t factor) {
    float32x4_t values[4];
    scaled(a, vdupq_n_s16((int16_t)first->zero), factor, values);
    klaus_int8_add(target, b, values);
    return klaus_int8_rounded(target, values, false);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_int8_target target = klaus_int8_target_of(s);
    const klaus_quantization *first = &s->in_quantization[0];
    const float32x4_t factor = vdupq_n_f32(first->scale / s->out_quantization.scale);
    const int8_t *a = call->input[0], *b = call->input[1];
    int8_t *output = call->output;
    int64_t i, end;
    klaus_share(klaus_shape_input_count(s, 0), 16, part, parts, &i, &end);
    for (; i + 16 <= end; i += 16)
        vst1q_s8(output + i, sum(&target, first, vld1q_s8(a + i), vld1q_s8(b + i), factor));
    if (i < end) {
        const int32_t count = (int32_t)(end - i);
        const int8x16_t left = klaus_int8_load_some(a + i, count), right = klaus_int8_load_some(b + i, count);
        klaus_int8_store_some(output + i, sum(&target, first, left, right, factor), count);
    }
}

const klaus_variant klaus_add_i8_neon = {
    .name = "klaus_add_i8_neon",
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
