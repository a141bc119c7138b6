/* Convolution of int8 by dot products or matrix multiplies: gathered rows of inputs times panels of weights
 * (ops/gemm/gemm_dot.h). Every variant is this driver with a micro-kernel.
 *
 * Packed layout: for each group its panels (klaus_panel_width() channels wide), each
 *     float step[width]; int32 sum of the weights[width]; int8 weight[step of depth][width][4],
 *     or, for kernels that take eights, [two steps of depth][width][8]
 * with zeros beyond the channels and the depth (kernel row, kernel column, channel of the group: an even number of
 * steps). What depends on the activations' scales is made when the layer runs. Depthwise convolutions are another
 * room's: their sums are too short for this. */
#ifndef KLAUS_OPS_CONV_DOT_H
#define KLAUS_OPS_CONV_DOT_H
#include "ops/gemm/gemm_dot.h"

/* Phase 0 makes the constants of all channels, phase 1 gathers and multiplies. */
#define KLAUS_CONV_DOT_PHASES 2

bool klaus_conv_dot_can(const klaus_shape *shape);
uint64_t klaus_conv_dot_packed_bytes(const klaus_shape *shape);
void klaus_conv_dot_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);
void klaus_conv_dot_pack_eights(const klaus_shape *shape, const klaus_weights *weights, void *packed);
uint64_t klaus_conv_dot_scratch_bytes(const klaus_shape *shape, int32_t parts);
void klaus_conv_dot_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                        const klaus_dot_kernel *kernel);

#endif
