/* Full connect of int8 by dot products, from weights that stay packed.
 *
 * Packed layout: the table (16 int8 entries and 48 bytes of nothing; where 4 or 2-bit indices are stored), then the
 * panels of eight outputs, each
 *     float step[8]; int32 sum of the weights[8]; weights in the order [step of four inputs][output][4]
 * with the inputs filled up to a multiple of 32; what stands for inputs that do not exist meets zeros. A weight is an
 * int8 number (float and half weights, 8-bit indices: the entry itself), or a 4 or 2-bit index: byte i of 16 holds
 * number i of 32 or 64 in its lowest bits, then i + 16, (i + 32, i + 48). */
#ifndef KLAUS_OPS_FULL_CONNECT_DOT_H
#define KLAUS_OPS_FULL_CONNECT_DOT_H
#include "ops/op.h"

#define KLAUS_FULL_CONNECT_DOT_WIDTH 8

bool klaus_full_connect_dot_can(const klaus_shape *shape);
/* Inputs of a row, filled up with zeros. */
int64_t klaus_full_connect_dot_inputs(const klaus_shape *shape);
/* KLAUS_I8, KLAUS_Q4 or KLAUS_Q2 */
uint32_t klaus_full_connect_dot_stored(const klaus_shape *shape);
size_t klaus_full_connect_dot_table_bytes(const klaus_shape *shape);
size_t klaus_full_connect_dot_panel_bytes(const klaus_shape *shape);
uint64_t klaus_full_connect_dot_packed_bytes(const klaus_shape *shape);
void klaus_full_connect_dot_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

#endif
