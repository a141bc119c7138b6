/* Convolution of halves in the transform domain: ops/winograd/winograd.h says how. Tiles here are of 2 x 2 outputs,
 * from four points (0, 1, -1, infinity): their factors are 1 and 1/2, and the error is 1.4e-3 of a layer's largest
 * value, where tiles of 4 x 4 have 8e-3. Inputs are transformed in halves (sums of four: they overflow from 16376 on),
 * products summed in halves up to KLAUS_HALF_TERMS channels and then in float32, sums transformed back in float32.
 *
 * Packed layout, KLAUS_LAYOUT_WINOGRAD_F16_PANELS_24: for each group its panels (up to 24 channels wide, in eights),
 * each float scale[width], bias[width] half weight[position row][position column][phase row][phase
 * column][channel][width], transformed with zeros where a panel is wider than the channels left. The scales hold powers
 * of two that keep weights about 1. */
#ifndef KLAUS_OPS_WINOGRAD_F16_H
#define KLAUS_OPS_WINOGRAD_F16_H
#include "ops/op.h"

#define KLAUS_WINOGRAD_F16_PHASES 2 /* the input's transform; products and the way back */
#define KLAUS_WINOGRAD_F16_TILES 8  /* of a block */
#define KLAUS_WINOGRAD_F16_WIDTH 24
#define KLAUS_WINOGRAD_F16_POINTS 4
#define KLAUS_WINOGRAD_F16_POSITIONS 16
#define KLAUS_WINOGRAD_F16_TILE 2

typedef struct klaus_winograd_f16 {
    int32_t stride; /* 1 or 2: phases in each direction */
    int32_t tile_rows, tile_cols, tiles;
    int32_t blocks, block_tiles; /* blocks of so many tiles, the last may have fewer */
    int32_t channels, filters;   /* of a group */
    int64_t depth;               /* of all positions together */
} klaus_winograd_f16;

klaus_winograd_f16 klaus_winograd_f16_of(const klaus_shape *shape);

/* Phases of position `index` in one direction: odd ones have no third tap, and nothing at infinity. */
static inline int32_t klaus_winograd_f16_phases(const klaus_winograd_f16 *w, int32_t index) {
    return w->stride == 2 && index == KLAUS_WINOGRAD_F16_POINTS - 1 ? 1 : w->stride;
}

static inline int32_t klaus_winograd_f16_depth(const klaus_winograd_f16 *w, int32_t row, int32_t col) {
    return w->channels * klaus_winograd_f16_phases(w, row) * klaus_winograd_f16_phases(w, col);
}

static inline int32_t klaus_winograd_f16_panel_width(const klaus_winograd_f16 *w, int32_t first) {
    const int32_t rest = (w->filters - first + 7) / 8 * 8;
    return rest < KLAUS_WINOGRAD_F16_WIDTH ? rest : KLAUS_WINOGRAD_F16_WIDTH;
}

static inline size_t klaus_winograd_f16_panel_bytes(const klaus_winograd_f16 *w, int32_t width) {
    return (size_t)width * (2 * sizeof(float) + 2 * (size_t)w->depth);
}

/* 3x3 of stride 1, 5x5 of stride 2, where the transforms cost less than they save. */
bool klaus_winograd_f16_can(const klaus_shape *shape);
uint64_t klaus_winograd_f16_packed_bytes(const klaus_shape *shape);
void klaus_winograd_f16_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed);
/* All transformed samples, in halves: [group][block of tiles][position][phase][channel][8 tiles]; phase 0. */
void klaus_winograd_f16_inputs(const klaus_call *call, const klaus_winograd_f16 *w, int32_t part, int32_t parts);

#endif
