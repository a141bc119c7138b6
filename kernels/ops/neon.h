/* NEON as aarch64 and armv7 share it: what differs between the two is here and nowhere else in ops/. */
#ifndef KLAUS_OPS_NEON_H
#define KLAUS_OPS_NEON_H
#include <arm_neon.h>

#if defined(__aarch64__)

/* Three vectors that lie side by side, by one instruction that advances its pointer as well. In registers of their
 * own, always the same: left to the compiler, three neighbours among 32 in use make it move the others about. */
static inline void klaus_load_3(float32x4_t *to, const float **from) {
    register float32x4_t first __asm__("v0");
    register float32x4_t second __asm__("v1");
    register float32x4_t third __asm__("v2");
    __asm__ volatile("ld1 {%0.4s, %1.4s, %2.4s}, [%3], #48"
                     : "=w"(first), "=w"(second), "=w"(third), "+r"(*from)
                     :
                     : "memory");
    to[0] = first;
    to[1] = second;
    to[2] = third;
}
/* Loads and advances by `bytes`. */
static inline float32x4_t klaus_load_step(const float **from, int64_t bytes) {
    float32x4_t value;
    __asm__("ld1 {%0.4s}, [%1], %2" : "=w"(value), "+r"(*from) : "r"(bytes), "m"(*(const float (*)[4]) * from));
    return value;
}
/* Stores and advances by `step` floats. */
static inline void klaus_store_step(float **to, float32x4_t value, int64_t step) {
    __asm__ volatile("st1 {%1.4s}, [%0], %2" : "+r"(*to) : "w"(value), "r"(step * (int64_t)sizeof(float)) : "memory");
}
/* sum + vector * scalar[lane], one rounding */
static inline float32x4_t klaus_fma_lane0(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vfmaq_laneq_f32(sum, vector, scalars, 0);
}
static inline float32x4_t klaus_fma_lane1(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vfmaq_laneq_f32(sum, vector, scalars, 1);
}
static inline float32x4_t klaus_fma_lane2(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vfmaq_laneq_f32(sum, vector, scalars, 2);
}
static inline float32x4_t klaus_fma_lane3(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vfmaq_laneq_f32(sum, vector, scalars, 3);
}
/* The upper four of eight halves to floats; in assembly, as the intrinsic on what came as bytes becomes two
 * instructions. */
static inline float32x4_t klaus_widen_high(uint8x16_t halves) {
    float32x4_t floats;
    __asm__("fcvtl2 %0.4s, %1.8h" : "=w"(floats) : "w"(halves));
    return floats;
}
/* For each byte of `indices` (below 16) the table's byte. */
static inline uint8x16_t klaus_table16(uint8x16_t table, uint8x16_t indices) {
    return vqtbl1q_u8(table, indices);
}

/* Settles two sums: what comes before is not mixed with what comes behind, for which there are no registers. */
static inline void klaus_settle(float32x4_t *first, float32x4_t *second) {
    __asm__ volatile("" : "+w"(*first), "+w"(*second) : : "memory");
}

#else

static inline void klaus_load_3(float32x4_t *to, const float **from) {
    for (int v = 0; v < 3; v++, *from += 4)
        to[v] = vld1q_f32(*from);
}
static inline float32x4_t klaus_load_step(const float **from, int64_t bytes) {
    const float32x4_t value = vld1q_f32(*from);
    *from += bytes / (int64_t)sizeof(float);
    return value;
}
static inline void klaus_store_step(float **to, float32x4_t value, int64_t step) {
    vst1q_f32(*to, value);
    *to += step;
}
/* armv7 multiplies by a lane only with a rounding between (VMLA); VFMA there takes no lane. */
static inline float32x4_t klaus_fma_lane0(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vmlaq_lane_f32(sum, vector, vget_low_f32(scalars), 0);
}
static inline float32x4_t klaus_fma_lane1(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vmlaq_lane_f32(sum, vector, vget_low_f32(scalars), 1);
}
static inline float32x4_t klaus_fma_lane2(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vmlaq_lane_f32(sum, vector, vget_high_f32(scalars), 0);
}
static inline float32x4_t klaus_fma_lane3(float32x4_t sum, float32x4_t vector, float32x4_t scalars) {
    return vmlaq_lane_f32(sum, vector, vget_high_f32(scalars), 1);
}
static inline float32x4_t klaus_widen_high(uint8x16_t halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vget_high_u8(halves)));
}
static inline void klaus_settle(float32x4_t *first, float32x4_t *second) {
    (void)first;
    (void)second;
}
static inline uint8x16_t klaus_table16(uint8x16_t table, uint8x16_t indices) {
    const uint8x8x2_t halves = {{vget_low_u8(table), vget_high_u8(table)}};
    return vcombine_u8(vtbl2_u8(halves, vget_low_u8(indices)), vtbl2_u8(halves, vget_high_u8(indices)));
}

#endif

/* 1 / sqrt(x) for 0 < x < 1e38, to about two units in the last place: the estimate and two Newton steps. */
static inline float32x4_t klaus_inverse_sqrt(float32x4_t x) {
    float32x4_t estimate = vrsqrteq_f32(x);
    estimate = vmulq_f32(estimate, vrsqrtsq_f32(vmulq_f32(x, estimate), estimate));
    return vmulq_f32(estimate, vrsqrtsq_f32(vmulq_f32(x, estimate), estimate));
}

/* enum klaus_activation as two limits: max(low, min(high, x)), NaN kept. */
typedef struct klaus_limits {
    float32x4_t low, high;
} klaus_limits;

static inline klaus_limits klaus_activation_limits(uint32_t activation) {
    const float infinity = __builtin_inff();
    const klaus_limits limits = {vdupq_n_f32(activation == 0 ? -infinity : 0.0f),
                                 vdupq_n_f32(activation == 2 ? 6.0f : infinity)};
    return limits;
}

static inline float32x4_t klaus_limit(float32x4_t x, klaus_limits limits) {
    return vminq_f32(vmaxq_f32(x, limits.low), limits.high);
}

#endif
