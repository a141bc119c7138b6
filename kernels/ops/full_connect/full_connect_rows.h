/* Full connect for ten rows at once on aarch64; full_connect_rows_neon64.c. */
#ifndef KLAUS_OPS_FULL_CONNECT_ROWS_H
#define KLAUS_OPS_FULL_CONNECT_ROWS_H
#include "ops/op.h"

/* Phase 0 turns the inputs, phase 1 multiplies. */
#define KLAUS_FULL_CONNECT_ROWS_PHASES 2

/* Batches of tens, panels of 8 outputs, weights of floats, halves, 4-bit indices of halves. */
bool klaus_full_connect_rows_can(const klaus_shape *shape);
uint64_t klaus_full_connect_rows_scratch_bytes(const klaus_shape *shape, int32_t parts);
void klaus_full_connect_rows_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts);

#endif
