/* Casts to and from int8: aarch64 rounds to nearest in the conversion itself, armv7 does not. */
#include "ops/cast/cast.h"
#include "ops/elements.h"
#include "ops/neon.h"
#include "ops/shape.h"

static bool can(const klaus_shape *shape) {
    return klaus_cast_is_sound(shape, KLAUS_I8);
}

static int64_t quantize(const float *from, int8_t *to, int64_t count, const klaus_quantization *quantization) {
    const float32x4_t inverse = vdupq_n_f32(1 / quantization->scale);
    const int16x8_t zero = vdupq_n_s16((int16_t)quantization->zero);
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        int32x4_t q[4];
        for (int n = 0; n < 4; n++)
            q[n] = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(from + i + 4 * n), inverse));
        const int16x8_t low = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(q[0]), q[1]), zero);
        const int16x8_t high = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(q[2]), q[3]), zero);
        vst1q_s8(to + i, vqmovn_high_s16(vqmovn_s16(low), high));
    }
    return i;
}

static int64_t widen(const int8_t *from, float *to, int64_t count, const klaus_quantization *quantization) {
    const float32x4_t scale = vdupq_n_f32(quantization->scale);
    const int16x8_t zero = vdupq_n_s16((int16_t)quantization->zero);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const int16x8_t q = vsubq_s16(vmovl_s8(vld1_s8(from + i)), zero);
        vst1q_f32(to + i, vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), scale));
        vst1q_f32(to + i + 4, vmulq_f32(vcvtq_f32_s32(vmovl_high_s16(q)), scale));
    }
    return i;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(klaus_shape_input_count(s, 0), 16, part, parts, &begin, &end);
    if (s->in_dtype == KLAUS_F32) {
        const float *from = (const float *)call->input[0] + begin;
        int8_t *to = (int8_t *)call->output + begin;
        const int64_t done = quantize(from, to, end - begin, &s->out_quantization);
        klaus_elements_write(from + done, end - begin - done, KLAUS_I8, &s->out_quantization, to + done);
    } else {
        const int8_t *from = (const int8_t *)call->input[0] + begin;
        float *to = (float *)call->output + begin;
        const int64_t done = widen(from, to, end - begin, &s->in_quantization[0]);
        klaus_elements_read(from + done, KLAUS_I8, &s->in_quantization[0], end - begin - done, to + done);
    }
}

const klaus_variant klaus_cast_i8_neon = {
    .name = "klaus_cast_i8_neon",
    .op = KLAUS_OP_CAST,
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
