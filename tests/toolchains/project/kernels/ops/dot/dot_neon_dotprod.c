#include <arm_neon.h>

#include "ops/dot/dot.h"

int dot_int8(const signed char *a, const signed char *b) {
    return vaddvq_s32(vdotq_s32(vdupq_n_s32(0), vld1q_s8(a), vld1q_s8(b)));
}
