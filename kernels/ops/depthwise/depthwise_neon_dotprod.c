/* int8 depthwise convolution by dot products, 3x3 and 5x5, stride 1 and 2, sixteen channels at a time; ops/int8.h says
 * what it computes, to the bit.
 *
 * A dot product adds four taps of four channels, if four columns of a channel lie side by side. So rows of a block of
 * sixteen channels are copied into scratch, first dense, with the input's zero for columns outside the picture, then as
 * quads: columns 2q .. 2q + 3 of all sixteen channels for each q, by one instruction (ST4) out of four cells. A quad
 * serves two outputs of stride 1: one's taps begin with its first column, the other's with its second, with weights of
 * zero for the column that is left. 5x5 finds its fifth tap, or the last two, two quads further on. Weights are packed
 * as these vectors: one kernel row of sixteen channels is 64 bytes each.
 *
 * Packed layout, KLAUS_LAYOUT_DEPTHWISE_I8_DOT: for each block
 *     float step[16]; int32 sum of the weights[16]; int8 weight[kernel row][vector][channel][4], vectors in the order
 *     first quad, output at its first, (stride 1) at its second column; 5x5: the same of the second quad */
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/depthwise/depthwise_i8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define BLOCK KLAUS_INT8_BLOCK
#define UNROLLED KLAUS_INT8_UNROLLED
#define QUAD (4 * BLOCK) /* bytes: four columns */
/* Of a copied band of rows: fits the first cache beside what is written. */
#define BAND_BYTES 49152
/* Outputs that are computed together, beside one another. */
#define COLUMNS 4

static int32_t vectors_of(const klaus_shape *s) {
    return (s->kernel_rows == 5 ? 2 : 1) * (s->stride_rows == 1 ? 2 : 1);
}

static klaus_depthwise_i8_bands bands_of(const klaus_shape *s, int64_t *quads) {
    *quads = (s->stride_rows == 1 ? (s->out_cols + 1) / 2 : s->out_cols) + (s->kernel_rows == 5 ? 2 : 0);
    return klaus_depthwise_i8_bands_of(s, BAND_BYTES, *quads * QUAD);
}

static size_t block_bytes(const klaus_shape *s) {
    return BLOCK * (sizeof(float) + sizeof(int32_t)) + (size_t)(s->kernel_rows * vectors_of(s)) * QUAD;
}

static uint64_t packed_bytes(const klaus_shape *s) {
    return ((uint64_t)s->in_channels + BLOCK - 1) / BLOCK * block_bytes(s);
}

static void pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const int32_t kernel = s->kernel_rows, vectors = vectors_of(s), offsets = s->stride_rows == 1 ? 2 : 1;
    memset(packed, 0, (size_t)packed_bytes(s));
    for (int32_t channel = 0; channel < s->in_channels; channel++) {
        uint8_t *block = (uint8_t *)packed + (size_t)(channel / BLOCK) * block_bytes(s);
        const int32_t c = channel % BLOCK;
        int8_t filter[25];
        int32_t sum = 0;
        const float step = klaus_int8_weight_step(s, weights, channel);
        klaus_int8_weights_read(s, weights, channel, step, 0, (int64_t)kernel * kernel, filter);
        for (int32_t tap = 0; tap < kernel * kernel; tap++) {
            sum += filter[tap];
            for (int32_t offset = 0; offset < offsets; offset++) { /* column of the output in its quad */
                const int32_t column = tap % kernel + offset;
                const int32_t vector = tap / kernel * vectors + column / 4 * offsets + offset;
                block[8 * BLOCK + QUAD * vector + 4 * c + column % 4] = (uint8_t)filter[tap];
            }
        }
        ((float *)(void *)block)[c] = step;
        ((int32_t *)(void *)(block + 4 * BLOCK))[c] = sum;
    }
}

/* Of a row, before its quads are made. */
static uint64_t cells_bytes(int64_t quads) {
    return (uint64_t)(2 * quads + 2) * BLOCK;
}

static uint64_t part_bytes(const klaus_depthwise_i8_bands *bands, int64_t quads) {
    return klaus_aligned(sizeof(klaus_depthwise_i8_head) + cells_bytes(quads) +
                         (uint64_t)(bands->in_rows * quads) * QUAD);
}

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    int64_t quads;
    const klaus_depthwise_i8_bands bands = bands_of(s, &quads);
    return (uint64_t)parts * part_bytes(&bands, quads);
}

/* ---- the copy ---- */

/* Four cells to a quad, two cells on, ... */
static int8_t *make_quads(const int8_t *cells, int64_t quads, int8_t *to) {
    for (; quads >= 4; quads -= 4, cells += 8 * BLOCK, to += 4 * QUAD) {
        UNROLLED for (int n = 0; n < 4; n++) vst4q_s8(to + QUAD * n, vld1q_s8_x4(cells + 2 * BLOCK * n));
    }
    for (; quads > 0; quads--, cells += 2 * BLOCK, to += QUAD)
        vst4q_s8(to, vld1q_s8_x4(cells));
    return to;
}

/* Rows of the input's block that begins with channel `first`, from row `top` on, which may lie outside. `cells`: room
 * for those of a row. */
static void copy_band(const klaus_call *call, int64_t quads, int64_t top, int64_t rows, int32_t first, int8_t *cells,
                      int8_t *band) {
    const klaus_shape *s = call->shape;
    const int8x16_t zero = vdupq_n_s8((int8_t)s->in_quantization[0].zero);
    const int64_t step = s->in_channels, all = 2 * quads + 2, before = s->pad_left < all ? s->pad_left : all;
    const int64_t inside = all - before < s->in_cols ? all - before : s->in_cols;
    for (int64_t y = top; y < top + rows; y++) {
        if (y < 0 || y >= s->in_rows) {
            const int8x16x4_t quad = {{zero, zero, zero, zero}};
            for (int64_t q = 0; q < quads; q++, band += QUAD)
                vst1q_s8_x4(band, quad);
            continue;
        }
        klaus_depthwise_i8_gather((const int8_t *)call->input[0] + y * s->in_cols * step + first, step,
                                  s->in_channels - first, before, inside, all, zero, cells);
        band = make_quads(cells, quads, band);
    }
}

/* ---- the sums ---- */

/* 64 bytes by one instruction; on by as much. In registers of their own, always the same: left to the compiler, four
 * neighbours among 32 in use make it move the others about. */
static inline void load_first(int8x16_t *to, const int8_t **from) {
    register int8x16_t a __asm__("v0");
    register int8x16_t b __asm__("v1");
    register int8x16_t c __asm__("v2");
    register int8x16_t d __asm__("v3");
    __asm__ volatile("ld1 {%0.16b, %1.16b, %2.16b, %3.16b}, [%4], #64"
                     : "=w"(a), "=w"(b), "=w"(c), "=w"(d), "+r"(*from)
                     :
                     : "memory");
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

static inline void load_second(int8x16_t *to, const int8_t **from) {
    register int8x16_t a __asm__("v4");
    register int8x16_t b __asm__("v5");
    register int8x16_t c __asm__("v6");
    register int8x16_t d __asm__("v7");
    __asm__ volatile("ld1 {%0.16b, %1.16b, %2.16b, %3.16b}, [%4], #64"
                     : "=w"(a), "=w"(b), "=w"(c), "=w"(d), "+r"(*from)
                     :
                     : "memory");
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

static inline void load_weights(int8x16_t *to, const int8_t **from) {
    register int8x16_t a __asm__("v28");
    register int8x16_t b __asm__("v29");
    register int8x16_t c __asm__("v30");
    register int8x16_t d __asm__("v31");
    __asm__ volatile("ld1 {%0.16b, %1.16b, %2.16b, %3.16b}, [%4], #64"
                     : "=w"(a), "=w"(b), "=w"(c), "=w"(d), "+r"(*from)
                     :
                     : "memory");
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

/* Sixteen numbers, always anew: see klaus_int8_fresh(). */
static inline void fresh_16(const void *from, float32x4_t *to) {
    __asm__ volatile("ldp %q0, %q1, [%2]" : "=w"(to[0]), "=w"(to[1]) : "r"(from) : "memory");
    __asm__ volatile("ldp %q0, %q1, [%2, #32]" : "=w"(to[2]), "=w"(to[3]) : "r"(from) : "memory");
}

/* Sums of one output, made here: put off, their operands would need more registers than there are. */
__attribute__((always_inline)) static inline void dot_16(int32x4_t *sums, const int8x16_t *x, const int8x16_t *w) {
    UNROLLED for (int q = 0; q < 4; q++) sums[q] = vdotq_s32(sums[q], x[q], w[q]);
    __asm__ volatile("" : "+w"(sums[0]), "+w"(sums[1]), "+w"(sums[2]), "+w"(sums[3]) : : "memory");
}

/* `columns` outputs beside one another, of which `exist` exist. All but `l` and `exist` are constants where it is
 * inlined; plain: sixteen channels, no addend, klaus_int8_target.plain. */
__attribute__((always_inline)) static inline void outputs(klaus_depthwise_i8_line *l, int32_t exist, const int kernel,
                                                          const int stride, const int columns, const bool plain) {
    const int offsets = stride == 1 ? 2 : 1, quads = columns / offsets;
    const klaus_depthwise_i8_head *h = l->head;
    const int8_t *x = l->input, *w = l->weights;
    int32x4_t sums[COLUMNS][4];
    UNROLLED for (int o = 0; o < columns; o++) {
        float32x4_t start[4];
        fresh_16(h->start, start);
        UNROLLED for (int q = 0; q < 4; q++) sums[o][q] = vreinterpretq_s32_f32(start[q]);
    }
    UNROLLED for (int u = 0; u < kernel; u++, x += l->row_bytes)
        UNROLLED for (int far = 0; far < (kernel == 5 ? 2 : 1); far++) {
        const int8_t *at = x + 2 * QUAD * far;
        int8x16_t first[4], second[4], weights[4];
        if (stride == 1) {
            load_first(first, &at);
            if (quads == 2)
                load_second(second, &at);
            UNROLLED for (int offset = 0; offset < 2; offset++) {
                load_weights(weights, &w);
                dot_16(sums[offset], first, weights);
                if (quads == 2)
                    dot_16(sums[2 + offset], second, weights);
            }
        } else {
            load_weights(weights, &w);
            UNROLLED for (int n = 0; n < quads; n++) {
                load_first(first, &at);
                dot_16(sums[n], first, weights);
            }
        }
    }
    l->input += QUAD * quads;
    if (!plain) {
        UNROLLED for (int o = 0; o < columns; o++) {
            int32x4_t own[4]; /* a copy: of what a function is shown the compiler keeps no register */
            UNROLLED for (int q = 0; q < 4; q++) own[q] = sums[o][q];
            if (o < exist)
                klaus_depthwise_i8_finish(l, own);
        }
        return;
    }
    float32x4_t multiplier[4];
    fresh_16(h->multiplier, multiplier);
    UNROLLED for (int o = 0; o < columns; o++) {
        float32x4_t values[4];
        fresh_16(h->offset, values);
        UNROLLED for (int q = 0; q < 4; q++) values[q] = vfmaq_f32(values[q], vcvtq_f32_s32(sums[o][q]), multiplier[q]);
        const int8x16_t results = klaus_int8_rounded(l->target, values, true);
        if (o == 0 || o < exist) {
            vst1q_s8(l->output, results);
            l->output += l->step;
        }
    }
}

/* All rows of a band. `at`: a copy of which all is known, as a store of bytes might change *l for all the compiler
 * knows. */
__attribute__((always_inline)) static inline void whole_lines(const klaus_depthwise_i8_line *l, int64_t rows,
                                                              int32_t cols, const int kernel, const int stride) {
    klaus_depthwise_i8_line at = *l;
    for (; rows > 0; rows--) {
        const int8_t *input = at.input;
        int8_t *output = at.output;
        int32_t left = cols;
        for (; left >= COLUMNS; left -= COLUMNS)
            outputs(&at, COLUMNS, kernel, stride, COLUMNS, true);
        if (left == 3 && stride == 1) {
            outputs(&at, 3, kernel, stride, COLUMNS, true);
            left = 0;
        }
        for (; left > 0; left -= 2 / stride)
            outputs(&at, left, kernel, stride, 2 / stride, true);
        at.input = input + stride * at.row_bytes;
        at.output = output + at.step * cols;
    }
}

__attribute__((noinline)) static void lines_3x3(const klaus_depthwise_i8_line *l, int64_t rows, int32_t cols) {
    whole_lines(l, rows, cols, 3, 1);
}

__attribute__((noinline)) static void lines_3x3_stride_2(const klaus_depthwise_i8_line *l, int64_t rows, int32_t cols) {
    whole_lines(l, rows, cols, 3, 2);
}

__attribute__((noinline)) static void lines_5x5(const klaus_depthwise_i8_line *l, int64_t rows, int32_t cols) {
    whole_lines(l, rows, cols, 5, 1);
}

__attribute__((noinline)) static void lines_5x5_stride_2(const klaus_depthwise_i8_line *l, int64_t rows, int32_t cols) {
    whole_lines(l, rows, cols, 5, 2);
}

/* What is rare needs no haste: as few outputs at a time as there are in a quad. */
__attribute__((noinline)) static void line_rare(klaus_depthwise_i8_line *l, int32_t cols, int32_t kernel,
                                                int32_t stride) {
    for (; cols > 0; cols -= stride == 1 ? 2 : 1) {
        if (kernel == 3 && stride == 1)
            outputs(l, cols, 3, 1, 2, false);
        else if (kernel == 3)
            outputs(l, cols, 3, 2, 1, false);
        else if (stride == 1)
            outputs(l, cols, 5, 1, 2, false);
        else
            outputs(l, cols, 5, 2, 1, false);
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    static void (*const all[2][2])(const klaus_depthwise_i8_line *, int64_t,
                                   int32_t) = {{lines_3x3, lines_3x3_stride_2}, {lines_5x5, lines_5x5_stride_2}};
    const klaus_shape *s = call->shape;
    int64_t quads, begin, end;
    const klaus_depthwise_i8_bands bands = bands_of(s, &quads);
    const klaus_int8_target target = klaus_int8_target_of(s);
    klaus_depthwise_i8_head *head =
        (klaus_depthwise_i8_head *)(void *)((uint8_t *)call->scratch +
                                            (size_t)part * (size_t)part_bytes(&bands, quads));
    int8_t *cells = (int8_t *)(head + 1), *band = cells + (size_t)cells_bytes(quads);
    klaus_share((int64_t)bands.blocks * bands.bands, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        const int32_t first = (int32_t)(item / bands.bands) * BLOCK;
        const int32_t count = s->in_channels - first < BLOCK ? s->in_channels - first : BLOCK;
        const int64_t top = item % bands.bands * bands.rows;
        const int64_t rows = s->out_rows - top < bands.rows ? s->out_rows - top : bands.rows;
        const uint8_t *packed = (const uint8_t *)call->packed + (size_t)(first / BLOCK) * block_bytes(s);
        klaus_depthwise_i8_head_of(call, packed, first, count, head);
        copy_band(call, quads, top * s->stride_rows - s->pad_top, (rows - 1) * s->stride_rows + s->kernel_rows, first,
                  cells, band);
        const int64_t at = top * s->out_cols * s->out_channels + first;
        klaus_depthwise_i8_line l = {.input = band,
                                     .weights = (const int8_t *)packed + KLAUS_DEPTHWISE_I8_HEAD_BYTES,
                                     .row_bytes = quads * QUAD,
                                     .head = head,
                                     .target = &target,
                                     .output = (int8_t *)call->output + at,
                                     .addend = s->has_addend ? (const int8_t *)call->input[1] + at : NULL,
                                     .step = s->out_channels,
                                     .count = count};
        if (target.plain && count == BLOCK && l.addend == NULL)
            all[s->kernel_rows == 5][s->stride_rows == 2](&l, rows, s->out_cols);
        else
            for (int64_t i = 0; i < rows; i++) { /* leaves output and addend where the next row begins */
                l.input = band + i * s->stride_rows * l.row_bytes;
                line_rare(&l, s->out_cols, s->kernel_rows, s->stride_rows);
            }
    }
}

const klaus_variant klaus_depthwise_i8_neon_dotprod_4x16 = {
    .name = "klaus_depthwise_i8_neon_dotprod_4x16",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON_DOTPROD,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_DEPTHWISE_I8_DOT,
    .phases = 1,
    .can = klaus_depthwise_i8_can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
