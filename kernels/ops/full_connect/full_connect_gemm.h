/* Full connect for a batch from weights that stay packed: every variant is this driver with a micro-kernel
 * (ops/gemm/gemm.h) and decoders.
 *
 * Packed layout: first the table (codebooks only), then the panels of klaus_panel_width() outputs, each
 *     float scale[width], bias[width]; the weights of inputs 0 .. KLAUS_FULL_CONNECT_BLOCK - 1, those of the next, ...
 * A block holds its weights in the order [input][width]: floats; halves; 8-bit indices of float entries; or 4 or 2-bit
 * indices in groups of 32 or 64 that fill 16 bytes: byte i holds number i in its lowest bits, then i + 16, (i + 32, i +
 * 48). The last group is filled up with index 0. The table: for 8 bits 256 floats; for 4 and 2 bits bytes 0, 1, 2, 3 of
 * the 16 entries as four rows of 16, for half entries rows 0 and 1 alone are used. */
#ifndef KLAUS_OPS_FULL_CONNECT_GEMM_H
#define KLAUS_OPS_FULL_CONNECT_GEMM_H
#include "ops/gemm/gemm.h"
#include "ops/op.h"

#define KLAUS_FULL_CONNECT_BLOCK 256

typedef void (*klaus_decoder)(const void *table, const uint8_t *encoded, int64_t count, float *weights);

/* The dtype of a packed weight: 8-bit indices of half entries become the halves themselves, as no register table holds
 * 256 entries and looking each up costs several times what reading a second byte does. */
uint32_t klaus_full_connect_stored(const klaus_shape *shape);
klaus_decoder klaus_full_connect_decoder(const klaus_shape *shape); /* NULL where floats are stored */
size_t klaus_full_connect_table_bytes(const klaus_shape *shape);
uint64_t klaus_full_connect_block_bytes(const klaus_shape *shape, int64_t inputs, int32_t width);
uint64_t klaus_full_connect_panel_bytes(const klaus_shape *shape, int32_t width);
/* Inputs of the block that begins at input `first`. */
int64_t klaus_full_connect_block_inputs(int64_t inputs, int64_t first);

uint64_t klaus_full_connect_gemm_packed_bytes(const klaus_shape *shape, int32_t panel_width);
void klaus_full_connect_gemm_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed,
                                  int32_t panel_width);
uint64_t klaus_full_connect_gemm_scratch_bytes(const klaus_shape *shape, int32_t parts, int32_t panel_width);
/* For a batch of one, weights of floats, halves, 4-bit indices of halves; full_connect_gemv_neon.c. */
bool klaus_full_connect_gemv_can(const klaus_shape *shape);
void klaus_full_connect_gemv_run(const klaus_call *call, int32_t part, int32_t parts, int32_t panel_width);
void klaus_full_connect_gemm_run(const klaus_call *call, int32_t part, int32_t parts, const klaus_gemm_kernel *kernel);

/* Weights as floats: `count` of them from `encoded`, rounded up to whole groups; decode_neon.c. */
void klaus_decode_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights);
void klaus_decode_q8(const void *table, const uint8_t *encoded, int64_t count, float *weights);
void klaus_decode_q4_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights);
void klaus_decode_q4_f32(const void *table, const uint8_t *encoded, int64_t count, float *weights);
void klaus_decode_q2_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights);
void klaus_decode_q2_f32(const void *table, const uint8_t *encoded, int64_t count, float *weights);

#endif
