/* The matrix multiply from packed inputs: whole tiles of rows, one panel of weights after the other.
 *
 * Inputs lie as the multiply reads them, [tile][quad][row][4], where a quad is four steps of depth: a few wide loads
 * fetch all rows' share of it, and what makes a tile (pointers, constants, a call) is made once for all tiles of a
 * panel. A panel is
 *     float bias[width], weight[4 * quads][width]
 * with the scale multiplied in and zeros behind the depth. Every output is one sum in the order of the depth that
 * begins with the bias, the same as that of a klaus_gemm_tile without scale. */
#ifndef KLAUS_OPS_GEMM_PACKED_H
#define KLAUS_OPS_GEMM_PACKED_H
#include "ops/gemm/gemm.h"

typedef struct klaus_gemm_panel {
    int64_t tiles, quads;
    int32_t width;
    uint32_t activation;
    const float *inputs;
    const float *bias, *weights;
    const float *addend; /* or NULL; it may be the output */
    float *output;       /* row n of tile t is at output + (t * rows + n) * stride; whole panels alone */
    size_t stride;
} klaus_gemm_panel;

typedef struct klaus_gemm_packed_kernel {
    int32_t rows, width;
    /* A tile's inputs: `quads` times four floats of each row from its pointer + offset on. Returns where they end. */
    float *(*pack)(const float *const *rows, size_t offset, int64_t quads, float *to);
    /* The same from pointers for each tap, [taps][row], to whole rows of inputs, `line` floats apart. */
    void (*lay_out)(const float *const *rows, size_t offset, int32_t taps, int32_t depth, float *to, int64_t line);
    void (*multiply)(const klaus_gemm_panel *panel);
    const klaus_gemm_kernel *rest; /* of the same width, for the rows that fill no tile; they are not packed */
} klaus_gemm_packed_kernel;

extern const klaus_gemm_packed_kernel klaus_gemm_f32_neon_packed_7x12; /* aarch64; gemm_packed_neon64.c */

#endif
