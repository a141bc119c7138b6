#include "ops/conv/conv_cells.h"

#include <string.h>

#include "ops/shape.h"

/* Below this many channels a tap is a whole kernel row. */
#define JOIN_CHANNELS 16

klaus_conv_cells klaus_conv_cells_of(const klaus_shape *s) {
    klaus_conv_cells g;
    memset(&g, 0, sizeof g);
    g.rows = s->in_rows;
    g.cols = s->in_cols;
    g.channels = s->in_channels;
    g.top = s->pad_top;
    g.left = s->pad_left;
    g.group_channels = s->in_channels / s->groups;
    g.group_filters = s->out_channels / s->groups;
    g.direct = s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
               s->pad_top == 0 && s->pad_left == 0 && s->out_rows == s->in_rows && s->out_cols == s->in_cols;
    g.joined = s->groups == 1 && s->in_channels < JOIN_CHANNELS && s->kernel_cols > 1;
    g.taps = s->kernel_rows * s->kernel_cols;
    g.depth = g.group_channels;
    if (g.joined) {
        const int64_t rows = (int64_t)(s->out_rows - 1) * s->stride_rows + s->kernel_rows;
        const int64_t cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
        g.taps = s->kernel_rows;
        g.depth = s->kernel_cols * s->in_channels;
        g.padded = s->pad_top != 0 || s->pad_left != 0 || rows > s->in_rows || cols > s->in_cols;
        if (g.padded) {
            g.rows = rows;
            g.cols = cols;
            g.top = g.left = 0;
            g.copy_bytes = klaus_aligned((uint64_t)(rows * cols * s->in_channels) * sizeof(float));
        }
    }
    return g;
}

void klaus_conv_pad(const klaus_call *call, const klaus_conv_cells *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const float *input = call->input[0];
    const int64_t row_floats = g->cols * g->channels;
    int64_t begin, end;
    klaus_share(g->rows, 1, part, parts, &begin, &end);
    for (int64_t y = begin; y < end; y++) {
        float *to = (float *)call->scratch + y * row_floats;
        const int64_t from_row = y - s->pad_top;
        int64_t cols = g->cols - s->pad_left < s->in_cols ? g->cols - s->pad_left : s->in_cols;
        if (from_row < 0 || from_row >= s->in_rows || cols < 0)
            cols = 0;
        int64_t before = s->pad_left < g->cols ? s->pad_left : g->cols;
        if (cols == 0)
            before = g->cols;
        memset(to, 0, (size_t)(before * g->channels) * sizeof(float));
        if (cols > 0)
            memcpy(to + before * g->channels, input + from_row * s->in_cols * g->channels,
                   (size_t)(cols * g->channels) * sizeof(float));
        memset(to + (before + cols) * g->channels, 0,
               (size_t)((g->cols - before - cols) * g->channels) * sizeof(float));
    }
}

/* The pointers of one pixel whose window begins at y, x and may reach beyond the picture. */
static void point_edge(const klaus_shape *s, const klaus_conv_cells *g, const float *input, const float *zeros,
                       int64_t y, int64_t x, int32_t count, const float **to) {
    const int32_t columns = g->joined ? 1 : s->kernel_cols;
    for (int32_t u = 0; u < s->kernel_rows; u++)
        for (int32_t v = 0; v < columns; v++, to += count) {
            const bool inside = y + u >= 0 && y + u < g->rows && x + v >= 0 && x + v < g->cols;
            *to = inside ? input + ((y + u) * g->cols + x + v) * g->channels : zeros;
        }
}

void klaus_conv_point(const klaus_shape *s, const klaus_conv_cells *g, const float *input, const float *zeros,
                      int64_t pixel, int32_t count, const float **pointers) {
    if (g->direct) {
        for (int32_t r = 0; r < count; r++)
            pointers[r] = input + (pixel + r) * g->channels;
        return;
    }
    const int32_t columns = g->joined ? 1 : s->kernel_cols;
    const int64_t step = s->stride_cols * g->channels;
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    for (int32_t r = 0, run; r < count; r += run) {
        const int64_t y = row * s->stride_rows - g->top, x = col * s->stride_cols - g->left;
        run = 1;
        if (y >= 0 && x >= 0 && y + s->kernel_rows <= g->rows && x + columns <= g->cols) {
            /* Pixels of a row whose windows are all inside: one distance apart. */
            const int64_t inside = (g->cols - columns - x) / s->stride_cols + 1, row_left = s->out_cols - col;
            run = count - r < row_left ? count - r : (int32_t)row_left;
            run = run < inside ? run : (int32_t)inside;
            const float **to = pointers + r;
            for (int32_t u = 0; u < s->kernel_rows; u++)
                for (int32_t v = 0; v < columns; v++, to += count) {
                    const float *cell = input + ((y + u) * g->cols + x + v) * g->channels;
                    for (int32_t n = 0; n < run; n++, cell += step)
                        to[n] = cell;
                }
        } else {
            point_edge(s, g, input, zeros, y, x, count, pointers + r);
        }
        col += run;
        if (col == s->out_cols) {
            col = 0;
            row++;
        }
    }
}
