/* Pointwise convolution straight from canonical rows (ops/mapped/mapped.h): see ops/conv/conv.h for what it computes;
 * its oracle is klaus_conv_f32_ref. Codebook indices stay as they are in the file; a few panels of them at a time are
 * decoded for all pixels. */
#ifndef KLAUS_OPS_POINTWISE_MAPPED_H
#define KLAUS_OPS_POINTWISE_MAPPED_H
#include "ops/gemm/gemm.h"
#include "ops/op.h"

bool klaus_pointwise_mapped_can(const klaus_shape *shape);
/* From packed panels it takes fewer instructions. */
bool klaus_pointwise_mapped_lean(const klaus_shape *shape);
uint64_t klaus_pointwise_mapped_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width);
void klaus_pointwise_mapped_run(const klaus_call *call, int32_t part, int32_t parts, const klaus_gemm_kernel *kernel);

#endif
