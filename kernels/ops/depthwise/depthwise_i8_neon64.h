/* int8 depthwise convolution, 3x3 and 5x5, stride 1 and 2: what both walks share, that by pairs of products
 * (depthwise_i8_neon64.c) and that by dot products (depthwise_neon_dotprod.c). ops/int8.h says what is computed.
 *
 * Channels are cut into blocks of sixteen, a block's output rows into bands. The input rows of a band are copied into
 * scratch with the input's zero around them, so that the loops behind have no edges and no channels that do not exist.
 * A packed block begins with float step[16]; int32 sum of the weights[16]. */
#ifndef KLAUS_OPS_DEPTHWISE_I8_NEON64_H
#define KLAUS_OPS_DEPTHWISE_I8_NEON64_H
#include "ops/int8_neon64.h"
#include "ops/shape.h"

#define KLAUS_DEPTHWISE_I8_HEAD_BYTES (8 * KLAUS_INT8_BLOCK) /* of a packed block */

/* What sums of a block begin with, and what becomes of them. */
typedef struct klaus_depthwise_i8_head {
    int32_t start[KLAUS_INT8_BLOCK];
    float multiplier[KLAUS_INT8_BLOCK], offset[KLAUS_INT8_BLOCK];
} klaus_depthwise_i8_head;

typedef struct klaus_depthwise_i8_bands {
    int32_t blocks, rows, bands; /* rows of the output in a band, bands of a block */
    int64_t in_rows;             /* that a band copies */
} klaus_depthwise_i8_bands;

/* What a line of outputs needs. */
typedef struct klaus_depthwise_i8_line {
    const int8_t *input, *weights; /* the first window in the copy; behind the packed block's head */
    int64_t row_bytes;             /* of the copy */
    const klaus_depthwise_i8_head *head;
    const klaus_int8_target *target;
    int8_t *output;
    const int8_t *addend; /* or NULL */
    int64_t step;         /* of output and addend, from column to column */
    int32_t count;        /* channels that exist */
} klaus_depthwise_i8_line;

bool klaus_depthwise_i8_can(const klaus_shape *shape);
/* The rare output, with an addend or of fewer than sixteen channels; on to the next one's place. */
void klaus_depthwise_i8_finish(klaus_depthwise_i8_line *line, const int32x4_t *sums);

/* `band_bytes`: how much of the copy fits the cache; `row_bytes`: what a row of it takes. */
static inline klaus_depthwise_i8_bands klaus_depthwise_i8_bands_of(const klaus_shape *s, int64_t band_bytes,
                                                                   int64_t row_bytes) {
    const int32_t kernel = s->kernel_rows, stride = s->stride_rows;
    const int64_t rows = (band_bytes / row_bytes - kernel) / stride + 1;
    klaus_depthwise_i8_bands b;
    b.blocks = (s->in_channels + KLAUS_INT8_BLOCK - 1) / KLAUS_INT8_BLOCK;
    b.rows = rows < 4 ? 4 : rows > s->out_rows ? s->out_rows : (int32_t)rows;
    b.bands = (s->out_rows + b.rows - 1) / b.rows;
    b.in_rows = (int64_t)(b.rows - 1) * stride + kernel;
    return b;
}

/* The head of the block that begins with channel `first`, from its packed form. */
static inline void klaus_depthwise_i8_head_of(const klaus_call *call, const uint8_t *packed, int32_t first,
                                              int32_t count, klaus_depthwise_i8_head *head) {
    const int32_t *sums = (const int32_t *)(const void *)(packed + 4 * KLAUS_INT8_BLOCK);
    for (int32_t c = 0; c < KLAUS_INT8_BLOCK; c++)
        head->start[c] = -call->shape->in_quantization[0].zero * sums[c];
    klaus_int8_head(call, first, count, KLAUS_INT8_BLOCK, (const float *)(const void *)packed, head->multiplier,
                    head->offset);
}

static inline int8_t *klaus_depthwise_i8_fill(int8_t *to, int64_t cells, int8x16_t value) {
    for (; cells > 0; cells--, to += KLAUS_INT8_BLOCK)
        vst1q_s8(to, value);
    return to;
}

/* One row's `cells` cells of a block of `count` channels, `before` and behind them cells of the zero, `all` in all. */
static inline int8_t *klaus_depthwise_i8_gather(const int8_t *from, int64_t step, int32_t count, int64_t before,
                                                int64_t cells, int64_t all, int8x16_t zero, int8_t *to) {
    to = klaus_depthwise_i8_fill(to, before, zero);
    int64_t left = cells;
    if (count >= KLAUS_INT8_BLOCK) {
        for (; left >= 4; left -= 4, from += 4 * step, to += 4 * KLAUS_INT8_BLOCK) {
            const int8x16_t a = vld1q_s8(from), b = vld1q_s8(from + step), c = vld1q_s8(from + 2 * step),
                            d = vld1q_s8(from + 3 * step);
            vst1q_s8(to, a);
            vst1q_s8(to + KLAUS_INT8_BLOCK, b);
            vst1q_s8(to + 2 * KLAUS_INT8_BLOCK, c);
            vst1q_s8(to + 3 * KLAUS_INT8_BLOCK, d);
        }
        for (; left > 0; left--, from += step, to += KLAUS_INT8_BLOCK)
            vst1q_s8(to, vld1q_s8(from));
    }
    for (; left > 0; left--, from += step, to += KLAUS_INT8_BLOCK)
        vst1q_s8(to, klaus_int8_load_some(from, count));
    return klaus_depthwise_i8_fill(to, all - before - cells, zero);
}

#endif
