/* Arithmetic on half-precision vectors, for files *_neon_fp16.c alone. Halves are uint16_t in memory: the type that all
 * targets know. */
#ifndef KLAUS_OPS_NEON_FP16_H
#define KLAUS_OPS_NEON_FP16_H
#include <arm_neon.h>

#include "klaus/format.h"

/* For loops over sums, which must end up in registers. */
#define KLAUS_UNROLL_ALL _Pragma("clang loop unroll(full)")

/* The most products that are summed in halves; longer sums go on in float32 (check/cases.c relies on it). */
#define KLAUS_HALF_TERMS 128

static inline float16x8_t klaus_load_8h(const uint16_t *from) {
    return vreinterpretq_f16_u16(vld1q_u16(from));
}

static inline void klaus_store_8h(uint16_t *to, float16x8_t value) {
    vst1q_u16(to, vreinterpretq_u16_f16(value));
}

static inline float16x8_t klaus_dup_8h(const uint16_t *from) {
    return vreinterpretq_f16_u16(vld1q_dup_u16(from));
}

static inline float16x8_t klaus_zero_8h(void) {
    return vreinterpretq_f16_u16(vdupq_n_u16(0));
}

static inline float32x4_t klaus_low_4s(float16x8_t halves) {
    return vcvt_f32_f16(vget_low_f16(halves));
}

static inline float32x4_t klaus_high_4s(float16x8_t halves) {
    return vcvt_high_f32_f16(halves);
}

static inline float16x8_t klaus_narrow_8h(float32x4_t low, float32x4_t high) {
    return vcvt_high_f16_f32(vcvt_f16_f32(low), high);
}

/* Loads and advances by `bytes`. */
static inline float16x8_t klaus_load_step_8h(const uint16_t **from, int64_t bytes) {
    float16x8_t value;
    __asm__("ld1 {%0.8h}, [%1], %2" : "=w"(value), "+r"(*from) : "r"(bytes), "m"(*(const uint16_t (*)[8]) * from));
    return value;
}

/* sum + vector * scalars[lane], one rounding; `lane` is a constant where it is inlined. */
__attribute__((always_inline)) static inline float16x8_t klaus_fma_lane_8h(float16x8_t sum, float16x8_t vector,
                                                                           float16x8_t scalars, const int lane) {
    switch (lane) {
    case 0:
        return vfmaq_laneq_f16(sum, vector, scalars, 0);
    case 1:
        return vfmaq_laneq_f16(sum, vector, scalars, 1);
    case 2:
        return vfmaq_laneq_f16(sum, vector, scalars, 2);
    case 3:
        return vfmaq_laneq_f16(sum, vector, scalars, 3);
    case 4:
        return vfmaq_laneq_f16(sum, vector, scalars, 4);
    case 5:
        return vfmaq_laneq_f16(sum, vector, scalars, 5);
    case 6:
        return vfmaq_laneq_f16(sum, vector, scalars, 6);
    default:
        return vfmaq_laneq_f16(sum, vector, scalars, 7);
    }
}

/* enum klaus_activation as two limits: max(low, min(high, x)), NaN kept. */
typedef struct klaus_limits_8h {
    float16x8_t low, high;
} klaus_limits_8h;

static inline klaus_limits_8h klaus_activation_limits_8h(uint32_t activation) {
    const klaus_limits_8h limits = {
        vreinterpretq_f16_u16(vdupq_n_u16(activation == KLAUS_LINEAR ? 0xfc00 : 0)),      /* -infinity */
        vreinterpretq_f16_u16(vdupq_n_u16(activation == KLAUS_RELU6 ? 0x4600 : 0x7c00))}; /* 6, infinity */
    return limits;
}

static inline float16x8_t klaus_limit_8h(float16x8_t x, klaus_limits_8h limits) {
    return vminq_f16(vmaxq_f16(x, limits.low), limits.high);
}

/* The pointer as a register of its own, not base plus offset. */
static inline const uint16_t *klaus_settled_half(const uint16_t *pointer) {
    __asm__("" : "+r"(pointer));
    return pointer;
}

/* One counter, up to zero, for all pointers: told nothing about it, the compiler does not advance each by itself. */
static inline intptr_t klaus_counted(intptr_t at) {
    __asm__("" : "+r"(at));
    return at;
}

/* Keeps the loads of one step from being joined with those of the next, for which there are no registers. */
static inline void klaus_step_ends(void) {
    __asm__ volatile("" ::: "memory");
}

#endif
