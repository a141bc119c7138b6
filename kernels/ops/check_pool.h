/* Shapes for both pools. */
#ifndef KLAUS_OPS_CHECK_POOL_H
#define KLAUS_OPS_CHECK_POOL_H
#include "check/cases.h"

static inline void klaus_check_pool_shape(int32_t index, klaus_random *random, klaus_shape *s) {
    static const int32_t channels[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 32, 33};
    const int32_t kernel = klaus_random_int(random, 1, 4), pad = klaus_random_int(random, 0, kernel - 1);
    s->batch = 1;
    s->in_channels = s->out_channels = channels[klaus_random_int(random, 0, 12)];
    s->in_rows = kernel + klaus_random_int(random, 0, 8);
    s->in_cols = kernel + klaus_random_int(random, 0, 11);
    s->kernel_rows = kernel;
    s->kernel_cols = klaus_random_int(random, 0, 4) == 0 ? 1 : kernel;
    s->stride_rows = s->stride_cols = klaus_random_int(random, 1, 3);
    s->pad_top = pad;
    s->pad_left = s->kernel_cols == 1 ? 0 : klaus_random_int(random, 0, pad);
    s->out_rows = (s->in_rows + 2 * pad - s->kernel_rows) / s->stride_rows + 1;
    s->out_cols = (s->in_cols + s->pad_left - s->kernel_cols) / s->stride_cols + 1;
    s->activation = index % 5 == 4 ? KLAUS_RELU : KLAUS_LINEAR;
}

static inline bool klaus_check_pool_bench(int32_t index, uint32_t op, klaus_shape *s) {
    if (index > 0)
        return false;
    s->op = op;
    s->batch = 1;
    s->in_rows = s->in_cols = 55;
    s->in_channels = s->out_channels = 96;
    s->kernel_rows = s->kernel_cols = 3;
    s->stride_rows = s->stride_cols = 2;
    s->out_rows = s->out_cols = 27;
    return true;
}

#endif
