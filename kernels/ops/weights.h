/* Weights in the packed model's canonical layout, as numbers. Used where speed does not matter: _ref and pack(). */
#ifndef KLAUS_OPS_WEIGHTS_H
#define KLAUS_OPS_WEIGHTS_H
#include "ops/op.h"

/* IEEE binary16 to float32: exact, subnormals, infinities and NaN included. */
float klaus_half_to_float(uint16_t half);

/* float32 to IEEE binary16, to nearest, ties to even; beyond 65504 infinity, NaN stays NaN. */
uint16_t klaus_float_to_half(float value);

/* Entry `index` of the layer's codebook. An index past codebook_entries reads as 0. */
float klaus_codebook_entry(const klaus_shape *shape, const klaus_weights *weights, uint32_t index);

/* Codebook index number `position` of output channel `row` (weight_dtype Q8, Q4 or Q2). */
uint32_t klaus_weight_index(const klaus_shape *shape, const klaus_weights *weights, int64_t row, int64_t position);

/* Stored weights (without scale) begin .. begin + count - 1 of output channel `row`. */
void klaus_weights_read(const klaus_shape *shape, const klaus_weights *weights, int64_t row, int64_t begin,
                        int64_t count, float *values);

#endif
