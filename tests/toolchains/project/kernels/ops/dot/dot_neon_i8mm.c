#include <arm_neon.h>

#include "ops/dot/dot.h"

int dot_int8_i8mm(const signed char *a, const signed char *b) {
    const int32x4_t product = vmmlaq_s32(vdupq_n_s32(0), vld1q_s8(a), vld1q_s8(b));
    return vgetq_lane_s32(product, 0) + vgetq_lane_s32(product, 3);
}
