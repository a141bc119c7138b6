/* What the transforms of winograd_i8.h begin with. */
#ifndef KLAUS_OPS_WINOGRAD_I8_NEON64_H
#define KLAUS_OPS_WINOGRAD_I8_NEON64_H
#include "ops/neon.h"

/* A vector that the compiler does not know the value of, so that it multiplies and adds in one instruction where it
 * would shift and add. */
static inline int16x8_t klaus_unknown_s16(int16_t value) {
    int16x8_t vector = vdupq_n_s16(value);
    __asm__("" : "+w"(vector));
    return vector;
}

static inline int32x4_t klaus_unknown_s32(int32_t value) {
    int32x4_t vector = vdupq_n_s32(value);
    __asm__("" : "+w"(vector));
    return vector;
}

typedef struct klaus_winograd_i8_factors {
    int16x8_t two, four, five;
} klaus_winograd_i8_factors;

#endif
