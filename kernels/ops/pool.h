/* What the windows of max_pool and average_pool have in common.
 *
 * Output (i, j) looks at rows i*stride_rows - pad_top .. + kernel_rows - 1 and columns likewise, at the cells inside
 * the picture only. A window wholly outside gives 0 (the planner refuses such shapes for average pooling, where ccv
 * would give NaN). float32 HWC, 4-byte aligned; the activation is applied to the result. */
#ifndef KLAUS_OPS_POOL_H
#define KLAUS_OPS_POOL_H
#include "ops/op.h"

/* The window of one output, clipped to the picture: rows top .. bottom - 1, columns left .. right - 1. */
typedef struct klaus_window {
    int64_t top, bottom, left, right;
} klaus_window;

static inline klaus_window klaus_pool_window(const klaus_shape *s, int64_t i, int64_t j) {
    klaus_window w;
    w.top = i * s->stride_rows - s->pad_top;
    w.left = j * s->stride_cols - s->pad_left;
    w.bottom = w.top + s->kernel_rows;
    w.right = w.left + s->kernel_cols;
    w.top = w.top < 0 ? 0 : w.top;
    w.left = w.left < 0 ? 0 : w.left;
    w.bottom = w.bottom > s->in_rows ? s->in_rows : w.bottom;
    w.right = w.right > s->in_cols ? s->in_cols : w.right;
    return w;
}

static inline bool klaus_pool_is_sound(const klaus_shape *s) {
    return s->batch <= 1 && s->in_rows > 0 && s->in_cols > 0 && s->in_channels > 0 && s->out_rows > 0 &&
           s->out_cols > 0 && s->out_channels == s->in_channels && s->kernel_rows > 0 && s->kernel_cols > 0 &&
           s->stride_rows > 0 && s->stride_cols > 0;
}

#endif
