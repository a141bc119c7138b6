#include <arm_neon.h>

#include "ops/dot/dot.h"

float dot_neon(const float *a, const float *b, int count) {
    float32x4_t sum = vdupq_n_f32(0);
    for (int i = 0; i + 4 <= count; i += 4) {
        sum = vfmaq_f32(sum, vld1q_f32(a + i), vld1q_f32(b + i));
    }
    return vgetq_lane_f32(sum, 0) + vgetq_lane_f32(sum, 1) + vgetq_lane_f32(sum, 2) + vgetq_lane_f32(sum, 3);
}
