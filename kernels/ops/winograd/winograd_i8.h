/* int8 convolution in the transform domain, exact: ops/int8.h says what it computes, to the bit. See winograd.h for the
 * method; here everything is an integer.
 *
 * The six points 0, 1, -1, 2, -2 and infinity of samples x - zero and of weights fit 16 bits: (4 + 5 + 1)^2 * 255, 49 *
 * 127 for three taps, 225 * 127 for four. SMLAL multiplies them into 32 bits, where sums may wrap: what comes out is
 * right modulo 2^32. The way back leaves each output times 9 * 2^k, k = 2 .. 6, as no fraction may arise: 9 has an
 * inverse modulo 2^32, and SCVTF divides by 2^k while it converts. So an output is exact where its sum is less than
 * 2^25 in magnitude. 255 times the larger of the sums of its positive and its negative weights bounds it: where that is
 * not enough for a panel, pack() says so, and the panel is computed without transforms.
 *
 * A multiply takes seven tiles by twelve channels. Eight steps of depth stand in a register of each tile, so that
 * transformed samples are stored as they come, channels side by side, and SMLAL takes them by element. Depths are even:
 * weights of two steps fill three registers.
 * For a stride of two and few channels both columns' phases lie side by side in memory and are taken as one stretch.
 *
 * Packed layout, KLAUS_LAYOUT_WINOGRAD_I8: for each group its panels (klaus_panel_width() channels wide), each
 *     float step[width]; int32 exact, 0, 0, 0: whether transforms give exact sums
 *     3x3, 5x5: int8 weight[pair of channels][kernel row][kernel column][2 * width]
 *     7x7, or few channels: int16 weight[position row][position column][pair of steps][2 * width], transformed
 * a pair's weights in this order: 12 wide: 0-7 of the first; 8-11 of the first, of the second; 0-7 of the second; 8 and
 * 4 wide: those of the first, those of the second. */
#ifndef KLAUS_OPS_WINOGRAD_I8_H
#define KLAUS_OPS_WINOGRAD_I8_H
#include "ops/gemm/gemm.h"
#include "ops/int8_neon64.h"

#define KLAUS_WINOGRAD_I8_POINTS 6
#define KLAUS_WINOGRAD_I8_POSITIONS (KLAUS_WINOGRAD_I8_POINTS * KLAUS_WINOGRAD_I8_POINTS)
#define KLAUS_WINOGRAD_I8_WIDTH 12 /* of a panel */
#define KLAUS_WINOGRAD_I8_TILES 7  /* of a block */

typedef struct klaus_winograd_i8 {
    int32_t kernel, stride, taps, tile;
    int32_t tile_rows, tile_cols, tiles, blocks;  /* blocks of KLAUS_WINOGRAD_I8_TILES */
    int32_t channels, filters, panels;            /* of a group */
    bool joined;                                  /* a stretch of depth is both columns' phases */
    bool fresh;                                   /* weights are transformed while the network runs */
    int64_t rows, cols;                           /* of the padded copy */
    int32_t depths[KLAUS_WINOGRAD_I8_POSITIONS];  /* even */
    int64_t offsets[KLAUS_WINOGRAD_I8_POSITIONS]; /* of a position in the transformed samples of a block */
    int64_t block_size, depth;                    /* all transformed samples of a block; of all positions together */
    uint64_t copy_bytes, inputs_bytes, sums_bytes, weights_bytes;
} klaus_winograd_i8;

klaus_winograd_i8 klaus_winograd_i8_of(const klaus_shape *shape);

static inline int32_t klaus_winograd_i8_even(int32_t count) {
    return (count + 1) / 2 * 2;
}

/* Phases of position `index` in one direction: odd ones have nothing at infinity. */
static inline int32_t klaus_winograd_i8_phases(const klaus_winograd_i8 *g, int32_t index) {
    return index == KLAUS_WINOGRAD_I8_POINTS - 1 ? 1 : g->stride;
}

/* Steps of depth of one stretch. */
static inline int32_t klaus_winograd_i8_stretch(const klaus_winograd_i8 *g, int32_t col) {
    return klaus_winograd_i8_even(g->joined ? g->channels * klaus_winograd_i8_phases(g, col) : g->channels);
}

/* Where a phase's stretch begins in a position's depth. */
static inline int32_t klaus_winograd_i8_stretch_at(const klaus_winograd_i8 *g, int32_t col, int32_t down,
                                                   int32_t right) {
    const int32_t number = g->joined ? down : down * klaus_winograd_i8_phases(g, col) + right;
    return number * klaus_winograd_i8_stretch(g, col);
}

/* The parts of a panel. */
typedef struct klaus_winograd_i8_panel {
    int32_t first, width, count; /* its first filter in the group; count: filters that exist */
    float *steps;
    int32_t *exact;
    void *weights;
} klaus_winograd_i8_panel;

static inline uint64_t klaus_winograd_i8_panel_bytes(const klaus_winograd_i8 *g, int64_t width) {
    const int64_t taps = (int64_t)g->kernel * g->kernel;
    const int64_t weights =
        g->fresh ? klaus_winograd_i8_even(g->channels) * taps * width : g->depth * width * (int64_t)sizeof(int16_t);
    return (uint64_t)(width * (int64_t)sizeof(float) + 4 * (int64_t)sizeof(int32_t) + weights);
}

static inline uint64_t klaus_winograd_i8_group_bytes(const klaus_winograd_i8 *g) {
    const int32_t full = g->filters / KLAUS_WINOGRAD_I8_WIDTH,
                  rest = klaus_panel_channels(g->filters - full * KLAUS_WINOGRAD_I8_WIDTH);
    return (uint64_t)full * klaus_winograd_i8_panel_bytes(g, KLAUS_WINOGRAD_I8_WIDTH) +
           (rest > 0 ? klaus_winograd_i8_panel_bytes(g, rest) : 0);
}

static inline klaus_winograd_i8_panel klaus_winograd_i8_panel_at(const void *packed, const klaus_winograd_i8 *g,
                                                                 int32_t group, int32_t number) {
    uint8_t *at = (uint8_t *)(uintptr_t)packed + (size_t)group * (size_t)klaus_winograd_i8_group_bytes(g) +
                  (size_t)number * (size_t)klaus_winograd_i8_panel_bytes(g, KLAUS_WINOGRAD_I8_WIDTH);
    klaus_winograd_i8_panel p = {
        .first = number * KLAUS_WINOGRAD_I8_WIDTH,
        .width = klaus_panel_width(g->filters, number * KLAUS_WINOGRAD_I8_WIDTH, KLAUS_WINOGRAD_I8_WIDTH)};
    p.count = g->filters - p.first < p.width ? g->filters - p.first : p.width;
    p.steps = (float *)(void *)at;
    p.exact = (int32_t *)(void *)(p.steps + p.width);
    p.weights = p.exact + 4;
    return p;
}

/* Where the weight of filter `column` for step `step` of depth stands among a panel's. */
static inline int64_t klaus_winograd_i8_place(int64_t step, int32_t column, int32_t width) {
    const int32_t second = (int32_t)(step % 2);
    const int64_t pair = step / 2 * 2 * width;
    if (width == KLAUS_WINOGRAD_I8_WIDTH)
        return pair + (column < 8 ? 16 * second + column : 8 + 4 * second + column - 8);
    return pair + width * second + column;
}

/* 3x3 of stride 1, 5x5 and 7x7 of stride 2, where the transforms cost less than they save. */
bool klaus_winograd_i8_can(const klaus_shape *shape);
uint64_t klaus_winograd_i8_packed_bytes(const klaus_shape *shape);
void klaus_winograd_i8_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

/* ---- samples: winograd_i8_inputs_neon64.c ---- */

/* Phase 0: the input, padded, at the beginning of scratch. */
void klaus_winograd_i8_copy(const klaus_call *call, const klaus_winograd_i8 *g, int32_t part, int32_t parts);
/* Phase 1: all tiles, [group][block][position][tile of the block][step of depth]. */
void klaus_winograd_i8_inputs(const klaus_call *call, const klaus_winograd_i8 *g, int32_t part, int32_t parts);

/* The transformed samples of a block. */
static inline int16_t *klaus_winograd_i8_inputs_of(const klaus_call *call, const klaus_winograd_i8 *g, int64_t block) {
    return (int16_t *)(void *)((uint8_t *)call->scratch + (size_t)g->copy_bytes) + block * g->block_size;
}

/* ---- products: winograd_i8_product_neon64.c ---- */

typedef struct klaus_winograd_i8_product {
    const klaus_winograd_i8 *g;
    const int16_t *inputs;  /* of a block */
    const int16_t *weights; /* of a panel, transformed */
    int32_t *sums;          /* [position][tiles][width] */
} klaus_winograd_i8_product;

/* A fresh panel's weights, transformed. */
void klaus_winograd_i8_weights(const klaus_winograd_i8 *g, const klaus_winograd_i8_panel *p, int16_t *to);
/* All positions of a block's first `tiles` tiles by a panel. */
void klaus_winograd_i8_multiply(const klaus_winograd_i8_product *p, int32_t tiles, int32_t width);

/* ---- outputs: winograd_i8_finish_neon64.c ---- */

/* What belongs to one panel. */
typedef struct klaus_winograd_i8_target {
    const klaus_shape *shape;
    const klaus_winograd_i8 *g;
    const klaus_int8_target *finish;
    int8_t *output; /* of the panel's first channel */
    const int8_t *addend;
    int32_t count; /* channels that exist */
    float multiplier[KLAUS_WINOGRAD_I8_WIDTH], offset[KLAUS_WINOGRAD_I8_WIDTH];
} klaus_winograd_i8_target;

/* The first `tiles` tiles of a block, from what klaus_winograd_i8_multiply() left in `sums`; `copy`: the padded input
 * of the panel's group. */
void klaus_winograd_i8_finish(const klaus_winograd_i8_target *to, const klaus_winograd_i8_panel *p, const int32_t *sums,
                              int32_t block, int32_t tiles, const int8_t *copy);

#endif
