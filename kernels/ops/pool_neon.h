/* The walk of both pooling kernels: 16 channels, then four at a time; the last four overlap those before. */
#ifndef KLAUS_OPS_POOL_NEON_H
#define KLAUS_OPS_POOL_NEON_H
#include "ops/neon.h"
#include "ops/pool.h"
#include "ops/shape.h"

/* Folds `value` into `sum`. */
typedef float32x4_t (*klaus_pool_fold)(float32x4_t sum, float32x4_t value);

/* `vectors` vectors of channels of one window; `fold` and `vectors` are constants where it is inlined. */
__attribute__((always_inline)) static inline void klaus_pool_cells(const klaus_shape *s, const klaus_window *w,
                                                                   const float *input, float *output, float factor,
                                                                   klaus_limits limits, klaus_pool_fold fold,
                                                                   const int vectors) {
    const int64_t row_step = (int64_t)s->in_cols * s->in_channels;
    const float *first = input + w->top * row_step + w->left * s->in_channels;
    float32x4_t sum[4];
    bool begun = false;
    for (int v = 0; v < vectors; v++)
        sum[v] = vdupq_n_f32(0);
    for (int64_t y = w->top; y < w->bottom; y++, first += row_step) {
        const float *cell = first;
        for (int64_t x = w->left; x < w->right; x++, cell += s->in_channels) {
            for (int v = 0; v < vectors; v++) {
                const float32x4_t value = vld1q_f32(cell + 4 * v);
                sum[v] = begun ? fold(sum[v], value) : value;
            }
            begun = true;
        }
    }
    for (int v = 0; v < vectors; v++)
        vst1q_f32(output + 4 * v, klaus_limit(factor == 1 ? sum[v] : vmulq_n_f32(sum[v], factor), limits));
}

/* All outputs of a part. `mean`: the folded cells are divided by their number. */
__attribute__((always_inline)) static inline void klaus_pool_rows(const klaus_call *call, int32_t part, int32_t parts,
                                                                  klaus_pool_fold fold, const bool mean) {
    const klaus_shape *s = call->shape;
    const klaus_limits limits = klaus_activation_limits(s->activation);
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < s->out_cols; j++) {
            const klaus_window w = klaus_pool_window(s, i, j);
            const bool empty = w.bottom <= w.top || w.right <= w.left;
            const float cells = empty ? 1 : (float)((w.bottom - w.top) * (w.right - w.left));
            const float factor = mean ? 1 / cells : 1;
            const float *input = call->input[0];
            float *output = (float *)call->output + (i * s->out_cols + j) * s->in_channels;
            int32_t c = 0;
            for (; c + 16 <= s->in_channels; c += 16)
                klaus_pool_cells(s, &w, input + c, output + c, factor, limits, fold, 4);
            for (; c < s->in_channels; c += 4) {
                const int32_t first = c + 4 <= s->in_channels ? c : s->in_channels - 4;
                klaus_pool_cells(s, &w, input + first, output + first, factor, limits, fold, 1);
            }
        }
}

static inline bool klaus_pool_neon_can(const klaus_shape *shape) {
    return klaus_shape_is_f32(shape) && klaus_pool_is_sound(shape) && shape->in_channels >= 4;
}

#endif
