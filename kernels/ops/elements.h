/* Activations of any dtype as float32, one at a time: for _ref, the checker and what is shown to people. */
#ifndef KLAUS_OPS_ELEMENTS_H
#define KLAUS_OPS_ELEMENTS_H
#include "ops/op.h"

/* `count` numbers of `dtype` as float32; `quantization` counts for KLAUS_I8 alone. */
void klaus_elements_read(const void *from, uint32_t dtype, const klaus_quantization *quantization, int64_t count,
                         float *to);
/* The reverse, rounded as ops/cast/cast.h says. */
void klaus_elements_write(const float *from, int64_t count, uint32_t dtype, const klaus_quantization *quantization,
                          void *to);

/* zero + x * inverse, to nearest, ties to even, within -128 .. 127. `inverse` is 1 / scale. */
int8_t klaus_quantize(float x, float inverse, int32_t zero);

#endif
