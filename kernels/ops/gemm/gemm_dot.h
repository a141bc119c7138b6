/* The int8 matrix multiply's micro-kernels for cores with dot products or matrix multiplies: a few rows of inputs times
 * one panel of weights, exact sums kept in registers, finished as ops/int8.h says.
 *
 * A step is four numbers of depth. Inputs are gathered and interleaved first, so that a tile reads both sides in order:
 * four rows are one block, [step][row][4]; rows beyond the last one may hold anything. A panel has 4, 8 or 12 output
 * channels, [step][channel][4], zeros where there is no weight: what an input holds there does not matter. Kernels that
 * multiply matrices want two steps at once, `eights`: [two steps][row][8] and [two steps][channel][8]. */
#ifndef KLAUS_OPS_GEMM_DOT_H
#define KLAUS_OPS_GEMM_DOT_H
#include "ops/op.h"

#define KLAUS_DOT_ROWS 8   /* of a tile, at most: two blocks */
#define KLAUS_DOT_WIDTH 12 /* of a panel, at most */
#define KLAUS_DOT_BLOCK 4

/* How a layer's values become results. */
typedef struct klaus_dot_results {
    bool floats; /* float32, activated; else int8: rounded, zero added, limited */
    bool addend; /* input[1] is added */
    bool bytes;  /* int8 without an addend, zero -128, and int8's own ends are the limits: so after ReLU */
    int32_t zero, low, high;
    int32_t addend_zero;
    float addend_factor;
} klaus_dot_results;

/* One panel for some rows. */
typedef struct klaus_dot_tile {
    const klaus_call *call;
    const klaus_dot_results *results;
    int64_t rows; /* any number: cut into tiles */
    int32_t width;
    int32_t outputs; /* channels of the panel that exist */
    int64_t steps;   /* even */
    const int8_t *inputs;
    size_t block_bytes; /* from one block to the next, a multiple of 16 */
    const int8_t *weights;
    const int32_t *start; /* [width]: -zero * sum of weights */
    const float *multiplier, *offset;
    int64_t at; /* index of the first result in output and addend; rows are out_channels apart */
} klaus_dot_tile;

typedef struct klaus_dot_kernel {
    void (*run)(const klaus_dot_tile *tile);
    bool eights;
} klaus_dot_kernel;

extern const klaus_dot_kernel klaus_gemm_i8_neon_dotprod_8x12;
extern const klaus_dot_kernel klaus_gemm_i8_neon_i8mm_8x12;

klaus_dot_results klaus_dot_results_of(const klaus_shape *shape);

/* Results of bare sums, [rows][width], that a micro-kernel leaves to this: other than whole vectors of int8. The
 * first one stands at `at`. */
void klaus_dot_finish(const klaus_dot_tile *tile, int64_t at, int32_t rows, const int32_t *sums);

#endif
