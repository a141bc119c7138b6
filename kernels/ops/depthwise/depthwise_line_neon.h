/* The body of the depthwise kernels: `lines` output rows, four channels, all columns.
 *
 * Input columns are walked from left to right. Each is loaded once and added into every output it belongs to; the
 * outputs under way, one for each kernel column that a stride covers, are registers. Columns outside the picture are
 * skipped; rows outside are read from four zeros. `kernel`, `stride`, `lines` and
 * `plain` (no addend, no channels to leave out) are constants where it is inlined. */
#ifndef KLAUS_OPS_DEPTHWISE_LINE_NEON_H
#define KLAUS_OPS_DEPTHWISE_LINE_NEON_H
#include "ops/depthwise/depthwise.h"
#include "ops/neon.h"
#include "ops/shape.h"

/* For loops whose sums must end up in registers. */
#define KLAUS_UNROLLED _Pragma("clang loop unroll(full)")

#define KLAUS_DEPTHWISE_MOST_ROWS 5 /* input rows of a line or two */

/* The rare output: with an addend, or of the last four channels, of which `done` were stored by the block before. */
__attribute__((noinline)) static void klaus_depthwise_store(float *output, const float *addend, float32x4_t value,
                                                            klaus_limits limits, int32_t done) {
    if (done == 0) {
        if (addend != NULL)
            value = vaddq_f32(value, vld1q_f32(addend));
        vst1q_f32(output, klaus_limit(value, limits));
        return;
    }
    float results[4];
    if (addend != NULL) { /* the channels that are done may have been overwritten: the addend may be the output */
        vst1q_f32(results, value);
        for (int32_t c = done; c < 4; c++)
            results[c] += addend[c];
        value = vld1q_f32(results);
    }
    vst1q_f32(results, klaus_limit(value, limits));
    for (int32_t c = done; c < 4; c++)
        output[c] = results[c];
}

/* Output rows `row` .. `row` + lines - 1, channels first .. first + 3. `packed` is the block's. */
__attribute__((always_inline)) static inline void klaus_depthwise_line(const klaus_call *call, const float *packed,
                                                                       int64_t row, int32_t first, int32_t done,
                                                                       const int kernel, const int stride,
                                                                       const int lines, const bool plain) {
    static const float zeros[4];
    const klaus_shape *s = call->shape;
    const int rows = (lines - 1) * stride + kernel, under_way = (kernel + stride - 1) / stride;
    const float *input[KLAUS_DEPTHWISE_MOST_ROWS];
    int64_t step[KLAUS_DEPTHWISE_MOST_ROWS];
    for (int u = 0; u < rows; u++) {
        const int64_t y = row * stride - s->pad_top + u;
        const bool inside = y >= 0 && y < s->in_rows;
        input[u] = inside ? (const float *)call->input[0] + y * s->in_cols * s->in_channels + first : zeros;
        step[u] = inside ? (int64_t)sizeof(float) * s->in_channels : 0;
    }
    float32x4_t weight[25], sum[2][5];
    const float32x4_t bias = vld1q_f32(packed);
    for (int tap = 0; tap < kernel * kernel; tap++)
        weight[tap] = vld1q_f32(packed + 4 + 4 * tap);
    for (int line = 0; line < lines; line++)
        for (int a = 0; a < under_way; a++)
            sum[line][a] = bias;
    const klaus_limits limits = klaus_activation_limits(s->activation);
    float *output = (float *)call->output + row * s->out_cols * s->out_channels + first;
    const float *addend =
        s->has_addend ? (const float *)call->input[1] + row * s->out_cols * s->out_channels + first : NULL;
    /* Of their own, as a store of a vector might change *s for all the compiler knows. */
    const uint64_t in_cols = (uint64_t)s->in_cols, out_cols = (uint64_t)s->out_cols;
    const int64_t out_step = s->out_channels, line_step = (int64_t)s->out_cols * s->out_channels;
    int64_t x = -s->pad_left, finished = 1 - under_way;
    while (finished < (int64_t)out_cols) {
        /* In phase p the output that begins here is sum[p], the one before it sum[p - 1], ... in a ring. */
        KLAUS_UNROLLED
        for (int phase = 0; phase < under_way; phase++) {
            for (int line = 0; line < lines; line++)
                sum[line][phase] = bias;
            KLAUS_UNROLLED
            for (int column = 0; column < stride; column++, x++)
                if ((uint64_t)x < in_cols) {
                    KLAUS_UNROLLED
                    for (int u = 0; u < rows; u++) {
                        const float32x4_t value = klaus_load_step(&input[u], step[u]);
                        KLAUS_UNROLLED
                        for (int line = 0; line < lines; line++)
                            KLAUS_UNROLLED
                        for (int a = 0; a < under_way; a++) {
                            const int v = column + a * stride, w = u - line * stride;
                            const int at = (phase - a + under_way) % under_way;
                            if (v < kernel && w >= 0 && w < kernel)
                                sum[line][at] = vfmaq_f32(sum[line][at], weight[w * kernel + v], value);
                        }
                    }
                }
            if ((uint64_t)finished < out_cols)
                KLAUS_UNROLLED
            for (int line = 0; line < lines; line++) {
                const int64_t at = line * line_step + finished * out_step;
                const float32x4_t value = sum[line][(phase + 1) % under_way];
                if (plain)
                    vst1q_f32(output + at, klaus_limit(value, limits));
                else
                    klaus_depthwise_store(output + at, addend != NULL ? addend + at : NULL, value, limits, done);
            }
            finished++;
        }
    }
}

/* Two lines where there are two. */
__attribute__((always_inline)) static inline void
klaus_depthwise_lines(const klaus_call *call, const float *packed, int64_t row, int64_t count, int32_t first,
                      int32_t done, const int kernel, const int stride, const int lines, const bool plain) {
    if (lines == 1 || count >= lines)
        klaus_depthwise_line(call, packed, row, first, done, kernel, stride, lines, plain);
    else
        klaus_depthwise_line(call, packed, row, first, done, kernel, stride, 1, plain);
}

/* All of a part's rows. */
__attribute__((always_inline)) static inline void klaus_depthwise_rows(const klaus_call *call, int32_t part,
                                                                       int32_t parts, const int kernel,
                                                                       const int stride, const int lines) {
    const klaus_shape *s = call->shape;
    const int32_t blocks = (s->in_channels + 3) / 4;
    int64_t begin, end;
    klaus_share(s->out_rows, lines, part, parts, &begin, &end);
    for (int64_t row = begin; row < end; row += lines)
        for (int32_t block = 0; block < blocks; block++) {
            const int32_t first = klaus_depthwise_first(s->in_channels, block), done = 4 * block - first;
            const float *packed = (const float *)call->packed + (size_t)block * 4 * (size_t)(1 + kernel * kernel);
            if (done == 0 && !s->has_addend)
                klaus_depthwise_lines(call, packed, row, end - row, first, 0, kernel, stride, lines, true);
            else
                klaus_depthwise_lines(call, packed, row, end - row, first, done, kernel, stride, lines, false);
        }
}

#endif
