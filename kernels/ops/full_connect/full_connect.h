/* Full connect: y[b][j] = act(scale[j] * sum over i of w[j][i] * x[b][i] + bias[j]).
 *
 * input: float32 [batch][in_rows * in_cols * in_channels], 4-byte aligned; output: float32 [batch][out_channels].
 * Weights stay as they are stored (2, 4, 8-bit indices, halves or floats): a variant decodes a block of them into
 * scratch, uses it for all rows of the batch, and forgets it. */
#ifndef KLAUS_OPS_FULL_CONNECT_H
#define KLAUS_OPS_FULL_CONNECT_H
#include "ops/op.h"

bool klaus_full_connect_has_geometry(const klaus_shape *shape);
/* The same, and all activations are float32. */
bool klaus_full_connect_is_sound(const klaus_shape *shape);

#endif
