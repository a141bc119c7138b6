/* The end of every int8 kernel of aarch64: exact sums to int8 results, sixteen channels at a time, to the bit as
 * ops/int8.h says. */
#ifndef KLAUS_OPS_INT8_NEON64_H
#define KLAUS_OPS_INT8_NEON64_H
#include "ops/int8.h"
#include "ops/neon.h"

/* Channels of a block. */
#define KLAUS_INT8_BLOCK 16
#define KLAUS_INT8_UNROLLED _Pragma("clang loop unroll(full)")

/* What is the same for all channels of a call. */
typedef struct klaus_int8_target {
    int16x8_t zero;      /* of the output */
    int8x16_t low, high; /* limits */
    bool plain;          /* zero is -128, and int8's own ends are the limits: so after ReLU */
    bool limited;        /* the limits are not int8's own ends */
    int16_t addend_zero;
    float addend_factor;
} klaus_int8_target;

static inline klaus_int8_target klaus_int8_target_of(const klaus_shape *shape) {
    int32_t low, high;
    klaus_int8_limits(shape, &low, &high);
    const bool limited = low != -128 || high != 127;
    return (klaus_int8_target){
        .zero = vdupq_n_s16((int16_t)shape->out_quantization.zero),
        .low = vdupq_n_s8((int8_t)low),
        .high = vdupq_n_s8((int8_t)high),
        .plain = shape->out_quantization.zero == -128 && !limited,
        .limited = limited,
        .addend_zero = (int16_t)shape->in_quantization[1].zero,
        .addend_factor = shape->in_quantization[1].scale / shape->out_quantization.scale,
    };
}

/* Multiplier and offset of `count` channels from `first` on, zeros behind them up to `room`, a multiple of four.
 * `steps` are the channels' klaus_int8_weight_step(). */
static inline void klaus_int8_head(const klaus_call *call, int64_t first, int32_t count, int32_t room,
                                   const float *steps, float *multiplier, float *offset) {
    const bool int8 = call->shape->out_dtype == KLAUS_I8;
    const float32x4_t in = vdupq_n_f32(call->shape->in_quantization[0].scale);
    const float32x4_t out = vdupq_n_f32(call->shape->out_quantization.scale);
    const float *scale = call->weights->scale, *bias = call->weights->bias, *correction = call->weights->correction;
    int32_t c = 0;
    for (; c + 4 <= count; c += 4) { /* klaus_int8_multiplier() and klaus_int8_offset(), four at a time */
        const float32x4_t own = scale != NULL ? vld1q_f32(scale + first + c) : vdupq_n_f32(1);
        const float32x4_t factor = vmulq_f32(vmulq_f32(in, vld1q_f32(steps + c)), own);
        float32x4_t start = vld1q_f32(bias + first + c);
        if (correction != NULL) {
            start = vaddq_f32(start, vld1q_f32(correction + first + c));
        }
        vst1q_f32(multiplier + c, int8 ? vdivq_f32(factor, out) : factor);
        vst1q_f32(offset + c, int8 ? vdivq_f32(start, out) : start);
    }
    for (; c < room; c++) {
        multiplier[c] = c < count ? klaus_int8_multiplier(call->shape, call->weights, first + c, steps[c]) : 0;
        offset[c] = c < count ? klaus_int8_offset(call->shape, call->weights, first + c) : 0;
    }
}

/* Loaded where it is added to, always anew: kept in a register it would have to be copied each time, as FMLA adds in
 * place. */
static inline float32x4_t klaus_int8_fresh(const float *from) {
    float32x4_t value;
    __asm__ volatile("ldr %q0, %1" : "=w"(value) : "Q"(*(const float (*)[4])from));
    return value;
}

/* float(sum) * multiplier + offset, one rounding behind that of the conversion. */
static inline float32x4_t klaus_int8_value(int32x4_t sum, float32x4_t multiplier, const float *offset) {
    return vfmaq_f32(klaus_int8_fresh(offset), vcvtq_f32_s32(sum), multiplier);
}

/* Adds sixteen addends. */
static inline void klaus_int8_add(const klaus_int8_target *target, int8x16_t q, float32x4_t *values) {
    const int16x8_t zero = vdupq_n_s16(target->addend_zero);
    const int16x8_t low = vsubq_s16(vmovl_s8(vget_low_s8(q)), zero), high = vsubq_s16(vmovl_high_s8(q), zero);
    const float32x4_t factor = vdupq_n_f32(target->addend_factor);
    values[0] = vfmaq_f32(values[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), factor);
    values[1] = vfmaq_f32(values[1], vcvtq_f32_s32(vmovl_high_s16(low)), factor);
    values[2] = vfmaq_f32(values[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), factor);
    values[3] = vfmaq_f32(values[3], vcvtq_f32_s32(vmovl_high_s16(high)), factor);
}

/* Sixteen values to integers within the limits. `plain` is a constant where it is inlined. A value beyond 32 bits
 * saturates on the way, as it does later. */
static inline int8x16_t klaus_int8_rounded(const klaus_int8_target *target, const float32x4_t *values,
                                           const bool plain) {
    const int16x8_t low = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(values[0])), vcvtnq_s32_f32(values[1]));
    const int16x8_t high = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(values[2])), vcvtnq_s32_f32(values[3]));
    if (plain) /* 0 .. 255, and 128 less */
        return vreinterpretq_s8_u8(veorq_u8(vqmovun_high_s16(vqmovun_s16(low), high), vdupq_n_u8(0x80)));
    const int8x16_t q = vqmovn_high_s16(vqmovn_s16(vqaddq_s16(low, target->zero)), vqaddq_s16(high, target->zero));
    return target->limited ? vminq_s8(vmaxq_s8(q, target->low), target->high) : q;
}

/* The first `count` of sixteen. */
static inline void klaus_int8_store_some(int8_t *to, int8x16_t values, int32_t count) {
    int8_t all[16];
    vst1q_s8(all, values);
    for (int32_t c = 0; c < count; c++)
        to[c] = all[c];
}

static inline int8x16_t klaus_int8_load_some(const int8_t *from, int32_t count) {
    int8_t all[16] = {0};
    for (int32_t c = 0; c < count; c++)
        all[c] = from[c];
    return vld1q_s8(all);
}

/* The rare end, with an addend or of fewer than sixteen channels: the first `count` of 4 * quads sums to results. */
static inline void klaus_int8_finish_some(const klaus_int8_target *target, const int32x4_t *sums, int32_t quads,
                                          const float *multiplier, const float *offset, const int8_t *addend,
                                          int8_t *output, int32_t count) {
    float32x4_t values[4];
    for (int32_t q = 0; q < 4; q++)
        values[q] =
            q < quads ? klaus_int8_value(sums[q], vld1q_f32(multiplier + 4 * q), offset + 4 * q) : vdupq_n_f32(0);
    if (addend != NULL)
        klaus_int8_add(target, klaus_int8_load_some(addend, count), values);
    klaus_int8_store_some(output, klaus_int8_rounded(target, values, false), count);
}

#endif
