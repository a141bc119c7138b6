/* Depthwise convolution (one input channel a group), 3x3 and 5x5, stride 1 and 2: see ops/conv/conv.h for what it
 * computes; its oracle is klaus_conv_f32_ref.
 *
 * Packed layout, KLAUS_LAYOUT_DEPTHWISE_F32: for each block of four channels
 *     float bias[4], weight[kernel row][kernel column][4]
 * with the scale multiplied in: so few terms make a sum that a pass over the sums would be seen.
 * Where the channels are no multiple of four the last block is that of the last four channels, so that all loads stay
 * inside the tensors; it stores only the channels that the block before has not. */
#ifndef KLAUS_OPS_DEPTHWISE_H
#define KLAUS_OPS_DEPTHWISE_H
#include "ops/op.h"

bool klaus_depthwise_can(const klaus_shape *shape);
uint64_t klaus_depthwise_packed_bytes(const klaus_shape *shape);
void klaus_depthwise_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

/* The first channel of block `block`. */
static inline int32_t klaus_depthwise_first(int32_t channels, int32_t block) {
    return 4 * block + 4 <= channels ? 4 * block : channels - 4;
}

#endif
