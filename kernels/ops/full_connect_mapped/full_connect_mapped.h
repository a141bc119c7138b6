/* Full connect straight from canonical rows (ops/mapped/mapped.h): see ops/full_connect/full_connect.h for what it
 * computes; its oracle is klaus_full_connect_f32_ref. Nothing is packed and nothing is copied but a block of 256 inputs
 * by a panel of outputs, decoded for all rows of a batch. For a batch of one, four outputs at a time are dot products
 * that share the loads of the inputs. */
#ifndef KLAUS_OPS_FULL_CONNECT_MAPPED_H
#define KLAUS_OPS_FULL_CONNECT_MAPPED_H
#include "ops/gemm/gemm.h"
#include "ops/op.h"

/* Any batch. */
uint64_t klaus_full_connect_mapped_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width);
void klaus_full_connect_mapped_run(const klaus_call *call, int32_t part, int32_t parts,
                                   const klaus_gemm_kernel *kernel);
/* From packed panels a batch needs fewer instructions. */
bool klaus_full_connect_mapped_lean(const klaus_shape *shape);

/* A batch of one: floats, halves, 8-bit indices, 4-bit indices of halves. */
bool klaus_full_connect_mapped_one_can(const klaus_shape *shape);
void klaus_full_connect_mapped_one(const klaus_call *call, int32_t part, int32_t parts);
/* 8-bit indices take more instructions than the halves that others pack. */
bool klaus_full_connect_mapped_one_lean(const klaus_shape *shape);

#endif
