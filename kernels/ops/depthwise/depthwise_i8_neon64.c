/* int8 depthwise convolution, 3x3 and 5x5, stride 1 and 2, sixteen channels at a time; ops/int8.h says what it
 * computes, to the bit.
 *
 * Channels are cut into blocks of sixteen. A block's rows are copied into scratch, some rows at a time, dense and with
 * the padding as cells of the input's zero: two instructions a cell, and what follows has no edges, reads its columns
 * at constant distances and needs no care of channels that do not exist. Two products of -128 .. 127 by -127 .. 127 fit
 * 16 bits: taps go in pairs, SMULL and SMLAL, before they are widened into the sums. The inputs' zero is taken off in
 * what the sums begin with.
 *
 * Packed layout, KLAUS_LAYOUT_DEPTHWISE_I8: for each block
 *     float step[16]; int32 sum of the weights[16]; int8 weight[kernel row][kernel column][16]
 * with zeros for the channels that do not exist. */
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/depthwise/depthwise_i8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define BLOCK KLAUS_INT8_BLOCK
#define UNROLLED KLAUS_INT8_UNROLLED
/* Of a copied band of rows: fits the first cache beside what is written. */
#define BAND_BYTES 16384
/* Output columns that are computed together. */
#define COLUMNS 4

static klaus_depthwise_i8_bands bands_of(const klaus_shape *s, int64_t *cols) {
    *cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
    return klaus_depthwise_i8_bands_of(s, BAND_BYTES, *cols * BLOCK);
}

bool klaus_depthwise_i8_can(const klaus_shape *s) {
    return klaus_conv_has_geometry(s) && klaus_shape_is(s, KLAUS_I8) && s->groups == s->in_channels &&
           s->out_channels == s->in_channels && s->in_channels >= 8 && s->kernel_rows == s->kernel_cols &&
           (s->kernel_rows == 3 || s->kernel_rows == 5) && s->stride_rows == s->stride_cols &&
           (s->stride_rows == 1 || s->stride_rows == 2) && s->pad_top >= 0 && s->pad_left >= 0;
}

static size_t block_bytes(const klaus_shape *s) {
    return BLOCK * (sizeof(float) + sizeof(int32_t) + (size_t)(s->kernel_rows * s->kernel_cols));
}

static uint64_t packed_bytes(const klaus_shape *s) {
    return ((uint64_t)s->in_channels + BLOCK - 1) / BLOCK * block_bytes(s);
}

static void pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const int32_t taps = s->kernel_rows * s->kernel_cols;
    memset(packed, 0, (size_t)packed_bytes(s));
    for (int32_t channel = 0; channel < s->in_channels; channel++) {
        uint8_t *block = (uint8_t *)packed + (size_t)(channel / BLOCK) * block_bytes(s);
        const int32_t c = channel % BLOCK;
        int8_t filter[25];
        int32_t sum = 0;
        const float step = klaus_int8_weight_step(s, weights, channel);
        klaus_int8_weights_read(s, weights, channel, step, 0, taps, filter);
        for (int32_t tap = 0; tap < taps; tap++) {
            block[8 * BLOCK + BLOCK * tap + c] = (uint8_t)filter[tap];
            sum += filter[tap];
        }
        ((float *)(void *)block)[c] = step;
        ((int32_t *)(void *)(block + 4 * BLOCK))[c] = sum;
    }
}

static uint64_t part_bytes(const klaus_depthwise_i8_bands *bands, int64_t cols) {
    return klaus_aligned(sizeof(klaus_depthwise_i8_head) + (uint64_t)(bands->in_rows * cols) * BLOCK);
}

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    int64_t cols;
    const klaus_depthwise_i8_bands bands = bands_of(s, &cols);
    return (uint64_t)parts * part_bytes(&bands, cols);
}

/* ---- the copy ---- */

/* Rows of the input's block that begins with channel `first`, from row `top` on, which may lie outside. */
static void copy_band(const klaus_call *call, int64_t cols, int64_t top, int64_t rows, int32_t first, int8_t *band) {
    const klaus_shape *s = call->shape;
    const int8x16_t zero = vdupq_n_s8((int8_t)s->in_quantization[0].zero);
    const int64_t step = s->in_channels, before = s->pad_left < cols ? s->pad_left : cols;
    const int64_t cells = cols - before < s->in_cols ? cols - before : s->in_cols;
    for (int64_t y = top; y < top + rows; y++) {
        if (y < 0 || y >= s->in_rows)
            band = klaus_depthwise_i8_fill(band, cols, zero);
        else
            band = klaus_depthwise_i8_gather((const int8_t *)call->input[0] + y * s->in_cols * step + first, step,
                                             s->in_channels - first, before, cells, cols, zero, band);
    }
}

/* ---- the sums ---- */

/* Sixteen products, or the sums of two, widened into the sums, which begin with `start` where there is one. */
__attribute__((always_inline)) static inline void fold(int32x4_t *sums, const int32_t *start, int16x8_t low,
                                                       int16x8_t high) {
    if (start != NULL)
        for (int q = 0; q < 4; q++)
            sums[q] = vld1q_s32(start + 4 * q);
    sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
    sums[1] = vaddw_high_s16(sums[1], low);
    sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
    sums[3] = vaddw_high_s16(sums[3], high);
}

__attribute__((always_inline)) static inline void fold_pair(int32x4_t *sums, const int32_t *start, int8x16_t x,
                                                            int8x16_t w, int8x16_t next_x, int8x16_t next_w) {
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(w)), vget_low_s8(next_x), vget_low_s8(next_w));
    const int16x8_t high = vmlal_high_s8(vmull_high_s8(x, w), next_x, next_w);
    fold(sums, start, low, high);
}

void klaus_depthwise_i8_finish(klaus_depthwise_i8_line *l, const int32x4_t *sums) {
    klaus_int8_finish_some(l->target, sums, 4, l->head->multiplier, l->head->offset, l->addend, l->output, l->count);
    if (l->addend != NULL)
        l->addend += l->step;
    l->output += l->step;
}

/* `columns` outputs beside one another. All but `l` are constants where it is inlined; plain: sixteen channels, no
 * addend, klaus_int8_target.plain. */
__attribute__((always_inline)) static inline void outputs(klaus_depthwise_i8_line *l, const int kernel,
                                                          const int stride, const int columns, const bool plain) {
    int32x4_t sums[COLUMNS][4];
    const int8_t *x = l->input, *w = l->weights;
    const int64_t row = l->row_bytes;
    const int32_t *start = l->head->start;
    /* Two kernel rows at a time, the last one by itself. */
    UNROLLED for (int u = 0; u + 1 < kernel; u += 2, x += 2 * row) UNROLLED for (int v = 0; v < kernel; v++) {
        const int8x16_t w0 = vld1q_s8(w + (u * kernel + v) * BLOCK), w1 = vld1q_s8(w + ((u + 1) * kernel + v) * BLOCK);
        UNROLLED for (int o = 0; o < columns; o++) {
            const int8_t *at = x + (o * stride + v) * BLOCK;
            fold_pair(sums[o], u == 0 && v == 0 ? start : NULL, vld1q_s8(at), w0, vld1q_s8(at + row), w1);
        }
    }
    w += kernel * (kernel - 1) * BLOCK;
    UNROLLED for (int v = 0; v + 1 < kernel; v += 2) UNROLLED for (int o = 0; o < columns; o++) {
        const int8_t *at = x + (o * stride + v) * BLOCK;
        fold_pair(sums[o], NULL, vld1q_s8(at), vld1q_s8(w + v * BLOCK), vld1q_s8(at + BLOCK),
                  vld1q_s8(w + (v + 1) * BLOCK));
    }
    const int8x16_t last = vld1q_s8(w + (kernel - 1) * BLOCK);
    UNROLLED for (int o = 0; o < columns; o++) {
        const int8x16_t value = vld1q_s8(x + (o * stride + kernel - 1) * BLOCK);
        fold(sums[o], NULL, vmull_s8(vget_low_s8(value), vget_low_s8(last)), vmull_high_s8(value, last));
    }
    if (plain) {
        const klaus_depthwise_i8_head *h = l->head;
        float32x4_t multiplier[4];
        UNROLLED for (int q = 0; q < 4; q++) multiplier[q] = vld1q_f32(h->multiplier + 4 * q);
        int8_t *output = l->output;
        UNROLLED for (int o = 0; o < columns; o++, output += l->step) {
            float32x4_t values[4];
            UNROLLED for (int q = 0; q < 4; q++) values[q] =
                klaus_int8_value(sums[o][q], multiplier[q], h->offset + 4 * q);
            vst1q_s8(output, klaus_int8_rounded(l->target, values, true));
        }
        l->input += BLOCK * stride * columns;
        l->output = output;
        return;
    }
    UNROLLED for (int o = 0; o < columns; o++) {
        l->input += BLOCK * stride;
        klaus_depthwise_i8_finish(l, sums[o]);
    }
}

__attribute__((always_inline)) static inline void whole_line(klaus_depthwise_i8_line *l, int32_t cols, const int kernel,
                                                             const int stride, const bool plain) {
    for (; cols >= COLUMNS; cols -= COLUMNS)
        outputs(l, kernel, stride, COLUMNS, plain);
    if (cols >= 2) {
        outputs(l, kernel, stride, 2, plain);
        cols -= 2;
    }
    if (cols > 0)
        outputs(l, kernel, stride, 1, plain);
}

__attribute__((noinline)) static void line_3x3(klaus_depthwise_i8_line *l, int32_t cols) {
    whole_line(l, cols, 3, 1, true);
}

__attribute__((noinline)) static void line_3x3_stride_2(klaus_depthwise_i8_line *l, int32_t cols) {
    whole_line(l, cols, 3, 2, true);
}

__attribute__((noinline)) static void line_5x5(klaus_depthwise_i8_line *l, int32_t cols) {
    whole_line(l, cols, 5, 1, true);
}

__attribute__((noinline)) static void line_5x5_stride_2(klaus_depthwise_i8_line *l, int32_t cols) {
    whole_line(l, cols, 5, 2, true);
}

/* What is rare needs no haste: one output at a time. */
__attribute__((noinline)) static void line_rare(klaus_depthwise_i8_line *l, int32_t cols, int32_t kernel,
                                                int32_t stride) {
    for (; cols > 0; cols--) {
        if (kernel == 3)
            outputs(l, 3, stride, 1, false);
        else
            outputs(l, 5, stride, 1, false);
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    static void (*const lines[2][2])(klaus_depthwise_i8_line *, int32_t) = {{line_3x3, line_3x3_stride_2},
                                                                            {line_5x5, line_5x5_stride_2}};
    const klaus_shape *s = call->shape;
    int64_t cols, begin, end;
    const klaus_depthwise_i8_bands bands = bands_of(s, &cols);
    const klaus_int8_target target = klaus_int8_target_of(s);
    klaus_depthwise_i8_head *head =
        (klaus_depthwise_i8_head *)(void *)((uint8_t *)call->scratch + (size_t)part * (size_t)part_bytes(&bands, cols));
    int8_t *band = (int8_t *)(head + 1);
    klaus_share((int64_t)bands.blocks * bands.bands, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        const int32_t first = (int32_t)(item / bands.bands) * BLOCK;
        const int32_t count = s->in_channels - first < BLOCK ? s->in_channels - first : BLOCK;
        const int64_t row = item % bands.bands * bands.rows;
        const int64_t rows = s->out_rows - row < bands.rows ? s->out_rows - row : bands.rows;
        const uint8_t *packed = (const uint8_t *)call->packed + (size_t)(first / BLOCK) * block_bytes(s);
        klaus_depthwise_i8_head_of(call, packed, first, count, head);
        copy_band(call, cols, row * s->stride_rows - s->pad_top, (rows - 1) * s->stride_rows + s->kernel_rows, first,
                  band);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t at = (row + i) * s->out_cols * s->out_channels + first;
            klaus_depthwise_i8_line l = {.input = band + i * s->stride_rows * cols * BLOCK,
                                         .weights = (const int8_t *)packed + KLAUS_DEPTHWISE_I8_HEAD_BYTES,
                                         .row_bytes = cols * BLOCK,
                                         .head = head,
                                         .target = &target,
                                         .output = (int8_t *)call->output + at,
                                         .addend = s->has_addend ? (const int8_t *)call->input[1] + at : NULL,
                                         .step = s->out_channels,
                                         .count = count};
            if (target.plain && count == BLOCK && l.addend == NULL)
                lines[s->kernel_rows == 5][s->stride_rows == 2](&l, s->out_cols);
            else
                line_rare(&l, s->out_cols, s->kernel_rows, s->stride_rows);
        }
    }
}

const klaus_variant klaus_depthwise_i8_neon_4x16 = {
    .name = "klaus_depthwise_i8_neon_4x16",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_DEPTHWISE_I8,
    .phases = 1,
    .can = klaus_depthwise_i8_can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
