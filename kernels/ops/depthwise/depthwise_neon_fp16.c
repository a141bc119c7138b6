/* Depthwise convolution of halves: tiles of two output rows, seven columns and eight channels, 14 sums.
 *
 * Input rows are walked one after another, each from left to right; a vector that is loaded is added into every output
 * it belongs to. Of 5x5 kernels the two rows in use are loaded while the input rows pass, a 3x3 kernel stays in
 * registers. Rows outside the picture are read from zeros. Columns outside are left out where the tile stands at the
 * edge of a map as networks have it (whole tiles, "same" padding); every other tile goes through a copy. */
#include <string.h>

#include "ops/depthwise/depthwise_f16.h"
#include "ops/layouts.h"
#include "ops/neon.h"
#include "ops/neon_fp16.h"
#include "ops/shape.h"

#define LINES 2
#define COLS 7
#define MOST_ROWS 7  /* input rows of a tile: 2 + 5 */
#define MOST_COLS 17 /* and columns: 2 * 6 + 5 */

/* Where a tile's input rows begin, and how far it is to the next column; in bytes, 0 for rows of zeros. */
typedef struct rows_of {
    const uint16_t *at[MOST_ROWS];
    int64_t step[MOST_ROWS];
} rows_of;

static inline void store_step(uint16_t **to, float16x8_t value, int64_t step) {
    __asm__ volatile("st1 {%1.8h}, [%0], %2" : "+r"(*to) : "w"(value), "r"(step) : "memory");
}

/* Loads and advances by `bytes`; in the order of the text, as registers are short. */
static inline float16x8_t load_step(const uint16_t **from, int64_t bytes) {
    float16x8_t value;
    __asm__ volatile("ld1 {%0.8h}, [%1], %2" : "=w"(value), "+r"(*from) : "r"(bytes) : "memory");
    return value;
}

/* Computes a sum here, not further down, where more vectors would have to wait for it than there are registers. */
static inline void settle(float16x8_t *sum) {
    __asm__ volatile("" : "+w"(*sum));
}

/* One tile. Its rows begin with the first column inside the picture: `left` columns before it and `right` columns at
 * its end are outside. All but pointers are constants where it is inlined; `held` is a 3x3 kernel. */
__attribute__((always_inline)) static inline void tile(const rows_of *rows, const klaus_depthwise_f16_block *block,
                                                       const float16x8_t *held, uint16_t *const *output,
                                                       const int64_t *out_step, klaus_limits_8h limits,
                                                       const int kernel, const int stride, const int left,
                                                       const int right) {
    const int count = (LINES - 1) * stride + kernel, cols = (COLS - 1) * stride + kernel;
    float16x8_t sum[LINES][COLS];
    const float16x8_t bias = klaus_load_8h(block->start);
    KLAUS_UNROLL_ALL for (int line = 0; line < LINES; line++) KLAUS_UNROLL_ALL for (int j = 0; j < COLS; j++)
        sum[line][j] = bias;
    float16x8_t weight[LINES][5];
    KLAUS_UNROLL_ALL for (int u = 0; u < count; u++) {
        const uint16_t *input = rows->at[u];
        const int64_t step = rows->step[u];
        /* The second line first: with a stride of one its row of weights is what the first line has just used. */
        KLAUS_UNROLL_ALL for (int line = LINES - 1; line >= 0; line--) {
            const int w = u - line * stride;
            if (w >= 0 && w < kernel)
                KLAUS_UNROLL_ALL for (int v = 0; v < kernel; v++) weight[line][v] =
                    kernel == 3               ? held[3 * w + v]
                    : line > 0 && stride == 1 ? weight[line - 1][v]
                                              : klaus_load_8h(block->weights + 8 * (kernel * w + v));
        }
        KLAUS_UNROLL_ALL for (int x = left; x < cols - right; x++) {
            const float16x8_t value = load_step(&input, step);
            KLAUS_UNROLL_ALL for (int line = 0; line < LINES; line++) KLAUS_UNROLL_ALL for (int j = 0; j < COLS; j++) {
                const int w = u - line * stride, v = x - j * stride;
                if (w >= 0 && w < kernel && v >= 0 && v < kernel) {
                    sum[line][j] = vfmaq_f16(sum[line][j], weight[line][v], value);
                    settle(&sum[line][j]);
                }
            }
        }
        klaus_step_ends();
    }
    KLAUS_UNROLL_ALL for (int line = 0; line < LINES; line++) {
        uint16_t *to = output[line];
        KLAUS_UNROLL_ALL for (int j = 0; j < COLS; j++)
            store_step(&to, klaus_limit_8h(sum[line][j], limits), out_step[line]);
    }
}

/* Two rows of output. */
typedef struct band {
    const klaus_call *call;
    int64_t row;   /* the first one */
    int32_t lines; /* 1 or 2 */
} band;

static const klaus_depthwise_f16_block *block_of(const klaus_call *call, int32_t number) {
    return (const klaus_depthwise_f16_block *)(const void *)((const uint8_t *)call->packed +
                                                             (size_t)number *
                                                                 klaus_depthwise_f16_block_bytes(call->shape));
}

static void hold(const klaus_depthwise_f16_block *block, float16x8_t *held) {
    KLAUS_UNROLL_ALL for (int tap = 0; tap < 9; tap++) held[tap] = klaus_load_8h(block->weights + 8 * tap);
}

static inline void advance(rows_of *rows, const int count, int64_t columns) {
    KLAUS_UNROLL_ALL for (int u = 0; u < count; u++) rows->at[u] =
        (const uint16_t *)(const void *)((const char *)rows->at[u] + columns * rows->step[u]);
}

/* Whole tiles in a row, the first with `left` columns outside, the last with `right`; blocks from, to. */
__attribute__((always_inline)) static inline void fast(const band *b, int32_t from, int32_t to, const int kernel,
                                                       const int stride, const int left, const int right) {
    static const uint16_t zeros[8];
    const klaus_shape *s = b->call->shape;
    const int count = (LINES - 1) * stride + kernel;
    const klaus_limits_8h limits = klaus_activation_limits_8h(s->activation);
    uint16_t nothing[8]; /* in place of a second line */
    rows_of rows, first;
    int64_t next[MOST_ROWS]; /* from block to block, in bytes */
    KLAUS_UNROLL_ALL for (int u = 0; u < count; u++) {
        const int64_t y = b->row * stride - s->pad_top + u;
        const bool inside = y >= 0 && y < s->in_rows;
        first.at[u] = inside ? (const uint16_t *)b->call->input[0] + y * s->in_cols * s->in_channels + 8 * from : zeros;
        rows.step[u] = inside ? 2 * (int64_t)s->in_channels : 0;
        next[u] = inside ? 16 : 0;
    }
    const int64_t line_numbers = (int64_t)s->out_cols * s->out_channels;
    uint16_t *result = (uint16_t *)b->call->output + b->row * line_numbers + 8 * from;
    const bool both = b->lines == LINES;
    const int64_t step = 2 * (int64_t)s->out_channels, steps[LINES] = {step, both ? step : 0};
    const int32_t tiles = s->out_cols / COLS;
    const klaus_depthwise_f16_block *block = block_of(b->call, from);
    for (int32_t n = from; n < to; n++, result += 8) {
        float16x8_t held[9];
        hold(block, held);
        KLAUS_UNROLL_ALL for (int u = 0; u < count; u++) {
            rows.at[u] = first.at[u];
            first.at[u] = (const uint16_t *)(const void *)((const char *)first.at[u] + next[u]);
        }
        uint16_t *output[LINES] = {result, both ? result + line_numbers : nothing};
        if (tiles == 1) {
            tile(&rows, block, held, output, steps, limits, kernel, stride, left, right);
        } else {
            tile(&rows, block, held, output, steps, limits, kernel, stride, left, 0);
            advance(&rows, count, COLS * stride - left);
            for (int32_t t = tiles - 2; t > 0; t--) {
                KLAUS_UNROLL_ALL for (int line = 0; line < LINES; line++) output[line] += COLS * steps[line] / 2;
                tile(&rows, block, held, output, steps, limits, kernel, stride, 0, 0);
                advance(&rows, count, COLS * stride);
            }
            KLAUS_UNROLL_ALL for (int line = 0; line < LINES; line++) output[line] += COLS * steps[line] / 2;
            tile(&rows, block, held, output, steps, limits, kernel, stride, 0, right);
        }
        block = (const klaus_depthwise_f16_block *)(const void *)(block->weights + 8 * kernel * kernel);
    }
}

__attribute__((noinline)) static void fast_3x3(const band *b, int32_t from, int32_t to) {
    fast(b, from, to, 3, 1, 1, 1);
}

__attribute__((noinline)) static void fast_3x3_stride_2(const band *b, int32_t from, int32_t to) {
    fast(b, from, to, 3, 2, 0, 1);
}

__attribute__((noinline)) static void fast_5x5(const band *b, int32_t from, int32_t to) {
    fast(b, from, to, 5, 1, 2, 2);
}

__attribute__((noinline)) static void fast_5x5_stride_2(const band *b, int32_t from, int32_t to) {
    fast(b, from, to, 5, 2, 1, 2);
}

/* A vector of sums to an output. */
static void finish(const band *b, const klaus_depthwise_f16_block *block, size_t done, const uint16_t *sums,
                   int64_t at) {
    const klaus_limits_8h limits = klaus_activation_limits_8h(b->call->shape->activation);
    uint16_t addend[8] = {0, 0, 0, 0, 0, 0, 0, 0}, results[8];
    if (b->call->shape->has_addend) /* channels that are done may have been overwritten: the output may be the addend */
        memcpy(addend + done, (const uint16_t *)b->call->input[1] + at + done, (8 - done) * 2);
    const float16x8_t sum = klaus_load_8h(sums), more = klaus_load_8h(addend);
    float32x4_t low = klaus_low_4s(sum), high = klaus_high_4s(sum);
    if (block->wide) {
        low = vfmaq_f32(vld1q_f32(block->bias), low, vld1q_f32(block->scale));
        high = vfmaq_f32(vld1q_f32(block->bias + 4), high, vld1q_f32(block->scale + 4));
    }
    low = vaddq_f32(low, klaus_low_4s(more));
    high = vaddq_f32(high, klaus_high_4s(more));
    klaus_store_8h(results, klaus_limit_8h(klaus_narrow_8h(low, high), limits));
    memcpy((uint16_t *)b->call->output + at + done, results + done, (8 - done) * 2);
}

/* Any map, by copies of a tile's input and output. */
__attribute__((always_inline)) static inline void slow(const band *b, int32_t number, const int kernel,
                                                       const int stride) {
    const klaus_shape *s = b->call->shape;
    const klaus_depthwise_f16_block *block = block_of(b->call, number);
    const int32_t first = klaus_depthwise_f16_first(s->in_channels, number);
    const size_t done = (size_t)(8 * number - first); /* channels that the block before has stored */
    const int count = (LINES - 1) * stride + kernel, cols = (COLS - 1) * stride + kernel;
    const klaus_limits_8h limits = klaus_activation_limits_8h(KLAUS_LINEAR);
    uint16_t input[MOST_ROWS][MOST_COLS][8], sums[LINES][COLS][8];
    uint16_t *const output[LINES] = {sums[0][0], sums[1][0]};
    static const int64_t steps[LINES] = {16, 16};
    rows_of rows;
    float16x8_t held[9];
    hold(block, held);
    for (int u = 0; u < count; u++) {
        rows.at[u] = input[u][0];
        rows.step[u] = 16;
    }
    for (int64_t col = 0; col < s->out_cols; col += COLS) {
        for (int u = 0; u < count; u++)
            for (int v = 0; v < cols; v++) {
                const int64_t y = b->row * stride - s->pad_top + u, x = col * stride - s->pad_left + v;
                const bool inside = y >= 0 && y < s->in_rows && x >= 0 && x < s->in_cols;
                if (inside)
                    memcpy(input[u][v],
                           (const uint16_t *)b->call->input[0] + (y * s->in_cols + x) * s->in_channels + first, 16);
                else
                    memset(input[u][v], 0, 16);
            }
        tile(&rows, block, held, output, steps, limits, kernel, stride, 0, 0);
        for (int line = 0; line < b->lines; line++)
            for (int j = 0; j < COLS && col + j < s->out_cols; j++)
                finish(b, block, done, sums[line][j],
                       ((b->row + line) * s->out_cols + col + j) * s->out_channels + first);
    }
}

__attribute__((always_inline)) static inline void slow_blocks(const band *b, int32_t from, int32_t to, const int kernel,
                                                              const int stride) {
    for (int32_t n = from; n < to; n++)
        slow(b, n, kernel, stride);
}

__attribute__((noinline)) static void slow_3x3(const band *b, int32_t from, int32_t to) {
    slow_blocks(b, from, to, 3, 1);
}

__attribute__((noinline)) static void slow_3x3_stride_2(const band *b, int32_t from, int32_t to) {
    slow_blocks(b, from, to, 3, 2);
}

__attribute__((noinline)) static void slow_5x5(const band *b, int32_t from, int32_t to) {
    slow_blocks(b, from, to, 5, 1);
}

__attribute__((noinline)) static void slow_5x5_stride_2(const band *b, int32_t from, int32_t to) {
    slow_blocks(b, from, to, 5, 2);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    static void (*const all[2][2][2])(const band *, int32_t,
                                      int32_t) = {{{slow_3x3, fast_3x3}, {slow_3x3_stride_2, fast_3x3_stride_2}},
                                                  {{slow_5x5, fast_5x5}, {slow_5x5_stride_2, fast_5x5_stride_2}}};
    (void)phase;
    const klaus_shape *s = call->shape;
    const int five = s->kernel_rows == 5, two = s->stride_rows == 2;
    /* Columns outside on either side of maps as networks have them: half a kernel; for a stride of two as TensorFlow
     * pads maps of even width. */
    const int32_t left = five ? 2 - two : 1 - two, right = five ? 2 : 1;
    const int64_t end_col = (int64_t)(s->out_cols - 1) * s->stride_cols + s->kernel_cols - s->pad_left;
    const bool usual =
        s->out_cols % COLS == 0 && s->pad_left == left && end_col - s->in_cols == right && !s->has_addend;
    const int32_t blocks = (s->in_channels + 7) / 8;
    int32_t fast_blocks = 0; /* so many can take the fast way; after that one after another */
    while (usual && fast_blocks < s->in_channels / 8 && !block_of(call, fast_blocks)->wide)
        fast_blocks++;
    int64_t begin, end;
    klaus_share(s->out_rows, LINES, part, parts, &begin, &end);
    for (int64_t row = begin; row < end; row += LINES) {
        const band b = {.call = call, .row = row, .lines = end - row < LINES ? 1 : LINES};
        if (fast_blocks > 0)
            all[five][two][1](&b, 0, fast_blocks);
        for (int32_t n = fast_blocks; n < blocks; n++)
            all[five][two][usual && 8 * n + 8 <= s->in_channels && !block_of(call, n)->wide](&b, n, n + 1);
    }
}

const klaus_variant klaus_depthwise_f16_neon_fp16_2x8 = {
    .name = "klaus_depthwise_f16_neon_fp16_2x8",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_DEPTHWISE_F16,
    .phases = 1,
    .can = klaus_depthwise_f16_can,
    .packed_bytes = klaus_depthwise_f16_packed_bytes,
    .pack = klaus_depthwise_f16_pack,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
