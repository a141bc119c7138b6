#include <arm_neon.h>

#include "ops/dot/dot.h"

float dot_neon64(const float *a, const float *b, int count) {
    float32x4_t sum = vdupq_n_f32(0);
    for (int i = 0; i + 4 <= count; i += 4) {
        sum = vfmaq_f32(sum, vld1q_f32(a + i), vld1q_f32(b + i));
    }
    return vaddvq_f32(sum);
}
