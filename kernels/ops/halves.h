/* Weights that become halves: whether a channel's fit as they are. */
#ifndef KLAUS_OPS_HALVES_H
#define KLAUS_OPS_HALVES_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The exponent of a positive number: 2^e <= x < 2^(e + 1); -127 for all below 2^-126. */
static inline int klaus_exponent_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (int)(bits >> 23 & 255) - 127;
}

/* What a channel's weights are to be divided by, a power of two; 1: nothing, they are halves as they are, and so is the
 * bias. `largest` is the size of the channel's largest weight, `of_layer` of the layer's, scales included. From 2^-8 to
 * 64 the layer's largest weight is 2^17 times the error of a subnormal half and more, and sums have room above them: a
 * channel of far smaller weights, as training leaves some, adds nothing beside its bias. Others are brought to 0.5
 * .. 1.
 */
static inline float klaus_half_scale(float largest, float of_layer, float bias) {
    const bool fits = largest == 0 || (of_layer >= 0.000244140625f && largest <= 64);
    if ((fits && fabsf(bias) <= 4096) || !isfinite(largest))
        return 1;
    const int exponent = largest != 0 ? klaus_exponent_of(largest) : 0;
    return ldexpf(1, exponent != 0 ? exponent : 1);
}

#endif
