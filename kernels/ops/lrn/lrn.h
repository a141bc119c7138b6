/* Local response normalisation over channels: y[c] = act(x[c] * (kappa + alpha * sum of x[i]^2)^-beta),
 * i over c - size/2 .. c + size/2 (integer half), clipped to c's group of in_channels / groups channels. alpha is not
 * divided by the size. float32 HWC, 4-byte aligned; the output may be the input. */
#ifndef KLAUS_OPS_LRN_H
#define KLAUS_OPS_LRN_H
#include "ops/op.h"

bool klaus_lrn_has_geometry(const klaus_shape *shape);
/* The same, and all activations are float32. */
bool klaus_lrn_is_sound(const klaus_shape *shape);

#endif
