#include "ops/cast/cast.h"

bool klaus_cast_is_sound(const klaus_shape *s, uint32_t dtype) {
    return s->op == KLAUS_OP_CAST && s->in_channels > 0 && s->activation == KLAUS_LINEAR &&
           ((s->in_dtype == KLAUS_F32 && s->out_dtype == dtype) || (s->in_dtype == dtype && s->out_dtype == KLAUS_F32));
}
