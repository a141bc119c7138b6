/* Convolution in the transform domain (Winograd 1980; Lavin, Gray: "Fast algorithms for convolutional neural networks",
 * 2016): see ops/conv/conv.h for what it computes; its oracle is klaus_conv_f32_ref.
 *
 * A tile of m x m outputs comes from n x n samples of the input, n = m + r - 1 for a kernel of r x r taps: samples and
 * weights are transformed (the values of polynomials at n - 1 points and at infinity), multiplied position by position,
 * summed over the channels, and transformed back. The n * n positions are as many matrix multiplies.
 * A stride of two is four convolutions of stride one: even and odd rows and columns ("phases") have the even and odd
 * taps of the kernel for themselves. All four add up in the transform domain. Odd phases have a tap less, and with it
 * nothing at infinity, so those positions are left out.
 *
 * Rounding: an output's error is a fraction of the largest sums of its tile, not of its own, about 3e-6 of the layer's
 * largest value for six points. A NaN or an infinity spreads over its tile.
 *
 * Transformed weights are four times as many and more, so kernels of 3x3 and 5x5 are packed as they are and transformed
 * a panel at a time while the network runs: some 30 instructions for four weights, used for all tiles.
 *
 * Packed layout: for each group its panels (klaus_panel_width() channels wide), each float scale[width], bias[width]
 * and 3x3, 5x5: float or half weight[channel][kernel row][kernel column][width], halves where those hold all weights
 *     7x7: float weight[position row][position column][phase row][phase column][channel][width], transformed
 * with zeros where a panel is wider than the channels left. */
#ifndef KLAUS_OPS_WINOGRAD_H
#define KLAUS_OPS_WINOGRAD_H
#include "ops/op.h"

#define KLAUS_WINOGRAD_MOST_POINTS 6
#define KLAUS_WINOGRAD_MOST_TILE 4 /* of six points and three taps */
#define KLAUS_WINOGRAD_MOST_POSITIONS (KLAUS_WINOGRAD_MOST_POINTS * KLAUS_WINOGRAD_MOST_POINTS)

/* Phase 0 transforms the input, phase 1 multiplies and transforms back. */
#define KLAUS_WINOGRAD_PHASES 2

typedef struct klaus_winograd {
    int32_t points, taps, tile; /* n, r, m */
    int32_t stride;             /* 1 or 2: phases in each direction */
    int32_t tile_rows, tile_cols, tiles;
    int32_t channels, filters; /* of a group */
    int64_t depth;             /* of all positions together */
    bool fresh;                /* weights are transformed while the network runs */
    bool halves;               /* and until then they are halves */
} klaus_winograd;

klaus_winograd klaus_winograd_of(const klaus_shape *shape);

/* Phases of position `index` in one direction. */
static inline int32_t klaus_winograd_phases(const klaus_winograd *w, int32_t index) {
    return w->stride == 2 && index == w->points - 1 ? 1 : w->stride;
}

static inline int32_t klaus_winograd_depth(const klaus_winograd *w, int32_t row, int32_t col) {
    return w->channels * klaus_winograd_phases(w, row) * klaus_winograd_phases(w, col);
}

/* Bytes of a panel. */
uint64_t klaus_winograd_panel_bytes(const klaus_shape *shape, const klaus_winograd *w, int64_t width);

/* Square kernels 3x3 of stride 1, 5x5 and 7x7 of stride 2, where the transforms cost less than they save. */
bool klaus_winograd_can(const klaus_shape *shape);
uint64_t klaus_winograd_packed_bytes(const klaus_shape *shape);
void klaus_winograd_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed, int32_t panel_width);

/* ---- run: winograd_run_neon.c ---- */

/* The multiplies of all positions for a block of tiles and a panel. */
typedef struct klaus_winograd_product {
    int32_t tiles, width, positions;
    const int32_t *depths; /* [positions] */
    const float *inputs;   /* [position][depth][tiles of a block] */
    const float *weights;  /* [position][depth][width] */
    float *sums;           /* [position][tiles][width] */
} klaus_winograd_product;

typedef struct klaus_winograd_kernel {
    int32_t tiles, width; /* of a block: 4 or 8; of a panel */
    void (*multiply)(const klaus_winograd_product *product);
} klaus_winograd_kernel;

uint64_t klaus_winograd_scratch_bytes(const klaus_shape *shape, int32_t parts, const klaus_winograd_kernel *kernel);
void klaus_winograd_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                        const klaus_winograd_kernel *kernel);

#endif
