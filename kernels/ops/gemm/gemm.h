/* The matrix multiply's micro-kernels: a few rows of inputs times one panel of weights, sums kept in registers.
 *
 * A tile has up to `rows` input rows (pixels, or rows of a batch) and a panel `width` output channels, 4, 8, ... up to
 * the kernel's own width. The inputs are read where they lie: each tap (a cell of a convolution's window) gives one
 * pointer a row to `depth` consecutive floats, so that no im2col copy is made. A panel is
 *     float scale[width], bias[width], weight[taps * depth][width]
 * Every output is one sum in the order of the taps, whatever the tile's size, so results do not depend on how a matrix
 * is cut. Reads nothing outside the operands. */
#ifndef KLAUS_OPS_GEMM_H
#define KLAUS_OPS_GEMM_H
#include <stddef.h>
#include <stdint.h>

typedef struct klaus_gemm_tile {
    int32_t rows, width;
    int32_t taps, depth;
    const float *const *inputs; /* [taps][rows] */
    size_t offset;              /* in floats, added to each of them */
    const float *weights;       /* [taps * depth][width], 4-byte aligned */
    const float *start;         /* [rows][width] to add to, or NULL: a first sum */
    /* Where scale is NULL it counts as ones, and the sums begin with the bias instead of zero.
     * finished: output[row * stride + c] = act(scale[c] * sum + bias[c] + addend[row * stride + c]), c < outputs;
     * else the bare sums of all `width` channels go there. */
    int32_t finished;
    int32_t outputs;
    uint32_t activation;
    const float *scale, *bias; /* [width]; scale may be NULL */
    const float *addend;       /* or NULL; it may be the output */
    float *output;
    size_t stride;
} klaus_gemm_tile;

typedef struct klaus_gemm_kernel {
    int32_t rows, width;
    void (*run)(const klaus_gemm_tile *tile);
} klaus_gemm_kernel;

extern const klaus_gemm_kernel klaus_gemm_f32_neon_4x8;  /* 16 vector registers: armv7; gemm_neon.c */
extern const klaus_gemm_kernel klaus_gemm_f32_neon_7x12; /* 32 vector registers: aarch64; gemm_neon64.c */

/* ---- panels: how output channels are cut ---- */

/* The width of the panel that begins at channel `first` of `channels`: full panels, then the narrowest multiple of
 * four that holds the rest. */
static inline int32_t klaus_panel_width(int32_t channels, int32_t first, int32_t full_width) {
    const int32_t rest = (channels - first + 3) / 4 * 4;
    return rest < full_width ? rest : full_width;
}

/* Channels of all panels together, padding included. */
static inline int32_t klaus_panel_channels(int32_t channels) {
    return (channels + 3) / 4 * 4;
}

#endif
