/* The same numbers in another dtype: float32 <-> half or int8, number by number.
 *
 * To half: to nearest, ties to even. To int8: zero + x / scale (a product with the float32 1 / scale), to nearest, ties
 * to even, kept within -128 .. 127; a NaN becomes `zero`. From int8: scale * (q - zero). Input and output do not
 * overlap. */
#ifndef KLAUS_OPS_CAST_H
#define KLAUS_OPS_CAST_H
#include "ops/op.h"

/* Between float32 and `dtype`, in either direction. */
bool klaus_cast_is_sound(const klaus_shape *shape, uint32_t dtype);

#endif
