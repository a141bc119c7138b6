/* Depthwise convolution of halves, 3x3 and 5x5, stride 1 and 2: see ops/conv/conv.h for what it computes; its oracle is
 * klaus_conv_f32_ref. 25 products are few enough to be summed in halves.
 *
 * Packed layout, KLAUS_LAYOUT_DEPTHWISE_F16: for each block of eight channels
 *     uint32_t wide, 12 bytes of zeros; float scale[8], bias[8]; half start[8], weight[kernel row][kernel column][8]
 * wide = 0: the weights hold the scale and sums begin with `start`, the bias;
 * wide = 1: where weights or biases are too large or too small for that, `start` is zero and results are
 *     scale * sum + bias, in float32.
 * Where the channels are no multiple of eight the last block is that of the last eight channels, so that all loads stay
 * inside the tensors; it stores only the channels that the block before has not. */
#ifndef KLAUS_OPS_DEPTHWISE_F16_H
#define KLAUS_OPS_DEPTHWISE_F16_H
#include "ops/op.h"

typedef struct klaus_depthwise_f16_block {
    uint32_t wide, nothing[3];
    float scale[8], bias[8];
    uint16_t start[8], weights[];
} klaus_depthwise_f16_block;

bool klaus_depthwise_f16_can(const klaus_shape *shape);
uint64_t klaus_depthwise_f16_packed_bytes(const klaus_shape *shape);
void klaus_depthwise_f16_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

/* The first channel of block `block`. */
static inline int32_t klaus_depthwise_f16_first(int32_t channels, int32_t block) {
    return 8 * block + 8 <= channels ? 8 * block : channels - 8;
}

static inline size_t klaus_depthwise_f16_block_bytes(const klaus_shape *shape) {
    return sizeof(klaus_depthwise_f16_block) + 16 * (size_t)(shape->kernel_rows * shape->kernel_cols);
}

#endif
