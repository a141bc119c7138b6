#include "ops/full_connect/full_connect.h"

#include "ops/shape.h"

bool klaus_full_connect_is_sound(const klaus_shape *shape) {
    return klaus_full_connect_has_geometry(shape) && klaus_shape_is_f32(shape);
}

bool klaus_full_connect_has_geometry(const klaus_shape *shape) {
    return shape->op == KLAUS_OP_FULL_CONNECT && klaus_shape_has_known_weights(shape) && !shape->has_addend &&
           shape->in_channels > 0 && shape->out_channels > 0 && klaus_shape_inputs_per_row(shape) <= INT32_MAX;
}
