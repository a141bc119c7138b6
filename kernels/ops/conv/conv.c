#include "ops/conv/conv.h"

#include <string.h>

#include "ops/shape.h"

bool klaus_conv_is_sound(const klaus_shape *shape) {
    return klaus_conv_has_geometry(shape) && klaus_shape_is_f32(shape);
}

bool klaus_conv_has_geometry(const klaus_shape *shape) {
    return shape->op == KLAUS_OP_CONV && klaus_shape_has_known_weights(shape) && shape->batch <= 1 &&
           shape->groups > 0 && shape->in_channels > 0 && shape->out_channels > 0 &&
           shape->in_channels % shape->groups == 0 && shape->out_channels % shape->groups == 0 && shape->in_rows > 0 &&
           shape->in_cols > 0 && shape->out_rows > 0 && shape->out_cols > 0 && shape->kernel_rows > 0 &&
           shape->kernel_cols > 0 && shape->stride_rows > 0 && shape->stride_cols > 0 &&
           klaus_shape_weights_per_row(shape) <= INT32_MAX;
}

void klaus_conv_pad_i8(const klaus_call *call, int64_t rows, int64_t cols, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int32_t zero = s->in_quantization[0].zero;
    const size_t cell = (size_t)s->in_channels;
    const int64_t before = s->pad_left < cols ? s->pad_left : cols;
    const int64_t cells = cols - before < s->in_cols ? cols - before : s->in_cols;
    int64_t begin, end;
    klaus_share(rows, 1, part, parts, &begin, &end);
    for (int64_t y = begin; y < end; y++) {
        int8_t *to = (int8_t *)call->scratch + (size_t)(y * cols) * cell;
        const int64_t from = y - s->pad_top;
        if (from < 0 || from >= s->in_rows) {
            memset(to, zero, (size_t)cols * cell);
            continue;
        }
        memset(to, zero, (size_t)before * cell);
        to += (size_t)before * cell;
        memcpy(to, (const int8_t *)call->input[0] + (size_t)(from * s->in_cols) * cell, (size_t)cells * cell);
        to += (size_t)cells * cell;
        memset(to, zero, (size_t)(cols - before - cells) * cell);
    }
}
