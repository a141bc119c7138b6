/* How a sum becomes an output: act(scale * sum + bias), the same in every scalar kernel. */
#ifndef KLAUS_OPS_FINISH_H
#define KLAUS_OPS_FINISH_H
#include "ops/op.h"

/* NaN stays NaN, as in NEON's FMAX and FMIN. */
static inline double klaus_activate(uint32_t activation, double value) {
    if (activation != KLAUS_LINEAR && value < 0)
        return 0;
    if (activation == KLAUS_RELU6 && value > 6)
        return 6;
    return value;
}

#endif
