#include <string.h>

#include "ops/conv/conv.h"
#include "ops/shape.h"
#include "ops/winograd/winograd_i8.h"
#include "ops/winograd/winograd_i8_neon64.h"

#define UNROLLED KLAUS_INT8_UNROLLED

void klaus_winograd_i8_copy(const klaus_call *call, const klaus_winograd_i8 *g, int32_t part, int32_t parts) {
    const size_t bytes = (size_t)(g->rows * g->cols) * (size_t)call->shape->in_channels;
    klaus_conv_pad_i8(call, g->rows, g->cols, part, parts);
    if (part == parts - 1) /* what the last vector reads beyond the last cell */
        memset((int8_t *)call->scratch + bytes, call->shape->in_quantization[0].zero, 8);
}

/* Six samples in a line to their values at six points, times what makes integers of them. */
__attribute__((always_inline)) static inline void transform_6(const int16x8_t *d, int16x8_t *to, const int step,
                                                              const klaus_winograd_i8_factors *by) {
    const int16x8_t d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const int16x8_t a = vmlsq_s16(d4, d2, by->four), b = vmlsq_s16(d3, d1, by->four);
    const int16x8_t c = vsubq_s16(d4, d2), e = vsubq_s16(d3, d1);
    to[0] = vmlaq_s16(vmlsq_s16(d4, d2, by->five), d[0], by->four);
    to[step] = vaddq_s16(a, b);
    to[2 * step] = vsubq_s16(a, b);
    to[3 * step] = vmlaq_s16(c, e, by->two);
    to[4 * step] = vmlsq_s16(c, e, by->two);
    to[5 * step] = vmlaq_s16(vmlsq_s16(d[5 * step], d3, by->five), d1, by->four);
}

/* Eight channels of one phase of one tile. */
__attribute__((noinline)) static void transform_samples(const int8_t *from, int64_t row_step, int64_t col_step,
                                                        int8x8_t zero, int16x8_t *values) {
    const klaus_winograd_i8_factors by = {klaus_unknown_s16(2), klaus_unknown_s16(4), klaus_unknown_s16(5)};
    int16x8_t samples[KLAUS_WINOGRAD_I8_POSITIONS], half[KLAUS_WINOGRAD_I8_POSITIONS];
    for (int i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++, from += row_step) {
        const int8_t *cell = from;
        UNROLLED for (int j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++, cell += col_step)
            samples[i * KLAUS_WINOGRAD_I8_POINTS + j] = vsubl_s8(vld1_s8(cell), zero);
    }
    UNROLLED for (int j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++)
        transform_6(samples + j, half + j, KLAUS_WINOGRAD_I8_POINTS, &by);
    UNROLLED for (int i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++)
        transform_6(half + KLAUS_WINOGRAD_I8_POINTS * i, values + KLAUS_WINOGRAD_I8_POINTS * i, 1, &by);
}

/* All channels of one tile, [position][tile of the block][step of depth]. */
static void transform_tile(const klaus_call *call, const klaus_winograd_i8 *g, int32_t group, int32_t tile) {
    const int64_t cell = call->shape->in_channels;
    const int8x8_t zero = vdup_n_s8((int8_t)call->shape->in_quantization[0].zero);
    const int64_t top = (int64_t)(tile / g->tile_cols) * g->tile * g->stride;
    const int64_t left = (int64_t)(tile % g->tile_cols) * g->tile * g->stride;
    const int8_t *window = (const int8_t *)call->scratch + (top * g->cols + left) * cell + group * g->channels;
    int16_t *inputs = klaus_winograd_i8_inputs_of(call, g, (int64_t)group * g->blocks + tile / KLAUS_WINOGRAD_I8_TILES);
    const int32_t number = tile % KLAUS_WINOGRAD_I8_TILES, rights = g->joined ? 1 : g->stride;
    const int32_t channels = g->joined ? 2 * g->channels : g->channels;
    /* Ascending places in each position: what a vector stores too many is written over. */
    for (int32_t down = 0; down < g->stride; down++)
        for (int32_t right = 0; right < rights; right++)
            for (int32_t c = 0; c < channels; c += 8) {
                int16x8_t values[KLAUS_WINOGRAD_I8_POSITIONS];
                transform_samples(window + (down * g->cols + right) * cell + c, g->stride * g->cols * cell,
                                  g->stride * cell, zero, values);
                for (int32_t i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++)
                    for (int32_t j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++) {
                        const int32_t position = i * KLAUS_WINOGRAD_I8_POINTS + j;
                        if (down < klaus_winograd_i8_phases(g, i) && right < klaus_winograd_i8_phases(g, j))
                            vst1q_s16(inputs + g->offsets[position] + number * (g->depths[position] + 8) +
                                          klaus_winograd_i8_stretch_at(g, j, down, right) + c,
                                      values[position]);
                    }
            }
}

void klaus_winograd_i8_inputs(const klaus_call *call, const klaus_winograd_i8 *g, int32_t part, int32_t parts) {
    int64_t begin, end;
    klaus_share((int64_t)call->shape->groups * g->tiles, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++)
        transform_tile(call, g, (int32_t)(item / g->tiles), (int32_t)(item % g->tiles));
}
