/* What full connects of int8 from packed weights share: the inputs' order, the weights' look-up, the layer. `kind` is a
 * constant where it is inlined. */
#ifndef KLAUS_OPS_FULL_CONNECT_DOT_NEON64_H
#define KLAUS_OPS_FULL_CONNECT_DOT_NEON64_H
#include <string.h>

#include "ops/full_connect/full_connect_dot.h"
#include "ops/gemm/gemm_dot.h"
#include "ops/int8_neon64.h"
#include "ops/shape.h"

#define WIDTH KLAUS_FULL_CONNECT_DOT_WIDTH
#define MOST_ROWS 10 /* a 10-patch job's */
#define UNROLLED _Pragma("clang loop unroll(full)")

enum kind { BYTES, Q4, Q2 };

/* One panel of weights times one tile of inputs, added to the sums, [row][WIDTH]. */
typedef void panel_kernel(const uint8_t *table, const uint8_t *weights, const int8_t *inputs, int64_t count,
                          int32_t *sums);

/* What a variant brings. */
typedef struct panel_kernels {
    panel_kernel *run[3][3];              /* [kind][1 row, up to 4, up to MOST_ROWS] */
    int32_t taken;                        /* numbers of depth that it wants side by side */
    int32_t (*filled_rows)(int32_t rows); /* what a tile's rows are filled up to */
} panel_kernels;

/* ---- inputs: [depth / taken][rows of a tile, filled up][taken], in scratch; one row lies as it is ---- */

static inline int32_t rows_at(int32_t batch, int32_t first) {
    return batch - first < MOST_ROWS ? batch - first : MOST_ROWS;
}

static inline uint64_t inputs_bytes(const klaus_shape *s, const panel_kernels *kernels) {
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch), rest = batch % MOST_ROWS;
    const int32_t rows =
        batch / MOST_ROWS * kernels->filled_rows(MOST_ROWS) + (rest > 0 ? kernels->filled_rows(rest) : 0);
    return (uint64_t)klaus_full_connect_dot_inputs(s) * (uint64_t)rows;
}

/* Phase 0: the share of the depth. */
static inline void arrange(const klaus_call *call, int32_t part, int32_t parts, const panel_kernels *kernels) {
    const klaus_shape *s = call->shape;
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch);
    const int64_t inputs = klaus_shape_inputs_per_row(s), whole = klaus_full_connect_dot_inputs(s);
    const int64_t taken = kernels->taken;
    int8_t *to = call->scratch;
    for (int32_t first = 0; first < batch; first += MOST_ROWS) {
        const int32_t rows = rows_at(batch, first), filled = kernels->filled_rows(rows);
        int64_t begin, end;
        klaus_share(whole, 32, part, parts, &begin, &end);
        memset(to + begin * filled, 0, (size_t)((end - begin) * filled));
        end = end < inputs ? end : inputs;
        for (int32_t r = 0; r < rows; r++) {
            const int8_t *from = (const int8_t *)call->input[0] + (first + r) * inputs;
            if (filled == 1 && end > begin)
                memcpy(to + begin, from + begin, (size_t)(end - begin));
            for (int64_t i = begin; filled > 1 && i < end; i += taken)
                memcpy(to + i * filled + taken * r, from + i, (size_t)(end - i < taken ? end - i : taken));
        }
        to += whole * filled;
    }
}

/* ---- weights ---- */

/* 16 weights of number `n` out of 16 bytes of indices. */
__attribute__((always_inline)) static inline int8x16_t look_up(int8x16_t table, uint8x16_t indices, const int n,
                                                               const enum kind kind) {
    if (kind == Q4)
        indices = n == 0 ? vandq_u8(indices, vdupq_n_u8(15)) : vshrq_n_u8(indices, 4);
    else if (n == 3)
        indices = vshrq_n_u8(indices, 6);
    else
        indices = vandq_u8(n == 0 ? indices : n == 1 ? vshrq_n_u8(indices, 2) : vshrq_n_u8(indices, 4), vdupq_n_u8(3));
    return vqtbl1q_s8(table, indices);
}

/* ---- the layer ---- */

static inline void multiply(const klaus_call *call, int32_t part, int32_t parts, const panel_kernels *kernels) {
    const klaus_shape *s = call->shape;
    const uint32_t stored = klaus_full_connect_dot_stored(s);
    panel_kernel *const *const by_rows = kernels->run[stored == KLAUS_I8 ? BYTES : stored == KLAUS_Q4 ? Q4 : Q2];
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch);
    const int64_t inputs = klaus_full_connect_dot_inputs(s);
    const klaus_dot_results results = klaus_dot_results_of(s);
    klaus_dot_tile tile = {.call = call, .results = &results, .width = WIDTH};
    int64_t begin, end;
    klaus_share(s->out_channels, WIDTH, part, parts, &begin, &end);
    for (int64_t channel = begin; channel < end; channel += WIDTH) {
        const uint8_t *panel = (const uint8_t *)call->packed + klaus_full_connect_dot_table_bytes(s) +
                               (size_t)(channel / WIDTH) * klaus_full_connect_dot_panel_bytes(s);
        const float *steps = (const float *)(const void *)panel;
        const int32_t *weight_sums = (const int32_t *)(const void *)(steps + WIDTH);
        int32_t start[WIDTH];
        float multiplier[WIDTH], offset[WIDTH];
        tile.outputs = (int32_t)(end - channel < WIDTH ? end - channel : WIDTH);
        for (int32_t c = 0; c < WIDTH; c++)
            start[c] = -s->in_quantization[0].zero * weight_sums[c];
        klaus_int8_head(call, channel, tile.outputs, WIDTH, steps, multiplier, offset);
        tile.multiplier = multiplier;
        tile.offset = offset;
        const int8_t *x = call->scratch;
        for (int32_t first = 0; first < batch; first += MOST_ROWS) {
            int32_t sums[MOST_ROWS * WIDTH];
            const int32_t rows = rows_at(batch, first);
            for (int32_t r = 0; r < MOST_ROWS; r++)
                memcpy(sums + WIDTH * r, start, sizeof start);
            by_rows[rows == 1 ? 0 : rows <= 4 ? 1 : 2](call->packed, panel + 8 * WIDTH, x, inputs, sums);
            klaus_dot_finish(&tile, (int64_t)first * s->out_channels + channel, rows, sums);
            x += inputs * kernels->filled_rows(rows);
        }
    }
}

#endif
