#include <arm_neon.h>

#include "ops/dot/dot.h"

float dot_fp16(const float *a, const float *b, int count) {
    float16x4_t sum = vdup_n_f16(0);
    for (int i = 0; i + 4 <= count; i += 4) {
        sum = vfma_f16(sum, vcvt_f16_f32(vld1q_f32(a + i)), vcvt_f16_f32(vld1q_f32(b + i)));
    }
    return vaddvq_f32(vcvt_f32_f16(sum));
}
