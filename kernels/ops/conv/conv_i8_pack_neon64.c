#include <string.h>

#include "ops/conv/conv.h"
#include "ops/conv/conv_i8.h"
#include "ops/int8.h"
#include "ops/shape.h"

#define SOME 256     /* weights that are read at once */
#define MOST_SUM 255 /* of magnitudes of weights: 255 * 128 fits 16 bits */

klaus_conv_i8 klaus_conv_i8_of(const klaus_shape *s) {
    klaus_conv_i8 g;
    memset(&g, 0, sizeof g);
    g.filters = s->out_channels / s->groups;
    g.channels = s->in_channels / s->groups;
    g.panels = (g.filters + KLAUS_CONV_I8_WIDTH - 1) / KLAUS_CONV_I8_WIDTH;
    g.runs = s->groups == 1 ? s->kernel_rows : s->kernel_rows * s->kernel_cols;
    g.run = s->groups == 1 ? s->kernel_cols * s->in_channels : g.channels;
    g.pairs = ((int64_t)g.runs * ((g.run + 1) / 2) + 1) / 2 * 2;
    g.rows = (int64_t)(s->out_rows - 1) * s->stride_rows + s->kernel_rows;
    g.cols = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols;
    g.padded = s->pad_top != 0 || s->pad_left != 0 || g.rows > s->in_rows || g.cols > s->in_cols;
    if (g.padded) {
        g.copy_bytes = klaus_aligned((uint64_t)(g.rows * g.cols) * (uint64_t)s->in_channels);
    } else {
        g.rows = s->in_rows;
        g.cols = s->in_cols;
    }
    g.flat = !g.padded && s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
             s->out_cols == s->in_cols;
    g.heads_bytes = klaus_aligned((uint64_t)s->groups * (uint64_t)g.panels * sizeof(klaus_conv_i8_head));
    g.part_bytes = klaus_aligned((uint64_t)g.pairs * sizeof(int32_t));
    return g;
}

bool klaus_conv_i8_can(const klaus_shape *s) {
    if (!klaus_conv_has_geometry(s) || !klaus_int8_fits(s) || s->out_dtype != KLAUS_I8)
        return false;
    const klaus_conv_i8 g = klaus_conv_i8_of(s);
    /* Distances within a window are 32 bits wide; a pair is two bytes of one stretch. */
    return g.run >= 2 && g.rows < 65536 && g.cols < 65536 && s->kernel_rows * g.cols * s->in_channels < (1 << 30);
}

uint64_t klaus_conv_i8_packed_bytes(const klaus_shape *s) {
    const klaus_conv_i8 g = klaus_conv_i8_of(s);
    return (uint64_t)s->groups * klaus_conv_i8_group_bytes(&g);
}

static int32_t magnitude(int8_t w) {
    return w < 0 ? -w : w;
}

/* Pairs of a panel while it is packed: rows and bytes are places, weights are [pair][width][2]. A pair's largest
 * magnitude stands beside its row for the time being. */
#define HEAVY 65536

/* Pair `from` to place `to` before it, those between one place on. */
static void move_up(const klaus_conv_i8_panel *p, int64_t from, int64_t to) {
    const size_t bytes = 2 * (size_t)p->width;
    int8_t weights[2 * KLAUS_CONV_I8_WIDTH];
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
static void read_channel(const klaus_shape *s, const klaus_conv_i8 *g, const klaus_weights *weights, int64_t channel,
                         int32_t c, const klaus_conv_i8_panel *p) {
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
static void read_pairs(const klaus_shape *s, const klaus_conv_i8 *g, const klaus_weights *weights, int64_t channel,
                       int32_t count, const klaus_conv_i8_panel *p) {
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
static bool joins(const klaus_conv_i8_panel *p, int64_t pair, uint8_t *load) {
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
static int32_t find_fours(const klaus_conv_i8 *g, const klaus_conv_i8_panel *p) {
    int32_t fours = 0;
    int64_t left = g->pairs; /* behind it are those for the twos */
    while (4 * (int64_t)fours + 4 <= left) {
        const int64_t first = 4 * (int64_t)fours;
        uint8_t load[2 * KLAUS_CONV_I8_WIDTH] = {0};
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
static void settle(const klaus_conv_i8 *g, const klaus_conv_i8_panel *p) {
    p->facts[KLAUS_CONV_I8_FIRST_ROW] = p->rows[0];
    p->facts[KLAUS_CONV_I8_FIRST_BYTE] = p->bytes[0];
    for (int64_t pair = 0; pair < g->pairs; pair++) {
        const bool last = pair + 1 == g->pairs;
        p->rows[pair] = last ? 0 : p->rows[pair + 1] - p->rows[pair];
        p->bytes[pair] = last ? 0 : p->bytes[pair + 1] - p->bytes[pair];
    }
    for (int64_t pair = 0; pair < g->pairs; pair += 2) {
        int8_t two[4 * KLAUS_CONV_I8_WIDTH], *at = p->weights + pair * 2 * p->width;
        memcpy(two, at, 4 * (size_t)p->width);
        for (int32_t c = 0; c < p->width; c += 4) {
            memcpy(at + 4 * c, two + 2 * c, 8);
            memcpy(at + 4 * c + 8, two + 2 * p->width + 2 * c, 8);
        }
    }
}

void klaus_conv_i8_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const klaus_conv_i8 g = klaus_conv_i8_of(s);
    for (int32_t number = 0; number < s->groups * g.panels; number++) {
        const klaus_conv_i8_panel p = klaus_conv_i8_panel_at(packed, &g, number);
        const int32_t first = number % g.panels * KLAUS_CONV_I8_WIDTH;
        const int32_t count = g.filters - first < p.width ? g.filters - first : p.width;
        const int64_t channel = (int64_t)(number / g.panels) * g.filters + first;
        for (int32_t c = 0; c < p.width; c++) {
            p.steps[c] = c < count ? klaus_int8_weight_step(s, weights, channel + c) : 1;
            p.sums[c] = 0;
        }
        read_pairs(s, &g, weights, channel, count, &p);
        p.facts[KLAUS_CONV_I8_FOURS] = find_fours(&g, &p);
        p.facts[KLAUS_CONV_I8_TWOS] = (int32_t)(g.pairs / 2) - 2 * p.facts[KLAUS_CONV_I8_FOURS];
        settle(&g, &p);
    }
}
