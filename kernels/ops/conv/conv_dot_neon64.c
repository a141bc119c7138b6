#include <string.h>

#include "ops/conv/conv.h"
#include "ops/conv/conv_dot.h"
#include "ops/gemm/gemm.h"
#include "ops/int8_neon64.h"
#include "ops/shape.h"

/* Gathered inputs are made for so many bytes at once, a part of the second-level cache: each panel of weights is
 * fetched once for all of them. */
#define CHUNK_BYTES 98304
#define MOST_CHUNK_TILES 16

typedef struct geometry {
    bool direct; /* pointwise: an output's pixel is its input's, and four of them can be interleaved as they lie */
    bool eights; /* klaus_dot_kernel.eights */
    int32_t group_channels, group_filters;
    int64_t depth, steps;
    size_t row_bytes;      /* the depth up to whole vectors */
    size_t gathered_bytes; /* a row in scratch: one more, that copies may spill into */
    size_t block_bytes;
    /* Output rows and columns whose windows lie inside the picture, the last ones included. */
    int64_t first_row, last_row, first_col, last_col;
    /* Where a window may begin for gather_inner_rows() to stay inside the input. */
    int64_t last_copied;
    int64_t chunk_tiles;
    int64_t channels;      /* of all panels, padding included */
    uint64_t shared_bytes; /* scratch for all parts: constants of the channels */
    uint64_t part_bytes;   /* scratch a part: four rows, a chunk's blocks */
} geometry;

static uint64_t aligned(uint64_t bytes, uint64_t to) {
    return (bytes + to - 1) / to * to;
}

static geometry geometry_of(const klaus_shape *s, bool eights) {
    geometry g;
    memset(&g, 0, sizeof g);
    g.eights = eights;
    g.group_channels = s->in_channels / s->groups;
    g.group_filters = s->out_channels / s->groups;
    g.depth = klaus_shape_weights_per_row(s);
    g.steps = (g.depth + 7) / 8 * 2;
    g.row_bytes = (size_t)aligned((uint64_t)g.depth, 16);
    g.gathered_bytes = g.row_bytes + 16;
    g.block_bytes = KLAUS_DOT_BLOCK * g.row_bytes;
    g.direct = s->kernel_rows == 1 && s->kernel_cols == 1 && s->stride_rows == 1 && s->stride_cols == 1 &&
               s->pad_top == 0 && s->pad_left == 0 && s->out_rows == s->in_rows && s->out_cols == s->in_cols &&
               g.depth >= 16 && g.depth % (eights ? 8 : 4) == 0;
    g.first_row = (s->pad_top + s->stride_rows - 1) / s->stride_rows;
    g.first_col = (s->pad_left + s->stride_cols - 1) / s->stride_cols;
    const int64_t most_top = (int64_t)s->in_rows - s->kernel_rows, most_left = (int64_t)s->in_cols - s->kernel_cols;
    g.last_row = most_top < 0 ? -1 : (most_top + s->pad_top) / s->stride_rows;
    g.last_col = most_left < 0 ? -1 : (most_left + s->pad_left) / s->stride_cols;
    const int64_t lines = (int64_t)(s->kernel_rows - 1) * s->in_cols + 3 * (int64_t)s->stride_cols;
    g.last_copied = klaus_shape_input_count(s, 0) - lines * s->in_channels -
                    (int64_t)aligned((uint64_t)s->kernel_cols * (uint64_t)s->in_channels, 16);
    g.chunk_tiles = CHUNK_BYTES / (int64_t)(2 * g.block_bytes);
    g.chunk_tiles = g.chunk_tiles < 1 ? 1 : g.chunk_tiles > MOST_CHUNK_TILES ? MOST_CHUNK_TILES : g.chunk_tiles;
    g.channels = (int64_t)s->groups * klaus_panel_channels(g.group_filters);
    g.shared_bytes = aligned((uint64_t)g.channels * 12, KLAUS_ALIGNMENT);
    g.part_bytes =
        aligned(KLAUS_DOT_BLOCK * g.gathered_bytes + (uint64_t)g.chunk_tiles * 2 * g.block_bytes, KLAUS_ALIGNMENT);
    return g;
}

bool klaus_conv_dot_can(const klaus_shape *s) {
    return klaus_conv_has_geometry(s) && klaus_int8_fits(s) && (s->groups == 1 || s->in_channels > s->groups);
}

/* ---- weights ---- */

static size_t panel_bytes(const geometry *g, int32_t width) {
    return (size_t)width * (8 + 4 * (size_t)g->steps);
}

uint64_t klaus_conv_dot_packed_bytes(const klaus_shape *shape) {
    const geometry g = geometry_of(shape, false);
    return (uint64_t)g.channels * (8 + 4 * (uint64_t)g.steps);
}

static void pack_channel(const klaus_shape *s, const klaus_weights *weights, const geometry *g, int64_t channel,
                         int32_t width, int32_t c, uint8_t *panel) {
    const int64_t taken = g->eights ? 8 : 4; /* numbers of depth that stand together */
    int8_t some[256], *to = (int8_t *)panel + (size_t)width * 8 + (size_t)(taken * c);
    const float step = klaus_int8_weight_step(s, weights, channel);
    int32_t sum = 0;
    for (int64_t first = 0; first < g->depth; first += 256) {
        const int64_t count = g->depth - first < 256 ? g->depth - first : 256;
        klaus_int8_weights_read(s, weights, channel, step, first, count, some);
        for (int64_t i = 0; i < count; i++) {
            to[(first + i) / taken * taken * width + (first + i) % taken] = some[i];
            sum += some[i];
        }
    }
    memcpy(panel + 4 * (size_t)c, &step, 4);
    memcpy(panel + 4 * (size_t)(width + c), &sum, 4);
}

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed, bool eights) {
    const geometry g = geometry_of(shape, eights);
    uint8_t *panel = packed;
    for (int32_t group = 0; group < shape->groups; group++)
        for (int32_t first = 0, width; first < g.group_filters; first += width) {
            width = klaus_panel_width(g.group_filters, first, KLAUS_DOT_WIDTH);
            memset(panel, 0, panel_bytes(&g, width));
            for (int32_t c = 0; c < width && first + c < g.group_filters; c++)
                pack_channel(shape, weights, &g, (int64_t)group * g.group_filters + first + c, width, c, panel);
            panel += panel_bytes(&g, width);
        }
}

void klaus_conv_dot_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    pack(shape, weights, packed, false);
}

void klaus_conv_dot_pack_eights(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    pack(shape, weights, packed, true);
}

uint64_t klaus_conv_dot_scratch_bytes(const klaus_shape *shape, int32_t parts) {
    const geometry g = geometry_of(shape, false);
    return g.shared_bytes + (uint64_t)parts * g.part_bytes;
}

/* ---- constants: start, multiplier and offset of each channel of the panels ---- */

static void make_constants(const klaus_call *call, const geometry *g) {
    const klaus_shape *s = call->shape;
    int32_t *start = call->scratch;
    float *multiplier = (float *)(void *)(start + g->channels), *offset = multiplier + g->channels;
    const uint8_t *panel = call->packed;
    int64_t at = 0;
    for (int32_t group = 0; group < s->groups; group++)
        for (int32_t first = 0, width; first < g->group_filters; first += width) {
            width = klaus_panel_width(g->group_filters, first, KLAUS_DOT_WIDTH);
            const float *steps = (const float *)(const void *)panel;
            const int32_t *sums = (const int32_t *)(const void *)(steps + width);
            const int32_t left = g->group_filters - first, count = left < width ? left : width;
            for (int32_t c = 0; c < width; c += 4)
                vst1q_s32(start + at + c, vmulq_n_s32(vld1q_s32(sums + c), -s->in_quantization[0].zero));
            klaus_int8_head(call, (int64_t)group * g->group_filters + first, count, width, steps, multiplier + at,
                            offset + at);
            at += width;
            panel += panel_bytes(g, width);
        }
}

/* ---- gathering: windows of four pixels as one block ---- */

/* 16 numbers of each of four rows: four of each row together, or eight. */
static inline void interleave_16(const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d, int8_t *block,
                                 bool eights) {
    if (eights) {
        const int64x2_t w = vreinterpretq_s64_s8(vld1q_s8(a)), x = vreinterpretq_s64_s8(vld1q_s8(b)),
                        y = vreinterpretq_s64_s8(vld1q_s8(c)), z = vreinterpretq_s64_s8(vld1q_s8(d));
        const int64x2x4_t four = {{vzip1q_s64(w, x), vzip1q_s64(y, z), vzip2q_s64(w, x), vzip2q_s64(y, z)}};
        vst1q_s64_x4((int64_t *)(void *)block, four);
        return;
    }
    const int32x4x4_t four = {{vreinterpretq_s32_s8(vld1q_s8(a)), vreinterpretq_s32_s8(vld1q_s8(b)),
                               vreinterpretq_s32_s8(vld1q_s8(c)), vreinterpretq_s32_s8(vld1q_s8(d))}};
    vst4q_s32((int32_t *)(void *)block, four);
}

/* `bytes` numbers (at least 16, a multiple of what stands together) of four rows, `step` apart. */
__attribute__((always_inline)) static inline void interleave(const int8_t *from, int64_t step, int64_t bytes,
                                                             int8_t *block, bool eights) {
    const int8_t *b = from + step, *c = b + step, *d = c + step;
#pragma clang loop unroll(disable)
    for (; bytes >= 16; bytes -= 16, block += 64) {
        interleave_16(from, b, c, d, block, eights);
        from += 16;
        b += 16;
        c += 16;
        d += 16;
    }
    if (bytes > 0) { /* the last 16 once more, where they end */
        const int64_t back = bytes - 16;
        interleave_16(from + back, b + back, c + back, d + back, block + 4 * back, eights);
    }
}

/* The same of rows anywhere. */
static void interleave_rows(const int8_t *const rows[KLAUS_DOT_BLOCK], int64_t bytes, int8_t *block, bool eights) {
    int64_t at = 0;
    for (; at + 16 <= bytes; at += 16)
        interleave_16(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at, block + 4 * at, eights);
    if (at < bytes) {
        at = bytes - 16;
        interleave_16(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at, block + 4 * at, eights);
    }
}

/* Where the windows of four pixels begin; those that do not exist repeat the last one. */
typedef struct windows {
    int64_t y[KLAUS_DOT_BLOCK], x[KLAUS_DOT_BLOCK];
    const int8_t *from[KLAUS_DOT_BLOCK]; /* the window's first number, inside the picture or not */
} windows;

static windows windows_of(const klaus_call *call, int64_t pixel, int64_t count, int64_t first) {
    const klaus_shape *s = call->shape;
    windows w;
    int64_t row = pixel / s->out_cols, col = pixel % s->out_cols;
    for (int64_t r = 0; r < KLAUS_DOT_BLOCK; r++) {
        if (r > 0 && r < count && ++col == s->out_cols) {
            col = 0;
            row++;
        }
        w.y[r] = row * s->stride_rows - s->pad_top;
        w.x[r] = col * s->stride_cols - s->pad_left;
        w.from[r] = (const int8_t *)call->input[0] + ((w.y[r] * s->in_cols + w.x[r]) * s->in_channels + first);
    }
    return w;
}

/* Taps of whole vectors: interleaved as they lie, or from a row of the zero. */
static void gather_taps(const klaus_call *call, const geometry *g, const windows *w, const int8_t *zeros,
                        int8_t *block) {
    const klaus_shape *s = call->shape;
    for (int64_t u = 0; u < s->kernel_rows; u++)
        for (int64_t v = 0; v < s->kernel_cols; v++) {
            const int64_t at = (u * s->in_cols + v) * s->in_channels;
            const int8_t *from[KLAUS_DOT_BLOCK];
            for (int64_t r = 0; r < KLAUS_DOT_BLOCK; r++) {
                const bool there =
                    w->y[r] + u >= 0 && w->y[r] + u < s->in_rows && w->x[r] + v >= 0 && w->x[r] + v < s->in_cols;
                from[r] = there ? w->from[r] + at : zeros;
            }
            interleave_rows(from, g->group_channels, block, g->eights);
            block += KLAUS_DOT_BLOCK * g->group_channels;
        }
}

/* One kernel row of a window from column `x` of the picture's row `from`, zeros where it leaves the picture. */
static void gather_row(const klaus_shape *s, int64_t depth, const int8_t *from, int64_t x, int8_t *to) {
    const int32_t zero = s->in_quantization[0].zero;
    int64_t begin = x < 0 ? -x : 0, end = s->in_cols - x < s->kernel_cols ? s->in_cols - x : s->kernel_cols;
    begin = begin > s->kernel_cols ? s->kernel_cols : begin;
    end = end < begin ? begin : end;
    memset(to, zero, (size_t)(begin * depth));
    if (s->groups == 1) {
        if (end > begin)
            memcpy(to + begin * depth, from + (x + begin) * s->in_channels, (size_t)((end - begin) * depth));
    } else {
        for (int64_t v = begin; v < end; v++)
            memcpy(to + v * depth, from + (x + v) * s->in_channels, (size_t)depth);
    }
    memset(to + end * depth, zero, (size_t)((s->kernel_cols - end) * depth));
}

static void gather_window(const klaus_call *call, const geometry *g, int64_t y, int64_t x, int64_t first, int8_t *to) {
    const klaus_shape *s = call->shape;
    const int8_t *input = (const int8_t *)call->input[0] + first;
    const int64_t bytes = s->kernel_cols * (int64_t)g->group_channels;
    for (int64_t u = 0; u < s->kernel_rows; u++, to += bytes) {
        if (y + u < 0 || y + u >= s->in_rows)
            memset(to, s->in_quantization[0].zero, (size_t)bytes);
        else
            gather_row(s, g->group_channels, input + (y + u) * s->in_cols * s->in_channels, x, to);
    }
}

/* Any windows, by way of four rows in scratch. */
__attribute__((noinline)) static void gather_any(const klaus_call *call, const geometry *g, int64_t pixel,
                                                 int64_t count, int64_t first, int8_t *rows, int8_t *block) {
    const windows w = windows_of(call, pixel, count, first);
    if (g->group_channels % 16 == 0) {
        gather_taps(call, g, &w, rows, block);
        return;
    }
    for (int64_t r = 0; r < KLAUS_DOT_BLOCK; r++)
        gather_window(call, g, w.y[r], w.x[r], first, rows + (size_t)r * g->gathered_bytes);
    interleave(rows, (int64_t)g->gathered_bytes, (int64_t)g->row_bytes, block, g->eights);
}

/* `blocks` times four neighbours in one line inside the picture, the first window from `from` on; taps of whole
 * vectors. Returns where the blocks end. */
__attribute__((always_inline)) static inline int8_t *gather_inner_taps(const klaus_shape *s, const geometry *g,
                                                                       const int8_t *from, int64_t blocks,
                                                                       int8_t *block, const bool eights) {
    const int64_t step = (int64_t)s->stride_cols * s->in_channels, line = (int64_t)s->in_cols * s->in_channels;
    for (; blocks > 0; blocks--, from += KLAUS_DOT_BLOCK * step) {
        int8_t *to = block;
        for (int32_t u = 0; u < s->kernel_rows; u++) {
            const int8_t *tap = from + u * line;
            for (int32_t v = s->kernel_cols; v > 0; v--, tap += s->in_channels) {
                interleave(tap, step, g->group_channels, to, eights);
                to += KLAUS_DOT_BLOCK * g->group_channels;
            }
        }
        block += g->block_bytes;
    }
    return block;
}

/* The same for one group of any number of channels. Kernel rows are read in whole vectors, their ends first: what is
 * read beyond a row lands where the next one's beginning comes, or beyond the depth. */
__attribute__((always_inline)) static inline int8_t *gather_inner_rows(const klaus_shape *s, const geometry *g,
                                                                       const int8_t *from, int64_t blocks, int8_t *rows,
                                                                       int8_t *block, const bool eights) {
    const int64_t step = (int64_t)s->stride_cols * s->in_channels, line = (int64_t)s->in_cols * s->in_channels;
    const int64_t bytes = (int64_t)s->kernel_cols * s->in_channels, gathered = (int64_t)g->gathered_bytes;
    for (; blocks > 0; blocks--, from += KLAUS_DOT_BLOCK * step) {
        for (int64_t i = (bytes - 1) / 16 * 16; i >= 0; i -= 16) {
            const int8_t *x = from + i;
            int8_t *to = rows + i;
#pragma clang loop unroll(disable)
            for (int32_t u = s->kernel_rows; u > 0; u--, x += line, to += bytes) {
                const int8x16_t a = vld1q_s8(x), b = vld1q_s8(x + step), c = vld1q_s8(x + 2 * step),
                                d = vld1q_s8(x + 3 * step);
                vst1q_s8(to, a);
                vst1q_s8(to + gathered, b);
                vst1q_s8(to + 2 * gathered, c);
                vst1q_s8(to + 3 * gathered, d);
            }
        }
        interleave(rows, gathered, (int64_t)g->row_bytes, block, eights);
        block += g->block_bytes;
    }
    return block;
}

/* How many blocks from output pixel (row, col) on, up to `most`, the inner gathering can do at once. */
static int64_t inner_blocks(const klaus_shape *s, const geometry *g, int64_t row, int64_t col, int64_t offset,
                            int64_t most) {
    if (row < g->first_row || row > g->last_row || col < g->first_col)
        return 0;
    const int64_t here = (g->last_col + 1 - col) / KLAUS_DOT_BLOCK;
    most = here < most ? here : most;
    if (g->group_channels % 16 == 0 || most <= 0)
        return most;
    const int64_t step = KLAUS_DOT_BLOCK * (int64_t)s->stride_cols * s->in_channels;
    const int64_t safe = s->groups > 1 || offset > g->last_copied ? 0 : (g->last_copied - offset) / step + 1;
    return safe < most ? safe : most;
}

/* Pixels begin .. end - 1 as blocks. */
__attribute__((always_inline)) static inline void make_blocks_as(const klaus_call *call, const geometry *g,
                                                                 int64_t begin, int64_t end, int64_t first,
                                                                 int8_t *rows, int8_t *block, const bool eights) {
    const klaus_shape *s = call->shape;
    const int8_t *input = (const int8_t *)call->input[0] + first;
    if (g->direct) {
        for (; begin + KLAUS_DOT_BLOCK <= end; begin += KLAUS_DOT_BLOCK, block += g->block_bytes)
            interleave(input + begin * s->in_channels, s->in_channels, g->depth, block, eights);
        if (begin < end) {
            const int8_t *from[KLAUS_DOT_BLOCK];
            for (int64_t r = 0; r < KLAUS_DOT_BLOCK; r++)
                from[r] = input + (begin + r < end ? begin + r : end - 1) * s->in_channels;
            interleave_rows(from, g->depth, block, eights);
        }
        return;
    }
    while (begin < end) {
        const int64_t row = begin / s->out_cols, col = begin % s->out_cols;
        const int64_t offset =
            ((row * s->stride_rows - s->pad_top) * s->in_cols + col * s->stride_cols - s->pad_left) * s->in_channels;
        const int64_t blocks = inner_blocks(s, g, row, col, offset, (end - begin) / KLAUS_DOT_BLOCK);
        if (blocks > 0) {
            block = g->group_channels % 16 == 0 ? gather_inner_taps(s, g, input + offset, blocks, block, eights)
                                                : gather_inner_rows(s, g, input + offset, blocks, rows, block, eights);
            begin += blocks * KLAUS_DOT_BLOCK;
            continue;
        }
        gather_any(call, g, begin, end - begin < KLAUS_DOT_BLOCK ? end - begin : KLAUS_DOT_BLOCK, first, rows, block);
        block += g->block_bytes;
        begin += KLAUS_DOT_BLOCK;
    }
}

__attribute__((noinline)) static void make_blocks(const klaus_call *call, const geometry *g, int64_t begin, int64_t end,
                                                  int64_t first, int8_t *rows, int8_t *block) {
    make_blocks_as(call, g, begin, end, first, rows, block, false);
}

__attribute__((noinline)) static void make_blocks_of_eights(const klaus_call *call, const geometry *g, int64_t begin,
                                                            int64_t end, int64_t first, int8_t *rows, int8_t *block) {
    make_blocks_as(call, g, begin, end, first, rows, block, true);
}

void klaus_conv_dot_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts,
                        const klaus_dot_kernel *kernel) {
    const klaus_shape *s = call->shape;
    const geometry g = geometry_of(s, kernel->eights);
    if (phase == 0) {
        if (part == 0)
            make_constants(call, &g);
        return;
    }
    void (*const make)(const klaus_call *, const geometry *, int64_t, int64_t, int64_t, int8_t *, int8_t *) =
        kernel->eights ? make_blocks_of_eights : make_blocks;
    const klaus_dot_results results = klaus_dot_results_of(s);
    int8_t *rows = (int8_t *)call->scratch + (size_t)(g.shared_bytes + (uint64_t)part * g.part_bytes);
    int8_t *blocks = rows + KLAUS_DOT_BLOCK * g.gathered_bytes;
    /* Either what stands outside the picture, or rows beyond whose depth stands what meets weights of zero. */
    memset(rows, s->in_quantization[0].zero, KLAUS_DOT_BLOCK * g.gathered_bytes);
    klaus_dot_tile tile = {
        .call = call, .results = &results, .steps = g.steps, .block_bytes = g.block_bytes, .inputs = blocks};
    int64_t begin, end;
    klaus_share((int64_t)s->out_rows * s->out_cols, KLAUS_DOT_ROWS, part, parts, &begin, &end);
    for (int64_t chunk = begin, chunk_end; chunk < end; chunk = chunk_end) {
        chunk_end = end - chunk < g.chunk_tiles * KLAUS_DOT_ROWS ? end : chunk + g.chunk_tiles * KLAUS_DOT_ROWS;
        const uint8_t *panel = call->packed;
        tile.start = call->scratch;
        tile.rows = chunk_end - chunk;
        for (int32_t group = 0; group < s->groups; group++) {
            make(call, &g, chunk, chunk_end, (int64_t)group * g.group_channels, rows, blocks);
            for (int32_t first = 0; first < g.group_filters; first += tile.width) {
                tile.width = klaus_panel_width(g.group_filters, first, KLAUS_DOT_WIDTH);
                tile.outputs = g.group_filters - first < tile.width ? g.group_filters - first : tile.width;
                tile.weights = (const int8_t *)panel + (size_t)tile.width * 8;
                tile.multiplier = (const float *)(const void *)(tile.start + g.channels);
                tile.offset = (const float *)(const void *)(tile.start + 2 * g.channels);
                tile.at = chunk * s->out_channels + (int64_t)group * g.group_filters + first;
                kernel->run(&tile);
                tile.start += tile.width;
                panel += panel_bytes(&g, tile.width);
            }
        }
    }
}
