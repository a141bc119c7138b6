/* Full connect of halves from weights that stay packed: see ops/full_connect/full_connect.h for what it computes.
 *
 * Packed layout, KLAUS_LAYOUT_FULL_CONNECT_F16_PANELS_16: first the table (4 and 2 bits only): the low bytes of 16
 * halves, then their high bytes; then for each 16 outputs a panel
 *     float scale[16], bias[16], the weights of all inputs, filled up to whole eights
 * in the order [input][16]: halves; or indices, 16 bytes for two (4 bits) or four (2 bits) inputs: byte i holds the
 * index of output i for the first of them in its lowest bits, then for the second, ...
 * 8-bit indices become the halves themselves, as no register table holds 256 entries, and so do floats. Where entries
 * or weights are too large or too small for halves all are divided by a power of two, which goes to the scale. Places
 * that no output or input fills hold zeros.
 *
 * Phase 0 brings the inputs into the order [tile of rows][input][row], so that eight inputs of a tile are as many whole
 * vectors as it has rows; phase 1 multiplies. Up to KLAUS_HALF_TERMS products are summed in halves, such sums in
 * float32. */
#ifndef KLAUS_OPS_FULL_CONNECT_F16_H
#define KLAUS_OPS_FULL_CONNECT_F16_H
#include "ops/op.h"

#define KLAUS_FULL_CONNECT_F16_WIDTH 16
#define KLAUS_FULL_CONNECT_F16_PHASES 2

bool klaus_full_connect_f16_can(const klaus_shape *shape);
/* KLAUS_F16, KLAUS_Q4 or KLAUS_Q2: how weights are packed. */
uint32_t klaus_full_connect_f16_stored(const klaus_shape *shape);
size_t klaus_full_connect_f16_table_bytes(const klaus_shape *shape);
size_t klaus_full_connect_f16_panel_bytes(const klaus_shape *shape);
uint64_t klaus_full_connect_f16_packed_bytes(const klaus_shape *shape);
void klaus_full_connect_f16_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

#endif
