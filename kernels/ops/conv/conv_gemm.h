/* Convolution as a matrix multiply without im2col: a driver with a micro-kernel (ops/gemm/gemm.h).
 *
 * Packed layout: for each group its panels (klaus_panel_width() channels wide), each
 *     float scale[width], bias[width], weight[kernel row][kernel column][channel of the group][width]
 * with zeros where a panel is wider than the channels left. Codebook weights are stored as floats here.
 * ops/conv/conv_cells.h says where the inputs are read from. */
#ifndef KLAUS_OPS_CONV_GEMM_H
#define KLAUS_OPS_CONV_GEMM_H
#include "ops/gemm/gemm.h"
#include "ops/op.h"

/* Phase 0 pads (where that is needed), phase 1 multiplies. */
#define KLAUS_CONV_GEMM_PHASES 2

bool klaus_conv_gemm_can(const klaus_shape *shape);
uint64_t klaus_conv_gemm_packed_bytes(const klaus_shape *shape);
void klaus_conv_gemm_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed, int32_t panel_width);
uint64_t klaus_conv_gemm_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t tile_rows);
void klaus_conv_gemm_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                         const klaus_gemm_kernel *kernel);

#endif
