/* The matrix multiply for half-precision activations: see gemm.h for its tiles of rows times panels.
 *
 * A strip is some tiles of `rows` input rows one after another, with one panel of weights, `width` output channels wide
 * (8, 16 or 24). Up to KLAUS_HALF_TERMS products are summed in halves; such pieces of longer sums are kept and added up
 * in float32. A panel is
 *     uint32_t wide, 12 bytes of zeros; float scale[width], bias[width]; half start[width], weight[taps * depth][width]
 * wide = 0: the weights hold the scale, sums begin with `start`, the bias, and nothing else is to be done;
 * wide = 1: where weights or biases are too large or too small for that, `start` is zero and results are
 *     scale * sum + bias, in float32; the scales are powers of two that keep the weights about 1.
 * Every output is one sum in one order, whatever the strip's size. */
#ifndef KLAUS_OPS_GEMM_F16_H
#define KLAUS_OPS_GEMM_F16_H
#include "ops/op.h"

#define KLAUS_GEMM_F16_ROWS 7
#define KLAUS_GEMM_F16_WIDTH 24

typedef struct klaus_gemm_f16_strip {
    int32_t tiles, rows, width;
    int32_t taps, depth;
    /* Where the rows' inputs are: pointers [tile][taps][rows]; or, where that is NULL, there is one tap, and row r of
     * tile t begins at input + (t * rows + r) * input_step. */
    const uint16_t *const *inputs;
    const uint16_t *input;
    size_t input_step;
    size_t offset; /* in halves, added to each of them */
    bool readable; /* seven halves behind a tap's depth may be read */
    const void *panel;
    int32_t outputs; /* channels of the panel that exist */
    uint32_t activation;
    const void *addend; /* or NULL; it may be the output. As the output: its dtype, rows `stride` numbers apart */
    void *output;
    uint32_t out_dtype; /* KLAUS_F16 or KLAUS_F32 */
    size_t stride;
    uint16_t *sums; /* memory of klaus_gemm_f16_sums_bytes() */
} klaus_gemm_f16_strip;

/* Bytes of a panel before its weights. */
static inline size_t klaus_gemm_f16_head_bytes(int32_t width) {
    return 16 + (size_t)width * 10;
}

static inline size_t klaus_gemm_f16_panel_bytes(int32_t width, int64_t terms) {
    return (klaus_gemm_f16_head_bytes(width) + (size_t)terms * (size_t)width * 2 + 15) / 16 * 16;
}

/* The width of the panel that begins at channel `first` of `channels`. */
static inline int32_t klaus_gemm_f16_panel_width(int32_t channels, int32_t first) {
    const int32_t rest = (channels - first + 7) / 8 * 8;
    return rest < KLAUS_GEMM_F16_WIDTH ? rest : KLAUS_GEMM_F16_WIDTH;
}

/* Bytes of all panels of `channels`. */
uint64_t klaus_gemm_f16_panels_bytes(int32_t channels, int64_t terms);
/* Packs `channels` output channels from row `first` of the weights on; returns where the next panel begins. */
uint8_t *klaus_gemm_f16_pack(const klaus_shape *shape, const klaus_weights *weights, int64_t first, int32_t channels,
                             int64_t terms, uint8_t *to);
/* What a strip of up to `tiles` tiles needs for the pieces of its sums. */
uint64_t klaus_gemm_f16_sums_bytes(int32_t tiles, int32_t taps, int32_t depth);
void klaus_gemm_f16_run(const klaus_gemm_f16_strip *strip);

/* ---- one piece: up to KLAUS_HALF_TERMS products, summed in halves ---- */

typedef struct klaus_gemm_f16_piece {
    int32_t taps, depth;           /* of the piece */
    const uint16_t *const *inputs; /* [taps][rows] */
    size_t offset;                 /* in halves, added to each of them */
    bool readable;
    const uint16_t *weights; /* [taps * depth][width] */
    const uint16_t *start;   /* [width]: what the sums begin with */
    uint32_t activation;
    const uint16_t *addend; /* or NULL */
    uint16_t *output;       /* rows of `width`, `stride` halves apart, as are the addend's */
    size_t stride;
} klaus_gemm_f16_piece;

/* Tiles of 7 rows one after another, one piece of one tap; where the depth is not in whole eights, inputs must be
 * readable beyond it. gemm_7x24_neon_fp16.c. */
typedef struct klaus_gemm_f16_rows {
    int32_t tiles, depth, width;
    const uint16_t *input;
    size_t input_step; /* in halves, from row to row */
    const uint16_t *weights, *start;
    uint32_t activation;
    uint16_t *output;
    size_t stride;
} klaus_gemm_f16_rows;

void klaus_gemm_f16_rows_7(const klaus_gemm_f16_rows *rows);
/* One tile of 7 x 24, with the same limits. No addend. */
void klaus_gemm_f16_piece_7x24(const klaus_gemm_f16_piece *piece);

#endif
