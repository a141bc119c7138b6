#include "ops/conv/conv.h"
#include "ops/conv/conv_i8.h"
#include "ops/int8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define ROWS 4
/* Pixels that a panel serves before the next is fetched. */
#define CHUNK 32
#define UNROLLED KLAUS_INT8_UNROLLED

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    const klaus_conv_i8 g = klaus_conv_i8_of(s);
    return g.copy_bytes + g.heads_bytes + (uint64_t)parts * g.part_bytes;
}

/* ---- phase 0: the padded copy and the heads ---- */

static klaus_conv_i8_head *heads_of(const klaus_call *call, const klaus_conv_i8 *g) {
    return (klaus_conv_i8_head *)(void *)((uint8_t *)call->scratch + (size_t)g->copy_bytes);
}

static void make_heads(const klaus_call *call, const klaus_conv_i8 *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share((int64_t)s->groups * g->panels, 1, part, parts, &begin, &end);
    for (int64_t number = begin; number < end; number++) {
        const klaus_conv_i8_panel p = klaus_conv_i8_panel_at(call->packed, g, (int32_t)number);
        const int32_t first = (int32_t)(number % g->panels) * KLAUS_CONV_I8_WIDTH;
        klaus_conv_i8_head *h = heads_of(call, g) + number;
        klaus_int8_head(call, number / g->panels * g->filters + first,
                        g->filters - first < p.width ? g->filters - first : p.width, p.width, p.steps, h->multiplier,
                        h->offset);
        for (int32_t c = 0; c < p.width; c++)
            h->start[c] = -s->in_quantization[0].zero * p.sums[c];
    }
}

/* ---- phase 1: tiles ---- */

typedef struct tile {
    const int8_t *inputs[ROWS]; /* the first pair of each row */
    const int32_t *distances;   /* [pairs] */
    const int8_t *weights;
    int32_t fours, twos;
    int32_t count; /* channels that exist */
    const klaus_conv_i8_head *head;
    const klaus_int8_target *target;
    const int8_t *addend; /* or NULL */
    int8_t *output;
    int64_t stride; /* of output and addend, from row to row */
} tile;

/* A pair, spread over a register; on to the next one. */
static inline int8x16_t next_pair(const int8_t **from, int64_t distance) {
    int8x16_t value;
    __asm__("ld1r {%0.8h}, [%1], %2" : "=w"(value), "+r"(*from) : "r"(distance), "m"(*(const int8_t (*)[2]) * from));
    return value;
}

/* Keeps what follows with `next` behind what made `sum`: rows worked at side by side would need more registers. */
static inline void settle_sum(int32x4_t *sum, const int8_t **next) {
    __asm__ volatile("" : "+w"(*sum), "+r"(*next));
}

__attribute__((noinline)) static void finish_rare(const tile *t, int64_t row, const int32x4_t *sums, int32_t quads) {
    const int64_t at = row * t->stride;
    klaus_int8_finish_some(t->target, sums, quads, t->head->multiplier, t->head->offset,
                           t->addend != NULL ? t->addend + at : NULL, t->output + at, t->count);
}

/* The first 4 * quads of sixteen results. */
__attribute__((always_inline)) static inline void store_quads(int8_t *to, int8x16_t results, const int quads) {
    if (quads == 4) {
        vst1q_s8(to, results);
        return;
    }
    if (quads >= 2)
        vst1_s8(to, vget_low_s8(results));
    if (quads == 3)
        vst1q_lane_s32((int32_t *)(void *)(to + 8), vreinterpretq_s32_s8(results), 2);
    if (quads == 1)
        vst1q_lane_s32((int32_t *)(void *)to, vreinterpretq_s32_s8(results), 0);
}

__attribute__((always_inline)) static inline int8x16_t load_quads(const int8_t *from, const int quads) {
    if (quads == 4)
        return vld1q_s8(from);
    int32x4_t all = vdupq_n_s32(0);
    if (quads == 1)
        return vreinterpretq_s8_s32(vld1q_lane_s32((const int32_t *)(const void *)from, all, 0));
    all = vreinterpretq_s32_s8(vcombine_s8(vld1_s8(from), vdup_n_s8(0)));
    if (quads == 3)
        all = vld1q_lane_s32((const int32_t *)(const void *)(from + 8), all, 2);
    return vreinterpretq_s8_s32(all);
}

/* `rows` pixels by `quads` fours of channels, both constants where it is inlined. */
__attribute__((always_inline)) static inline void tile_body(const tile *t, const int rows, const int quads) {
    int32x4_t sums[ROWS][4];
    const int8_t *input[ROWS], *weights = t->weights;
    const int32_t *distances = t->distances;
    const klaus_conv_i8_head *h = t->head;
    UNROLLED for (int r = 0; r < rows; r++) {
        input[r] = t->inputs[r];
        UNROLLED for (int q = 0; q < quads; q++) sums[r][q] =
            vreinterpretq_s32_f32(klaus_int8_fresh((const float *)(const void *)(h->start + 4 * q)));
    }
    for (int32_t n = t->fours; n > 0; n--, distances += 4, weights += 32 * quads) {
        const int64_t d0 = distances[0], d1 = distances[1], d2 = distances[2], d3 = distances[3];
        int8x16_t w[4][2];
        UNROLLED for (int q = 0; q < quads; q++) {
            w[q][0] = vld1q_s8(weights + 16 * q);
            w[q][1] = vld1q_s8(weights + 16 * (quads + q));
        }
        UNROLLED for (int r = 0; r < rows; r++) {
            const int8x16_t x0 = next_pair(&input[r], d0), x1 = next_pair(&input[r], d1);
            const int8x16_t x2 = next_pair(&input[r], d2), x3 = next_pair(&input[r], d3);
            UNROLLED for (int q = 0; q < quads; q++) {
                int16x8_t products = vmull_s8(vget_low_s8(x0), vget_low_s8(w[q][0]));
                products = vmlal_high_s8(products, x1, w[q][0]);
                products = vmlal_s8(products, vget_low_s8(x2), vget_low_s8(w[q][1]));
                products = vmlal_high_s8(products, x3, w[q][1]);
                sums[r][q] = vpadalq_s16(sums[r][q], products);
            }
            UNROLLED for (int q = 0; q < quads; q++) settle_sum(&sums[r][q], &input[r + 1 < rows ? r + 1 : r]);
        }
    }
    for (int32_t n = t->twos; n > 0; n--, distances += 2, weights += 16 * quads) {
        const int64_t d0 = distances[0], d1 = distances[1];
        int8x16_t w[4];
        UNROLLED for (int q = 0; q < quads; q++) w[q] = vld1q_s8(weights + 16 * q);
        UNROLLED for (int r = 0; r < rows; r++) {
            const int8x16_t x0 = next_pair(&input[r], d0), x1 = next_pair(&input[r], d1);
            UNROLLED for (int q = 0; q < quads; q++) {
                const int16x8_t products = vmlal_high_s8(vmull_s8(vget_low_s8(x0), vget_low_s8(w[q])), x1, w[q]);
                sums[r][q] = vpadalq_s16(sums[r][q], products);
            }
            UNROLLED for (int q = 0; q < quads; q++) settle_sum(&sums[r][q], &input[r + 1 < rows ? r + 1 : r]);
        }
    }
    if (t->count < 4 * quads) {
        UNROLLED for (int r = 0; r < rows; r++) {
            int32x4_t own[4]; /* a copy: of what a function is shown the compiler keeps no register */
            UNROLLED for (int q = 0; q < quads; q++) own[q] = sums[r][q];
            finish_rare(t, r, own, quads);
        }
        return;
    }
    float32x4_t multiplier[4];
    UNROLLED for (int q = 0; q < quads; q++) multiplier[q] = vld1q_f32(h->multiplier + 4 * q);
    int8_t *output = t->output;
    const int8_t *addend = t->addend;
    UNROLLED for (int r = 0; r < rows; r++, output += t->stride) {
        float32x4_t values[4];
        UNROLLED for (int q = 0; q < 4; q++) values[q] =
            q < quads ? klaus_int8_value(sums[r][q], multiplier[q], h->offset + 4 * q) : values[0];
        if (addend != NULL) {
            klaus_int8_add(t->target, load_quads(addend, quads), values);
            addend += t->stride;
        }
        store_quads(output,
                    t->target->plain ? klaus_int8_rounded(t->target, values, true)
                                     : klaus_int8_rounded(t->target, values, false),
                    quads);
    }
}

__attribute__((noinline)) static void tile_1x4(const tile *t) {
    tile_body(t, 1, 1);
}

__attribute__((noinline)) static void tile_2x4(const tile *t) {
    tile_body(t, 2, 1);
}

__attribute__((noinline)) static void tile_3x4(const tile *t) {
    tile_body(t, 3, 1);
}

__attribute__((noinline)) static void tile_4x4(const tile *t) {
    tile_body(t, 4, 1);
}

__attribute__((noinline)) static void tile_1x8(const tile *t) {
    tile_body(t, 1, 2);
}

__attribute__((noinline)) static void tile_2x8(const tile *t) {
    tile_body(t, 2, 2);
}

__attribute__((noinline)) static void tile_3x8(const tile *t) {
    tile_body(t, 3, 2);
}

__attribute__((noinline)) static void tile_4x8(const tile *t) {
    tile_body(t, 4, 2);
}

__attribute__((noinline)) static void tile_1x12(const tile *t) {
    tile_body(t, 1, 3);
}

__attribute__((noinline)) static void tile_2x12(const tile *t) {
    tile_body(t, 2, 3);
}

__attribute__((noinline)) static void tile_3x12(const tile *t) {
    tile_body(t, 3, 3);
}

__attribute__((noinline)) static void tile_4x12(const tile *t) {
    tile_body(t, 4, 3);
}

__attribute__((noinline)) static void tile_1x16(const tile *t) {
    tile_body(t, 1, 4);
}

__attribute__((noinline)) static void tile_2x16(const tile *t) {
    tile_body(t, 2, 4);
}

__attribute__((noinline)) static void tile_3x16(const tile *t) {
    tile_body(t, 3, 4);
}

__attribute__((noinline)) static void tile_4x16(const tile *t) {
    tile_body(t, 4, 4);
}

/* The distances of a panel's pairs in bytes of what is read. */
static const int32_t *distances_of(const klaus_conv_i8 *g, const klaus_conv_i8_panel *p, int32_t pitch, int32_t *made) {
    if (g->runs == 1)
        return p->bytes;
    for (int64_t pair = 0; pair < g->pairs; pair += 2) /* even */
        vst1_s32(made + pair, vmla_n_s32(vld1_s32(p->bytes + pair), vld1_s32(p->rows + pair), pitch));
    return made;
}

/* The windows of `count` pixels from `pixel` on, at channel 0. */
static void point(const klaus_shape *s, const klaus_conv_i8 *g, const int8_t *input, int64_t pixel, int32_t count,
                  const int8_t **windows) {
    if (g->flat) {
        for (int32_t i = 0; i < count; i++)
            windows[i] = input + (pixel + i) * s->in_channels;
        return;
    }
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    for (int32_t i = 0; i < count; i++) {
        windows[i] = input + (row * s->stride_rows * g->cols + col * s->stride_cols) * s->in_channels;
        if (++col == s->out_cols) {
            col = 0;
            row++;
        }
    }
}

static void multiply(const klaus_call *call, const klaus_conv_i8 *g, int32_t part, int32_t parts) {
    static void (*const tiles[4][ROWS])(const tile *) = {{tile_1x4, tile_2x4, tile_3x4, tile_4x4},
                                                         {tile_1x8, tile_2x8, tile_3x8, tile_4x8},
                                                         {tile_1x12, tile_2x12, tile_3x12, tile_4x12},
                                                         {tile_1x16, tile_2x16, tile_3x16, tile_4x16}};
    const klaus_shape *s = call->shape;
    const klaus_int8_target target = klaus_int8_target_of(s);
    const int8_t *input = g->padded ? call->scratch : call->input[0];
    const int32_t pitch = (int32_t)(g->cols * s->in_channels);
    int32_t *made = (int32_t *)(void *)((uint8_t *)call->scratch +
                                        (size_t)(g->copy_bytes + g->heads_bytes + (uint64_t)part * g->part_bytes));
    int64_t pixel, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, ROWS, part, parts, &pixel, &end);
    for (; pixel < end; pixel += CHUNK) {
        const int8_t *windows[CHUNK];
        const int32_t count = end - pixel < CHUNK ? (int32_t)(end - pixel) : CHUNK;
        point(s, g, input, pixel, count, windows);
        for (int32_t number = 0; number < s->groups * g->panels; number++) {
            const klaus_conv_i8_panel p = klaus_conv_i8_panel_at(call->packed, g, number);
            const int32_t group = number / g->panels, first = number % g->panels * KLAUS_CONV_I8_WIDTH;
            const int64_t from = (int64_t)p.facts[KLAUS_CONV_I8_FIRST_ROW] * pitch + p.facts[KLAUS_CONV_I8_FIRST_BYTE] +
                                 group * g->channels;
            const int64_t at = pixel * s->out_channels + group * g->filters + first;
            tile t = {.distances = distances_of(g, &p, pitch, made),
                      .weights = p.weights,
                      .fours = p.facts[KLAUS_CONV_I8_FOURS],
                      .twos = p.facts[KLAUS_CONV_I8_TWOS],
                      .count = g->filters - first < p.width ? g->filters - first : p.width,
                      .head = heads_of(call, g) + number,
                      .target = &target,
                      .output = (int8_t *)call->output + at,
                      .addend = s->has_addend ? (const int8_t *)call->input[1] + at : NULL,
                      .stride = s->out_channels};
            for (int32_t row = 0; row < count; row += ROWS) {
                const int32_t rows = count - row < ROWS ? count - row : ROWS;
                for (int32_t r = 0; r < rows; r++)
                    t.inputs[r] = windows[row + r] + from;
                tiles[p.width / 4 - 1][rows - 1](&t);
                t.output += ROWS * t.stride;
                if (t.addend != NULL)
                    t.addend += ROWS * t.stride;
            }
        }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_conv_i8 g = klaus_conv_i8_of(call->shape);
    if (phase == 0) {
        if (g.padded)
            klaus_conv_pad_i8(call, g.rows, g.cols, part, parts);
        make_heads(call, &g, part, parts);
    } else {
        multiply(call, &g, part, parts);
    }
}

const klaus_variant klaus_conv_i8_neon_4x16 = {
    .name = "klaus_conv_i8_neon_4x16",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_CONV_I8_PAIRS,
    .follows = true,
    .phases = 2,
    .can = klaus_conv_i8_can,
    .packed_bytes = klaus_conv_i8_packed_bytes,
    .pack = klaus_conv_i8_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
