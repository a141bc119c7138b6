#include "ops/lrn/lrn.h"

#include "ops/shape.h"

bool klaus_lrn_is_sound(const klaus_shape *s) {
    return klaus_lrn_has_geometry(s) && klaus_shape_is_f32(s);
}

bool klaus_lrn_has_geometry(const klaus_shape *s) {
    return s->op == KLAUS_OP_LRN && s->batch <= 1 && s->in_rows > 0 && s->in_cols > 0 && s->in_channels > 0 &&
           s->groups > 0 && s->in_channels % s->groups == 0 && s->size > 0;
}
