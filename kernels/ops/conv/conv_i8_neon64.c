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
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/gemm/gemm.h"
#include "ops/int8_neon64.h"
#include "ops/layouts.h"
#include "ops/shape.h"

#define WIDTH 16
#define ROWS 4
#define SOME 256     /* weights that are read at once */
#define MOST_SUM 255 /* of magnitudes of weights: 255 * 128 fits 16 bits */
/* Pixels that a panel serves before the next is fetched. */
#define CHUNK 32
#define UNROLLED KLAUS_INT8_UNROLLED

typedef struct geometry {
    bool padded;             /* the input is a padded copy in scratch */
    bool flat;               /* a pixel's window is its own channels */
    int64_t rows, cols;      /* of what is read: the input or its padded copy */
    int32_t filters, panels; /* of a group */
    int32_t channels;        /* of a group */
    int32_t runs, run;       /* stretches of a window that lie together, and their bytes */
    int64_t pairs;           /* even */
    uint64_t copy_bytes, heads_bytes, part_bytes;
} geometry;

/* What sums of a panel begin with, and what becomes of them. */
typedef struct head {
    int32_t start[WIDTH];
    float multiplier[WIDTH], offset[WIDTH];
} head;

static uint64_t aligned(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

static geometry geometry_of(const klaus_shape *s) {
    geometry g;
    memset(&g, 0, sizeof g);
    g.filters = s->out_channels / s->groups;
    g.channels = s->in_channels / s->groups;
    g.panels = (g.filters + WIDTH - 1) / WIDTH;
    g.runs = s->groups == 1 ? s->kernel_rows : s->kernel_rows * s->kernel_cols;
    g.run = s->groups == 1 ? s->kernel_cols * s->in_channels : g.channels;
    g.pairs = ((int64_t)g.runs * ((g.run + 1) / 2) + 1) / 2 * 2;
    g.rows = (int64_t)(s->out_rows - 1) * s->stride_rows + s->kernel_rows;
    g.cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
    g.padded = s->pad_top != 0 || s->pad_left != 0 || g.rows > s->in_rows || g.cols > s->in_cols;
    if (g.padded) {
        g.copy_bytes = aligned((uint64_t)(g.rows * g.cols) * (uint64_t)s->in_channels);
    } else {
        g.rows = s->in_rows;
        g.cols = s->in_cols;
    }
    g.flat = !g.padded && s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
             s->out_cols == s->in_cols;
    g.heads_bytes = aligned((uint64_t)s->groups * (uint64_t)g.panels * sizeof(head));
    g.part_bytes = aligned((uint64_t)g.pairs * sizeof(int32_t));
    return g;
}

static bool can(const klaus_shape *s) {
    if (!klaus_conv_has_geometry(s) || !klaus_int8_fits(s) || s->out_dtype != KLAUS_I8)
        return false;
    const geometry g = geometry_of(s);
    /* Distances within a window are 32 bits wide; a pair is two bytes of one stretch. */
    return g.run >= 2 && g.rows < 65536 && g.cols < 65536 && s->kernel_rows * g.cols * s->in_channels < (1 << 30);
}

/* ---- packing ---- */

static uint64_t panel_bytes(const geometry *g, int64_t width) {
    return 8 * (uint64_t)width + 16 + (uint64_t)g->pairs * (8 + 2 * (uint64_t)width);
}

static uint64_t group_bytes(const geometry *g) {
    const int32_t full = g->filters / WIDTH, rest = klaus_panel_channels(g->filters - full * WIDTH);
    return (uint64_t)full * panel_bytes(g, WIDTH) + (rest > 0 ? panel_bytes(g, rest) : 0);
}

static uint64_t packed_bytes(const klaus_shape *s) {
    const geometry g = geometry_of(s);
    return (uint64_t)s->groups * group_bytes(&g);
}

enum { FOURS, TWOS, FIRST_ROW, FIRST_BYTE, FACTS };

/* The parts of a panel. */
typedef struct panel {
    int32_t width;
    float *steps;
    int32_t *sums, *facts;
    int32_t *rows, *bytes; /* [pairs] */
    int8_t *weights;
} panel;

static panel panel_at(uint8_t *packed, const geometry *g, int32_t number) {
    uint8_t *at = packed + (size_t)(number / g->panels) * (size_t)group_bytes(g) +
                  (size_t)(number % g->panels) * (size_t)panel_bytes(g, WIDTH);
    panel p = {.width = klaus_panel_width(g->filters, number % g->panels * WIDTH, WIDTH)};
    p.steps = (float *)(void *)at;
    p.sums = (int32_t *)(void *)(p.steps + p.width);
    p.facts = p.sums + p.width;
    p.rows = p.facts + FACTS;
    p.bytes = p.rows + g->pairs;
    p.weights = (int8_t *)(p.bytes + g->pairs);
    return p;
}

static int32_t magnitude(int8_t w) {
    return w < 0 ? -w : w;
}

/* Pairs of a panel while it is packed: rows and bytes are places, weights are [pair][width][2]. A pair's largest
 * magnitude stands beside its row for the time being. */
#define HEAVY 65536

/* Pair `from` to place `to` before it, those between one place on. */
static void move_up(const panel *p, int64_t from, int64_t to) {
    const size_t bytes = 2 * (size_t)p->width;
    int8_t weights[2 * WIDTH];
    const int32_t row = p->rows[from], byte = p->bytes[from];
    memcpy(weights, p->weights + (size_t)from * bytes, bytes);
    memmove(p->rows + to + 1, p->rows + to, (size_t)(from - to) * sizeof *p->rows);
    memmove(p->bytes + to + 1, p->bytes + to, (size_t)(from - to) * sizeof *p->bytes);
    memmove(p->weights + (size_t)(to + 1) * bytes, p->weights + (size_t)to * bytes, (size_t)(from - to) * bytes);
    p->rows[to] = row;
    p->bytes[to] = byte;
    memcpy(p->weights + (size_t)to * bytes, weights, bytes);
}

/* One channel's weights into its place of all pairs, in the order of the window. */
static void read_channel(const klaus_shape *s, const geometry *g, const klaus_weights *weights, int64_t channel,
                         int32_t c, const panel *p) {
    const int64_t in_run = (g->run + 1) / 2;
    for (int64_t run = 0; run < g->runs; run++)
        for (int32_t begin = 0; begin < g->run; begin += SOME) {
            int8_t some[SOME];
            const int32_t count = g->run - begin < SOME ? g->run - begin : SOME;
            klaus_int8_weights_read(s, weights, channel, p->steps[c], run * g->run + begin, count, some);
            for (int32_t i = 0; i < count; i++) {
                /* what is left of an odd stretch is the second of its pair */
                const int32_t at = begin + i, side = at + 1 == g->run ? 1 : at % 2;
                p->weights[((run * in_run + at / 2) * p->width + c) * 2 + side] = some[i];
                p->sums[c] += some[i];
            }
        }
}

/* All pairs of a panel, the heaviest first. */
static void read_pairs(const klaus_shape *s, const geometry *g, const klaus_weights *weights, int64_t channel,
                       int32_t count, const panel *p) {
    const int32_t in_run = (g->run + 1) / 2;
    memset(p->weights, 0, (size_t)(g->pairs * 2 * p->width));
    for (int32_t c = 0; c < count; c++)
        read_channel(s, g, weights, channel + c, c, p);
    for (int64_t pair = 0; pair < g->pairs; pair++) {
        int32_t run = (int32_t)(pair / in_run), at = (int32_t)(pair % in_run) * 2, heavy = 0;
        if (run == g->runs) /* the one too many */
            run = at = 0;
        if (at + 1 == g->run)
            at--;
        for (int32_t i = 0; i < 2 * p->width; i++) {
            const int32_t one = magnitude(p->weights[pair * 2 * p->width + i]);
            heavy = one > heavy ? one : heavy;
        }
        p->rows[pair] = (s->groups == 1 ? run : run / s->kernel_cols) + HEAVY * heavy;
        p->bytes[pair] = at + (s->groups == 1 ? 0 : run % s->kernel_cols * s->in_channels);
        int64_t to = 0, end = pair; /* the first that is less heavy */
        while (to < end) {
            const int64_t middle = (to + end) / 2;
            if (p->rows[middle] / HEAVY >= heavy)
                to = middle + 1;
            else
                end = middle;
        }
        move_up(p, pair, to);
    }
    for (int64_t pair = 0; pair < g->pairs; pair++)
        p->rows[pair] %= HEAVY;
}

/* Whether a pair's weights still go with `load`, the magnitudes so far; adds them if so. */
static bool joins(const panel *p, int64_t pair, uint8_t *load) {
    const int8_t *weights = p->weights + pair * 2 * p->width;
    for (int32_t i = 0; i < 2 * p->width; i++)
        if (load[i] + magnitude(weights[i]) > MOST_SUM)
            return false;
    for (int32_t i = 0; i < 2 * p->width; i++)
        load[i] = (uint8_t)(load[i] + magnitude(weights[i]));
    return true;
}

/* Moves pairs so that as many fours as are found stand first: each begins with the heaviest pair left and takes the
 * heaviest that goes with it. A pair that finds no three others is left for the twos. */
static int32_t find_fours(const geometry *g, const panel *p) {
    int32_t fours = 0;
    int64_t left = g->pairs; /* behind it are those for the twos */
    while (4 * (int64_t)fours + 4 <= left) {
        const int64_t first = 4 * (int64_t)fours;
        uint8_t load[2 * WIDTH] = {0};
        int64_t placed = 0;
        for (int64_t pair = first; pair < left && placed < 4; pair++)
            if (joins(p, pair, load)) {
                move_up(p, pair, first + placed);
                placed++;
            }
        if (placed == 4) {
            fours++;
            continue;
        }
        for (int64_t pair = first; pair + 1 < left; pair++) /* the heaviest goes to the end */
            move_up(p, pair + 1, pair);
        left--;
    }
    return fours;
}

/* Places to distances, weights to the order that they are loaded in. */
static void settle(const geometry *g, const panel *p) {
    p->facts[FIRST_ROW] = p->rows[0];
    p->facts[FIRST_BYTE] = p->bytes[0];
    for (int64_t pair = 0; pair < g->pairs; pair++) {
        const bool last = pair + 1 == g->pairs;
        p->rows[pair] = last ? 0 : p->rows[pair + 1] - p->rows[pair];
        p->bytes[pair] = last ? 0 : p->bytes[pair + 1] - p->bytes[pair];
    }
    for (int64_t pair = 0; pair < g->pairs; pair += 2) {
        int8_t two[4 * WIDTH], *at = p->weights + pair * 2 * p->width;
        memcpy(two, at, 4 * (size_t)p->width);
        for (int32_t c = 0; c < p->width; c += 4) {
            memcpy(at + 4 * c, two + 2 * c, 8);
            memcpy(at + 4 * c + 8, two + 2 * p->width + 2 * c, 8);
        }
    }
}

static void pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const geometry g = geometry_of(s);
    for (int32_t number = 0; number < s->groups * g.panels; number++) {
        const panel p = panel_at(packed, &g, number);
        const int32_t first = number % g.panels * WIDTH;
        const int32_t count = g.filters - first < p.width ? g.filters - first : p.width;
        const int64_t channel = (int64_t)(number / g.panels) * g.filters + first;
        for (int32_t c = 0; c < p.width; c++) {
            p.steps[c] = c < count ? klaus_int8_weight_step(s, weights, channel + c) : 1;
            p.sums[c] = 0;
        }
        read_pairs(s, &g, weights, channel, count, &p);
        p.facts[FOURS] = find_fours(&g, &p);
        p.facts[TWOS] = (int32_t)(g.pairs / 2) - 2 * p.facts[FOURS];
        settle(&g, &p);
    }
}

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    const geometry g = geometry_of(s);
    return g.copy_bytes + g.heads_bytes + (uint64_t)parts * g.part_bytes;
}

/* ---- phase 0: the padded copy and the heads ---- */

static void copy_rows(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int32_t zero = s->in_quantization[0].zero;
    const size_t cell = (size_t)s->in_channels;
    const int64_t before = s->pad_left < g->cols ? s->pad_left : g->cols;
    const int64_t cells = g->cols - before < s->in_cols ? g->cols - before : s->in_cols;
    int64_t begin, end;
    klaus_share(g->rows, 1, part, parts, &begin, &end);
    for (int64_t y = begin; y < end; y++) {
        int8_t *to = (int8_t *)call->scratch + (size_t)(y * g->cols) * cell;
        const int64_t from = y - s->pad_top;
        if (from < 0 || from >= s->in_rows) {
            memset(to, zero, (size_t)g->cols * cell);
            continue;
        }
        memset(to, zero, (size_t)before * cell);
        to += (size_t)before * cell;
        memcpy(to, (const int8_t *)call->input[0] + (size_t)(from * s->in_cols) * cell, (size_t)cells * cell);
        to += (size_t)cells * cell;
        memset(to, zero, (size_t)(g->cols - before - cells) * cell);
    }
}

static head *heads_of(const klaus_call *call, const geometry *g) {
    return (head *)(void *)((uint8_t *)call->scratch + (size_t)g->copy_bytes);
}

static void make_heads(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share((int64_t)s->groups * g->panels, 1, part, parts, &begin, &end);
    for (int64_t number = begin; number < end; number++) {
        const panel p = panel_at((uint8_t *)(uintptr_t)call->packed, g, (int32_t)number);
        const int32_t first = (int32_t)(number % g->panels) * WIDTH;
        head *h = heads_of(call, g) + number;
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
    const head *head;
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
    float32x4_t values[4];
    const int64_t at = row * t->stride;
    for (int32_t q = 0; q < 4; q++)
        values[q] = q < quads
                        ? klaus_int8_value(sums[q], vld1q_f32(t->head->multiplier + 4 * q), t->head->offset + 4 * q)
                        : vdupq_n_f32(0);
    if (t->addend != NULL)
        klaus_int8_add(t->target, klaus_int8_load_some(t->addend + at, t->count), values);
    klaus_int8_store_some(t->output + at, klaus_int8_rounded(t->target, values, false), t->count);
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
    const head *h = t->head;
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
static const int32_t *distances_of(const geometry *g, const panel *p, int32_t pitch, int32_t *made) {
    if (g->runs == 1)
        return p->bytes;
    for (int64_t pair = 0; pair < g->pairs; pair += 2) /* even */
        vst1_s32(made + pair, vmla_n_s32(vld1_s32(p->bytes + pair), vld1_s32(p->rows + pair), pitch));
    return made;
}

/* The windows of `count` pixels from `pixel` on, at channel 0. */
static void point(const klaus_shape *s, const geometry *g, const int8_t *input, int64_t pixel, int32_t count,
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

static void multiply(const klaus_call *call, const geometry *g, int32_t part, int32_t parts) {
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
            const panel p = panel_at((uint8_t *)(uintptr_t)call->packed, g, number);
            const int32_t group = number / g->panels, first = number % g->panels * WIDTH;
            const int64_t from = (int64_t)p.facts[FIRST_ROW] * pitch + p.facts[FIRST_BYTE] + group * g->channels;
            const int64_t at = pixel * s->out_channels + group * g->filters + first;
            tile t = {.distances = distances_of(g, &p, pitch, made),
                      .weights = p.weights,
                      .fours = p.facts[FOURS],
                      .twos = p.facts[TWOS],
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
    const geometry g = geometry_of(call->shape);
    if (phase == 0) {
        if (g.padded)
            copy_rows(call, &g, part, parts);
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
    .can = can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
