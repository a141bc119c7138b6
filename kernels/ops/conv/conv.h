/* Convolution: cross-correlation with zero padding, grouped, strided, with any padding on each side.
 *
 *   y[i][j][k] = act(scale[k] * sum over (u, v, c) of w[k][u][v][c] * x[i*Sr - top + u][j*Sc - left + v][g*CP + c]
 *                    + bias[k] + addend[i][j][k]),   g = k / (K / groups), CP = in_channels / groups
 *
 * Cells outside the picture count as zero. pad_bottom and pad_right follow from the output's size; windows may reach
 * beyond the picture on every side, or lie outside altogether.
 * input[0]: float32 HWC, 4-byte aligned; input[1]: the addend, where has_addend; it may be the output itself.
 * No kernel reads outside its operands. Output of one call never depends on `parts`. */
#ifndef KLAUS_OPS_CONV_H
#define KLAUS_OPS_CONV_H
#include "ops/op.h"

/* Geometry that every conv variant relies on: groups divide both channel counts, positive sizes and strides. */
bool klaus_conv_has_geometry(const klaus_shape *shape);
/* The same, and all activations are float32. */
bool klaus_conv_is_sound(const klaus_shape *shape);

/* The int8 input with its zero around it, at the beginning of scratch: rows x cols cells, from pad_top and pad_left on.
 */
void klaus_conv_pad_i8(const klaus_call *call, int64_t rows, int64_t cols, int32_t part, int32_t parts);

#endif
