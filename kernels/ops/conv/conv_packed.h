/* Convolution as a matrix multiply from inputs packed a few tiles at a time, so that all panels of weights read them
 * with wide loads: a driver with a micro-kernel (ops/gemm/gemm_packed.h). ops/conv/conv_cells.h says where the inputs
 * are.
 *
 * Packed layout: for each group its panels (klaus_panel_width() channels wide), each
 *     float bias[width], weight[kernel row][kernel column][channel of the group][width]
 * with zeros where a panel is wider than the channels left and up to a multiple of four weights a channel. The scale is
 * multiplied in. Codebook weights are stored as floats here. */
#ifndef KLAUS_OPS_CONV_PACKED_H
#define KLAUS_OPS_CONV_PACKED_H
#include "ops/gemm/gemm_packed.h"
#include "ops/op.h"

/* Phase 0 pads (where that is needed), phase 1 multiplies. */
#define KLAUS_CONV_PACKED_PHASES 2

bool klaus_conv_packed_can(const klaus_shape *shape);
uint64_t klaus_conv_packed_packed_bytes(const klaus_shape *shape);
void klaus_conv_packed_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed, int32_t panel_width);
uint64_t klaus_conv_packed_scratch_bytes(const klaus_shape *shape, int32_t parts,
                                         const klaus_gemm_packed_kernel *kernel);
void klaus_conv_packed_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                           const klaus_gemm_packed_kernel *kernel);

#endif
