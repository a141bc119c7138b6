/* Convolution of halves as a matrix multiply without im2col, on the micro-kernel of ops/gemm/gemm_f16.h.
 *
 * Packed layout, KLAUS_LAYOUT_CONV_F16_PANELS_24: for each group its panels as gemm_f16.h says, weights in the order
 * [kernel row][kernel column][channel of the group].
 * Cells outside the picture are read from a row of zeros. Where there are few channels (a network's first layer) and
 * one group, the picture is copied into a padded one first, in halves (such a layer takes float32 as well), and then
 * some windows at a time beside each other. They, and a pointwise convolution's input as it lies, are rows of a matrix:
 * no pointers are needed. */
#ifndef KLAUS_OPS_CONV_GEMM_F16_H
#define KLAUS_OPS_CONV_GEMM_F16_H
#include "ops/op.h"

/* Phase 0 pads (where that is needed), phase 1 multiplies. */
#define KLAUS_CONV_GEMM_F16_PHASES 2

bool klaus_conv_gemm_f16_can(const klaus_shape *shape);
uint64_t klaus_conv_gemm_f16_packed_bytes(const klaus_shape *shape);
void klaus_conv_gemm_f16_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);
uint64_t klaus_conv_gemm_f16_scratch_bytes(const klaus_shape *shape, int32_t parts);
void klaus_conv_gemm_f16_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts);

#endif
