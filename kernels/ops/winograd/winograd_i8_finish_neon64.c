#include "ops/winograd/winograd_i8.h"
#include "ops/winograd/winograd_i8_neon64.h"

#define INVERSE_OF_9 0x38e38e39u /* modulo 2^32 */
#define UNROLLED KLAUS_INT8_UNROLLED

/* The tile's first output and how much of it lies in the picture. */
typedef struct corner {
    int64_t at; /* of the panel's channel 0 */
    int32_t rows, cols;
} corner;

static corner corner_of(const klaus_winograd_i8_target *to, int32_t tile) {
    const klaus_shape *s = to->shape;
    const klaus_winograd_i8 *g = to->g;
    const int32_t top = tile / g->tile_cols * g->tile, left = tile % g->tile_cols * g->tile;
    return (corner){((int64_t)top * s->out_cols + left) * s->out_channels,
                    s->out_rows - top < g->tile ? s->out_rows - top : g->tile,
                    s->out_cols - left < g->tile ? s->out_cols - left : g->tile};
}

/* Four channels from `channel` on of up to four outputs beside one another, the first `cols` of which exist. */
__attribute__((always_inline)) static inline void finish_row(const klaus_winograd_i8_target *to, float32x4_t *values,
                                                             int64_t at, int32_t cols, int32_t channel,
                                                             const bool plain) {
    const int64_t step = to->shape->out_channels;
    const int32_t count = to->count - channel;
    if (!plain && to->addend != NULL) {
        int8_t addends[16] = {0};
        for (int32_t j = 0; j < cols; j++)
            for (int32_t c = 0; c < 4 && c < count; c++)
                addends[4 * j + c] = to->addend[at + j * step + channel + c];
        klaus_int8_add(to->finish, vld1q_s8(addends), values);
    }
    const int32x4_t results = vreinterpretq_s32_s8(klaus_int8_rounded(to->finish, values, plain));
    int8_t *output = to->output + at + channel;
    if (plain || count >= 4) {
        vst1q_lane_s32((int32_t *)(void *)output, results, 0);
        if (cols > 1)
            vst1q_lane_s32((int32_t *)(void *)(output + step), results, 1);
        if (cols > 2)
            vst1q_lane_s32((int32_t *)(void *)(output + 2 * step), results, 2);
        if (cols > 3)
            vst1q_lane_s32((int32_t *)(void *)(output + 3 * step), results, 3);
        return;
    }
    int8_t all[16];
    vst1q_s8(all, vreinterpretq_s8_s32(results));
    for (int32_t j = 0; j < cols; j++)
        for (int32_t c = 0; c < count; c++)
            output[j * step + c] = all[4 * j + c];
}

typedef struct back_factors {
    int32x4_t two, four, six;
} back_factors;

/* Six sums in a line to outputs, times 24, 12, 6 and 6. */
__attribute__((always_inline)) static inline void back_6(const int32x4_t *m, const int step, int32x4_t *to,
                                                         const int to_step, const int tile, const back_factors *by) {
    const int32x4_t m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const int32x4_t inner = vaddq_s32(m1, m2), inner_minus = vsubq_s32(m2, m1);
    const int32x4_t outer = vaddq_s32(m3, m4), outer_minus = vsubq_s32(m3, m4);
    to[0] = vmlaq_s32(vmlsq_s32(outer, inner, by->four), m[0], by->six);
    to[to_step] = vmlaq_s32(outer_minus, inner_minus, by->two);
    const int32x4_t squares = vsubq_s32(outer, inner);
    if (tile == 3) {
        to[2 * to_step] = vmlaq_s32(squares, m[5 * step], by->six);
    } else {
        to[2 * to_step] = squares;
        to[3 * to_step] = vmlaq_s32(vmlaq_s32(inner_minus, outer_minus, by->two), m[5 * step], by->six);
    }
}

/* v / 2^bits as float32, one rounding. */
static inline float32x4_t to_float(int32x4_t v, const int bits) {
    switch (bits) {
    case 2:
        return vcvtq_n_f32_s32(v, 2);
    case 3:
        return vcvtq_n_f32_s32(v, 3);
    case 4:
        return vcvtq_n_f32_s32(v, 4);
    case 5:
        return vcvtq_n_f32_s32(v, 5);
    default:
        return vcvtq_n_f32_s32(v, 6);
    }
}

/* Four channels of one tile; sums[position * step]. */
__attribute__((always_inline)) static inline void finish_tile(const klaus_winograd_i8_target *to, const int32_t *sums,
                                                              int64_t step, int32_t tile_number, int32_t channel,
                                                              const int tile, const bool plain) {
    static const int bits[] = {3, 2, 1, 1}; /* 24, 12, 6, 6 are 3 times 2^ these */
    const back_factors by = {klaus_unknown_s32(2), klaus_unknown_s32(4), klaus_unknown_s32(6)};
    const int32x4_t ninth = vreinterpretq_s32_u32(vdupq_n_u32(INVERSE_OF_9));
    int32x4_t half[4 * KLAUS_WINOGRAD_I8_POINTS];
    UNROLLED for (int j = 0; j < KLAUS_WINOGRAD_I8_POINTS; j++) {
        int32x4_t line[KLAUS_WINOGRAD_I8_POINTS];
        UNROLLED for (int i = 0; i < KLAUS_WINOGRAD_I8_POINTS; i++) line[i] =
            vld1q_s32(sums + (i * KLAUS_WINOGRAD_I8_POINTS + j) * step);
        back_6(line, 1, half + j, KLAUS_WINOGRAD_I8_POINTS, tile, &by);
    }
    const corner at = corner_of(to, tile_number);
    const float32x4_t multiplier = vld1q_f32(to->multiplier + channel);
    const int64_t line_step = (int64_t)to->shape->out_cols * to->shape->out_channels;
    UNROLLED for (int i = 0; i < tile; i++) {
        int32x4_t line[4];
        float32x4_t values[4];
        back_6(half + i * KLAUS_WINOGRAD_I8_POINTS, 1, line, 1, tile, &by);
        UNROLLED for (int j = 0; j < tile; j++) values[j] = vfmaq_f32(
            klaus_int8_fresh(to->offset + channel), to_float(vmulq_s32(line[j], ninth), bits[i] + bits[j]), multiplier);
        if (tile == 3)
            values[3] = values[2];
        if (at.rows == tile && at.cols == tile)
            finish_row(to, values, at.at + i * line_step, tile, channel, plain);
        else if (i < at.rows)
            finish_row(to, values, at.at + i * line_step, at.cols, channel, plain);
    }
}

__attribute__((noinline)) static void finish_4(const klaus_winograd_i8_target *to, const int32_t *sums, int64_t step,
                                               int32_t tile, int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 4, true);
}

__attribute__((noinline)) static void finish_3(const klaus_winograd_i8_target *to, const int32_t *sums, int64_t step,
                                               int32_t tile, int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 3, true);
}

__attribute__((noinline)) static void finish_4_rare(const klaus_winograd_i8_target *to, const int32_t *sums,
                                                    int64_t step, int32_t tile, int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 4, false);
}

__attribute__((noinline)) static void finish_3_rare(const klaus_winograd_i8_target *to, const int32_t *sums,
                                                    int64_t step, int32_t tile, int32_t channel) {
    finish_tile(to, sums, step, tile, channel, 3, false);
}

/* Four channels of one tile without transforms, for weights too large for them; `window` is the tile's, of the group.
 */
__attribute__((noinline)) static void finish_directly(const klaus_winograd_i8_target *to,
                                                      const klaus_winograd_i8_panel *p, const int8_t *window,
                                                      int32_t tile_number, int32_t channel) {
    const klaus_shape *s = to->shape;
    const klaus_winograd_i8 *g = to->g;
    const corner at = corner_of(to, tile_number);
    const int32_t taps = g->kernel * g->kernel, zero = s->in_quantization[0].zero;
    const int8_t *weights = p->weights;
    for (int32_t i = 0; i < at.rows; i++)
        for (int32_t j = 0; j < at.cols; j++) {
            int32_t sums[4] = {0, 0, 0, 0};
            for (int32_t tap = 0; tap < taps; tap++) {
                const int64_t row = i * g->stride + tap / g->kernel, col = j * g->stride + tap % g->kernel;
                const int8_t *x = window + (row * g->cols + col) * s->in_channels;
                for (int32_t c = 0; c < g->channels; c++)
                    for (int32_t f = 0; f < 4; f++)
                        sums[f] += (x[c] - zero) * weights[((int64_t)(c / 2) * taps + tap) * 2 * p->width +
                                                           klaus_winograd_i8_place(c % 2, channel + f, p->width)];
            }
            float32x4_t values[4];
            for (int n = 0; n < 4; n++)
                values[n] =
                    klaus_int8_value(vld1q_s32(sums), vld1q_f32(to->multiplier + channel), to->offset + channel);
            finish_row(to, values, at.at + ((int64_t)i * s->out_cols + j) * s->out_channels, 1, channel, false);
        }
}

/* All channels of one tile directly. */
static void finish_tile_directly(const klaus_winograd_i8_target *to, const klaus_winograd_i8_panel *p, int32_t tile,
                                 const int8_t *copy) {
    const klaus_winograd_i8 *g = to->g;
    const int64_t top = (int64_t)(tile / g->tile_cols) * g->tile * g->stride;
    const int64_t left = (int64_t)(tile % g->tile_cols) * g->tile * g->stride;
    for (int32_t c = 0; c < p->count; c += 4)
        finish_directly(to, p, copy + (top * g->cols + left) * to->shape->in_channels, tile, c);
}

void klaus_winograd_i8_finish(const klaus_winograd_i8_target *to, const klaus_winograd_i8_panel *p, const int32_t *sums,
                              int32_t block, int32_t tiles, const int8_t *copy) {
    const int32_t first = block * KLAUS_WINOGRAD_I8_TILES, count = p->count, width = p->width;
    if (p->exact[0] == 0) {
        for (int32_t t = 0; t < tiles; t++)
            finish_tile_directly(to, p, first + t, copy);
        return;
    }
    const bool large = to->g->tile == 4, plain = to->finish->plain && to->addend == NULL;
    void (*const rare)(const klaus_winograd_i8_target *, const int32_t *, int64_t, int32_t, int32_t) =
        large ? finish_4_rare : finish_3_rare;
    void (*const usual)(const klaus_winograd_i8_target *, const int32_t *, int64_t, int32_t, int32_t) = !plain ? rare
                                                                                                        : large
                                                                                                            ? finish_4
                                                                                                            : finish_3;
    const int64_t step = (int64_t)tiles * width;
    for (int32_t t = 0; t < tiles; t++, sums += width) {
        int32_t c = 0;
        for (; c + 4 <= count; c += 4)
            usual(to, sums + c, step, first + t, c);
        if (c < count)
            rare(to, sums + c, step, first + t, c);
    }
}
