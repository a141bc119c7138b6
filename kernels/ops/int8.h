/* int8 arithmetic: what every variant of convolution and full connect with int8 activations computes, to the bit.
 *
 * An activation x stands for in.scale * (x - in.zero). A weight is an int8 number w times a scale of its output
 * channel: w = the stored weight / s, to nearest, ties to even; s = the largest magnitude / 127 of the output's own
 * weights, in a full connect with a codebook of the codebook, whose entries then become int8 once for all outputs; so
 * -127 <= w <= 127; padding is in.zero. Then
 *
 *     sum    = sum of w * (x - in.zero), exact, 32 bits
 *
 *     value  = fma(float(sum), multiplier, offset), float(sum) rounded to nearest
 *
 *     value  = fma(float(addend - its zero), its scale / out.scale, value), where there is an addend
 *
 *     result = clamp(round(value) + out.zero), to nearest, ties to even, within klaus_int8_limits()
 *
 * with multiplier = in.scale * s * the channel's scale / out.scale and offset = (bias + correction) / out.scale, all in
 * float32 in the order of klaus_int8_multiplier(). The correction, where the model has one, makes up for the mean error
 * that all this rounding leaves in an output: `klaus calibrate` measures it (klaus_runtime/calibrate.py). A float32
 * output leaves out.scale, rounding and limits away: value, addend added, activation applied. Method: affine
 * quantization, Jacob et al., 2018 (arXiv:1712.05877). */
#ifndef KLAUS_OPS_INT8_H
#define KLAUS_OPS_INT8_H
#include "ops/op.h"

/* Longest sums of 255 * 127 that fit 32 bits. */
#define KLAUS_INT8_MOST_WEIGHTS 65536

/* s: what one step of an output's int8 weights is in stored weights (before the channel's scale). Never 0. */
float klaus_int8_weight_step(const klaus_shape *shape, const klaus_weights *weights, int64_t row);
/* int8 weights begin .. begin + count - 1 of output channel `row`, whose step is `step`. */
void klaus_int8_weights_read(const klaus_shape *shape, const klaus_weights *weights, int64_t row, float step,
                             int64_t begin, int64_t count, int8_t *values);
/* A full connect's codebook as int8 numbers times klaus_int8_weight_step(); entries beyond the codebook are 0. */
void klaus_int8_codebook(const klaus_shape *shape, const klaus_weights *weights, int8_t entries[256]);

/* multiplier and offset of an output channel; `step` as klaus_int8_weight_step() gave it. */
float klaus_int8_multiplier(const klaus_shape *shape, const klaus_weights *weights, int64_t row, float step);
float klaus_int8_offset(const klaus_shape *shape, const klaus_weights *weights, int64_t row);

/* The activation as limits of an int8 result. */
void klaus_int8_limits(const klaus_shape *shape, int32_t *low, int32_t *high);

/* Whether the dtypes are int8 in, int8 or float32 out, and sums fit. */
bool klaus_int8_fits(const klaus_shape *shape);

/* One result from its exact sum; `at` is its index in output and addend. Scalar: for _ref. */
void klaus_int8_finish(const klaus_call *call, int32_t sum, float multiplier, float offset, int64_t at);

#endif
