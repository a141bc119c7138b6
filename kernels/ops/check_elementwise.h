/* Shapes for ops that work number by number. */
#ifndef KLAUS_OPS_CHECK_ELEMENTWISE_H
#define KLAUS_OPS_CHECK_ELEMENTWISE_H
#include "check/cases.h"

static inline void klaus_check_elementwise_shape(int32_t index, klaus_random *random, klaus_shape *s) {
    s->batch = 1;
    s->in_rows = s->out_rows = klaus_random_int(random, 1, 5);
    s->in_cols = s->out_cols = klaus_random_int(random, 1, 5);
    s->in_channels = s->out_channels = klaus_random_int(random, 1, 37);
    s->activation = (uint32_t)(index % 3);
}

static inline bool klaus_check_elementwise_bench(int32_t index, uint32_t op, klaus_shape *s) {
    s->op = op;
    s->batch = 1;
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 28;
    s->in_channels = s->out_channels = 144;
    s->activation = KLAUS_RELU6;
    return index == 0;
}

#endif
