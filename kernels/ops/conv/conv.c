#include "ops/conv/conv.h"

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
