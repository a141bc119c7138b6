/* The body of the depthwise kernels for 32 vector registers, for usual shapes: padding that keeps the size (or halves
 * it), a picture no narrower than the kernel. Everything else takes ops/depthwise/depthwise_line_neon.h.
 *
 * Output columns are walked from left to right, `lines` rows and four channels at a time. A step loads the columns that
 * the next output lacks, adds them into all outputs under way, which are registers in a ring, and stores the one that
 * is complete. Before the first and behind the last whole step, columns outside the picture and outputs that do not
 * exist are left out by code of its own, so that a whole step asks nothing. `kernel`, `stride`, `lines` and `rows` are
 * constants where it is inlined. */
#ifndef KLAUS_OPS_DEPTHWISE_WALK_NEON64_H
#define KLAUS_OPS_DEPTHWISE_WALK_NEON64_H
#include "ops/depthwise/depthwise.h"
#include "ops/depthwise/depthwise_line_neon.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define KLAUS_DEPTHWISE_WALK_ROWS 9

/* Outputs whose last column lies behind the picture; the same on all walks. */
static inline int klaus_depthwise_last_outputs(int kernel, int stride) {
    return stride == 1 ? kernel / 2 : 1;
}

/* Outputs whose columns all begin and end before the picture does. */
static inline int64_t klaus_depthwise_whole_steps(const klaus_shape *s) {
    return (s->in_cols - s->kernel_cols + s->pad_left) / s->stride_cols + 1;
}

static inline bool klaus_depthwise_walks(const klaus_shape *s) {
    const int32_t last = klaus_depthwise_last_outputs(s->kernel_cols, s->stride_cols);
    return !s->has_addend && s->in_channels % 4 == 0 && s->in_cols >= s->kernel_cols && s->in_rows >= s->kernel_rows &&
           s->pad_left <= s->kernel_cols - s->stride_cols && s->pad_top <= s->kernel_rows / 2 &&
           klaus_depthwise_whole_steps(s) + last == s->out_cols && s->out_cols >= s->kernel_cols;
}

/* What lies around a walk and is not worth a register: read when needed. */
typedef struct klaus_depthwise_ends {
    float limits[8]; /* low, high */
    float bias[8];   /* twice */
} klaus_depthwise_ends;

/* Where a walk stands. */
typedef struct klaus_depthwise_walk {
    const float *input[KLAUS_DEPTHWISE_WALK_ROWS];
    int64_t step[KLAUS_DEPTHWISE_WALK_ROWS]; /* bytes from column to column: 0 for rows outside */
    float *output;
    int64_t line_step, out_step; /* floats to the next line of a column, from a column's last to the next's first */
    const klaus_depthwise_ends *ends;
    float32x4_t sum[4][5];
} klaus_depthwise_walk;

/* One load each, not to be kept in registers from step to step. */
static inline void klaus_depthwise_begin(const klaus_depthwise_ends *ends, float32x4_t *sum) {
    __asm__ volatile("ldr %q0, [%1, %2]" : "=w"(*sum) : "r"(ends), "i"(offsetof(klaus_depthwise_ends, bias)));
}
static inline void klaus_depthwise_begin_two(const klaus_depthwise_ends *ends, float32x4_t *one, float32x4_t *two) {
    __asm__ volatile("ldp %q0, %q1, [%2, %3]"
                     : "=w"(*one), "=w"(*two)
                     : "r"(ends), "i"(offsetof(klaus_depthwise_ends, bias)));
}
static inline void klaus_depthwise_limit(const klaus_depthwise_ends *ends, klaus_limits *limits) {
    __asm__ volatile("ldp %q0, %q1, [%2]" : "=w"(limits->low), "=w"(limits->high) : "r"(ends->limits));
}

/* In the order they are written in: sorted by the compiler, which loads early, 5x5 would need more than all registers.
 */
static inline float32x4_t klaus_depthwise_load(const float **from, int64_t bytes) {
    float32x4_t value;
    __asm__ volatile("ld1 {%0.4s}, [%1], %2" : "=w"(value), "+r"(*from) : "r"(bytes) : "memory");
    return value;
}
static inline void klaus_depthwise_add(float32x4_t *sum, float32x4_t weight, float32x4_t value) {
    __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(*sum) : "w"(weight), "w"(value));
}

/* The outputs of ring place `at` begin with the bias. */
__attribute__((always_inline)) static inline void klaus_depthwise_new(klaus_depthwise_walk *w, const int at,
                                                                      const int lines) {
    if (lines == 1)
        klaus_depthwise_begin(w->ends, &w->sum[0][at]);
    KLAUS_UNROLLED
    for (int line = 0; line + 1 < lines; line += 2)
        klaus_depthwise_begin_two(w->ends, &w->sum[line][at], &w->sum[line + 1][at]);
}

/* Adds one input column: column `v` of the kernel for the output in ring place `phase`, v - stride for the next, ... ;
 * `alive` outputs from that one on. */
__attribute__((always_inline)) static inline void
klaus_depthwise_column(klaus_depthwise_walk *w, const float32x4_t *weight, const int phase, const int v,
                       const int alive, const int kernel, const int stride, const int lines, const int rows) {
    const int under_way = (kernel + stride - 1) / stride;
    float32x4_t value[KLAUS_DEPTHWISE_WALK_ROWS + 1];
    value[0] = klaus_depthwise_load(&w->input[0], w->step[0]);
    KLAUS_UNROLLED
    for (int u = 0; u < rows; u++) {
        if (u + 1 < rows)
            value[u + 1] = klaus_depthwise_load(&w->input[u + 1], w->step[lines == 1 ? 0 : u + 1]);
        KLAUS_UNROLLED
        for (int line = 0; line < lines; line++)
            KLAUS_UNROLLED
        for (int a = 0; a < alive; a++) {
            const int col = v - a * stride, row = u - line * stride;
            const int at = (phase + a) % under_way;
            if (col >= 0 && col < kernel && row >= 0 && (lines == 1 || row < kernel))
                klaus_depthwise_add(&w->sum[line][at], weight[row * kernel + col], value[u]);
        }
    }
}

/* Stores the outputs in ring place `phase`. */
__attribute__((always_inline)) static inline void klaus_depthwise_finish(klaus_depthwise_walk *w, const int phase,
                                                                         const int lines) {
    klaus_limits limits;
    klaus_depthwise_limit(w->ends, &limits);
    KLAUS_UNROLLED
    for (int line = 0; line < lines - 1; line++)
        klaus_store_step(&w->output, klaus_limit(w->sum[line][phase], limits), w->line_step);
    klaus_store_step(&w->output, klaus_limit(w->sum[lines - 1][phase], limits), w->out_step);
}

/* A whole step: begins an output, completes that of ring place `phase`. */
__attribute__((always_inline)) static inline void klaus_depthwise_step(klaus_depthwise_walk *w,
                                                                       const float32x4_t *weight, const int phase,
                                                                       const int kernel, const int stride,
                                                                       const int lines, const int rows) {
    const int under_way = (kernel + stride - 1) / stride;
    klaus_depthwise_new(w, (phase + under_way - 1) % under_way, lines);
    KLAUS_UNROLLED
    for (int j = 0; j < stride; j++)
        klaus_depthwise_column(w, weight, phase, kernel - stride + j, under_way, kernel, stride, lines, rows);
    klaus_depthwise_finish(w, phase, lines);
}

/* What follows the whole steps: `phase` is the next output's. */
__attribute__((always_inline)) static inline void
klaus_depthwise_last(klaus_depthwise_walk *w, const float32x4_t *weight, int64_t columns_left, const int phase,
                     const int kernel, const int stride, const int lines, const int rows) {
    const int under_way = (kernel + stride - 1) / stride, last = klaus_depthwise_last_outputs(kernel, stride);
    const int narrow = under_way - 1 - last; /* whole steps in which the newest outputs do not exist */
    KLAUS_UNROLLED
    for (int n = 0; n < narrow; n++) {
        KLAUS_UNROLLED
        for (int j = 0; j < stride; j++)
            klaus_depthwise_column(w, weight, (phase + n) % under_way, kernel - stride + j, under_way - 1 - n, kernel,
                                   stride, lines, rows);
        klaus_depthwise_finish(w, (phase + n) % under_way, lines);
    }
    KLAUS_UNROLLED
    for (int n = 0; n < last; n++) {
        const int at = (phase + narrow + n) % under_way;
        if (stride == 2 && columns_left > 0)
            klaus_depthwise_column(w, weight, at, kernel - 2, 1, kernel, stride, lines, rows);
        klaus_depthwise_finish(w, at, lines);
    }
}

/* Output rows `row` .. + lines - 1. `top` is the first row of the input that is read, `weight` that row's. */
__attribute__((always_inline)) static inline void
klaus_depthwise_go(const klaus_call *call, const klaus_depthwise_ends *ends, const float32x4_t *weight, int64_t row,
                   int64_t top, int32_t first, const int kernel, const int stride, const int lines, const int rows) {
    static const float zeros[4];
    const klaus_shape *s = call->shape;
    const int under_way = (kernel + stride - 1) / stride, last = klaus_depthwise_last_outputs(kernel, stride);
    const int narrow = under_way - 1 - last;
    klaus_depthwise_walk w;
    const int64_t column_bytes = (int64_t)sizeof(float) * s->in_channels,
                  row_floats = (int64_t)s->in_cols * s->in_channels;
    const float *from = (const float *)call->input[0] + top * row_floats + first;
    KLAUS_UNROLLED
    for (int u = 0; u < rows; u++, from += row_floats) {
        const bool inside = lines == 1 || (top + u >= 0 && top + u < s->in_rows);
        w.input[u] = inside ? from : zeros;
        w.step[u] = inside ? column_bytes : 0;
    }
    w.line_step = (int64_t)s->out_cols * s->out_channels;
    w.out_step = s->out_channels - (lines - 1) * w.line_step;
    w.output = (float *)call->output + row * w.line_step + first;
    w.ends = ends;
    KLAUS_UNROLLED
    for (int a = 0; a < under_way - 1; a++)
        klaus_depthwise_new(&w, a, lines);
    KLAUS_UNROLLED
    for (int i = 0; i < kernel - stride; i++)
        if (i >= s->pad_left)
            klaus_depthwise_column(&w, weight, 0, i, under_way - 1, kernel, stride, lines, rows);
    int64_t steps = klaus_depthwise_whole_steps(s) - narrow;
    const int64_t columns_left =
        s->in_cols + s->pad_left - (klaus_depthwise_whole_steps(s) - 1) * stride - kernel; /* behind the whole steps */
    /* One after the other, as a loop that can be left in the middle is not unrolled. */
    for (;;) {
        if (steps-- == 0)
            return klaus_depthwise_last(&w, weight, columns_left, 0, kernel, stride, lines, rows);
        klaus_depthwise_step(&w, weight, 0, kernel, stride, lines, rows);
        if (steps-- == 0)
            return klaus_depthwise_last(&w, weight, columns_left, 1, kernel, stride, lines, rows);
        klaus_depthwise_step(&w, weight, 1, kernel, stride, lines, rows);
        if (under_way < 3)
            continue;
        if (steps-- == 0)
            return klaus_depthwise_last(&w, weight, columns_left, 2, kernel, stride, lines, rows);
        klaus_depthwise_step(&w, weight, 2, kernel, stride, lines, rows);
        if (under_way < 5)
            continue;
        if (steps-- == 0)
            return klaus_depthwise_last(&w, weight, columns_left, 3, kernel, stride, lines, rows);
        klaus_depthwise_step(&w, weight, 3, kernel, stride, lines, rows);
        if (steps-- == 0)
            return klaus_depthwise_last(&w, weight, columns_left, 4, kernel, stride, lines, rows);
        klaus_depthwise_step(&w, weight, 4, kernel, stride, lines, rows);
    }
}

/* Output rows begin .. end - 1 of four channels, all of which read input rows that exist, `rows` of them from kernel
 * row `above` on (lines = 1), or any rows (lines > 1). */
__attribute__((always_inline)) static inline void
klaus_depthwise_rows_of(const klaus_call *call, const klaus_depthwise_ends *ends, const float *packed, int64_t begin,
                        int64_t end, int32_t first, int above, const int kernel, const int stride, const int lines,
                        const int rows) {
    const klaus_shape *s = call->shape;
    float32x4_t weight[25];
    const int count = lines == 1 ? rows * kernel : kernel * kernel;
    KLAUS_UNROLLED
    for (int tap = 0; tap < count; tap++)
        weight[tap] = vld1q_f32(packed + 4 * (1 + above * kernel + tap));
    for (int64_t row = begin; row < end; row += lines)
        klaus_depthwise_go(call, ends, weight, row, row * stride - s->pad_top + above, first, kernel, stride, lines,
                           rows);
}

#endif
