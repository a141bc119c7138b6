/* int8 convolution without dot products: a matrix multiply of up to four pixels by panels of up to sixteen output
 * channels; ops/int8.h says what it computes, to the bit.
 *
 * A pixel's window is read in pairs of neighbouring inputs, each spread over a register (LD1R), against the weights of
 * four channels: eight products, 16 bits wide, of which SADALP adds two neighbours to the four channels' sums. So sums
 * lie in the order of the outputs, and an instruction of loading is worth sixteen multiply-adds.
 * Sums of products stay within 16 bits where the magnitudes of their weights come to at most 255. Two always do; more
 * do if the pairs are chosen for it, so pack() looks for an order of the pairs, panel by panel, in which as many as
 * possible stand in fours: SMULL, three SMLAL and a SADALP for 32 multiply-adds, instead of six instructions. Pairs are
 * read in that order, by distances from one to the next that are the same for all pixels.
 *
 * With padding the input is copied into scratch, with the input's zero around it, so that windows have no edges. What
 * the zero makes of a sum is taken off in what sums begin with.
 *
 * Packed layout, KLAUS_LAYOUT_CONV_I8_PAIRS: for each group its panels (klaus_panel_width() channels wide), each
 *     float step[width]; int32 sum of the weights[width]
 *     int32 fours, twos: groups of four and of two pairs; row, byte: where in the window the first pair lies
 *     int32 row[pairs], byte[pairs]: from each pair to the next. All pairs of a window are there, an even number: there
 *         may be one for that alone, its weights zero
 *     int8 weight: for each two pairs, for each four channels, 16 of them: both weights of the first pair for each of
 *         the channels, then those of the second pair */
#ifndef KLAUS_OPS_CONV_I8_H
#define KLAUS_OPS_CONV_I8_H
#include "ops/gemm/gemm.h"

#define KLAUS_CONV_I8_WIDTH 16 /* of a panel */

typedef struct klaus_conv_i8 {
    bool padded;             /* the input is a padded copy in scratch */
    bool flat;               /* a pixel's window is its own channels */
    int64_t rows, cols;      /* of what is read: the input or its padded copy */
    int32_t filters, panels; /* of a group */
    int32_t channels;        /* of a group */
    int32_t runs, run;       /* stretches of a window that lie together, and their bytes */
    int64_t pairs;           /* even */
    uint64_t copy_bytes, heads_bytes, part_bytes;
} klaus_conv_i8;

/* What sums of a panel begin with, and what becomes of them. */
typedef struct klaus_conv_i8_head {
    int32_t start[KLAUS_CONV_I8_WIDTH];
    float multiplier[KLAUS_CONV_I8_WIDTH], offset[KLAUS_CONV_I8_WIDTH];
} klaus_conv_i8_head;

klaus_conv_i8 klaus_conv_i8_of(const klaus_shape *shape);

/* Places of a panel's facts. */
enum {
    KLAUS_CONV_I8_FOURS,
    KLAUS_CONV_I8_TWOS,
    KLAUS_CONV_I8_FIRST_ROW,
    KLAUS_CONV_I8_FIRST_BYTE,
    KLAUS_CONV_I8_FACTS
};

/* The parts of a panel. */
typedef struct klaus_conv_i8_panel {
    int32_t width;
    float *steps;
    int32_t *sums, *facts;
    int32_t *rows, *bytes; /* [pairs] */
    int8_t *weights;
} klaus_conv_i8_panel;

static inline uint64_t klaus_conv_i8_panel_bytes(const klaus_conv_i8 *g, int64_t width) {
    return 8 * (uint64_t)width + 16 + (uint64_t)g->pairs * (8 + 2 * (uint64_t)width);
}

static inline uint64_t klaus_conv_i8_group_bytes(const klaus_conv_i8 *g) {
    const int32_t full = g->filters / KLAUS_CONV_I8_WIDTH,
                  rest = klaus_panel_channels(g->filters - full * KLAUS_CONV_I8_WIDTH);
    return (uint64_t)full * klaus_conv_i8_panel_bytes(g, KLAUS_CONV_I8_WIDTH) +
           (rest > 0 ? klaus_conv_i8_panel_bytes(g, rest) : 0);
}

/* Panel `number` of all groups. */
static inline klaus_conv_i8_panel klaus_conv_i8_panel_at(const void *packed, const klaus_conv_i8 *g, int32_t number) {
    uint8_t *at = (uint8_t *)(uintptr_t)packed + (size_t)(number / g->panels) * (size_t)klaus_conv_i8_group_bytes(g) +
                  (size_t)(number % g->panels) * (size_t)klaus_conv_i8_panel_bytes(g, KLAUS_CONV_I8_WIDTH);
    klaus_conv_i8_panel p = {
        .width = klaus_panel_width(g->filters, number % g->panels * KLAUS_CONV_I8_WIDTH, KLAUS_CONV_I8_WIDTH)};
    p.steps = (float *)(void *)at;
    p.sums = (int32_t *)(void *)(p.steps + p.width);
    p.facts = p.sums + p.width;
    p.rows = p.facts + KLAUS_CONV_I8_FACTS;
    p.bytes = p.rows + g->pairs;
    p.weights = (int8_t *)(p.bytes + g->pairs);
    return p;
}

bool klaus_conv_i8_can(const klaus_shape *shape);
uint64_t klaus_conv_i8_packed_bytes(const klaus_shape *shape);
void klaus_conv_i8_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);

#endif
