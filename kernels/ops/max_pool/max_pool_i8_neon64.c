/* int8 maximum: comparing needs no scale, so input and output share one. */
#include "ops/int8_neon64.h"
#include "ops/pool.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_MAX_POOL && klaus_shape_is(s, KLAUS_I8) && klaus_pool_is_sound(s) && s->in_channels >= 8 &&
           s->in_quantization[0].scale == s->out_quantization.scale &&
           s->in_quantization[0].zero == s->out_quantization.zero;
}

/* What one window gives, 16 * `vectors` channels. */
__attribute__((always_inline)) static inline void cells_16(const klaus_shape *s, const klaus_window *w,
                                                           const int8_t *input, int8_t *output, int8x16_t low,
                                                           int8x16_t high, const int vectors) {
    const int64_t row_step = (int64_t)s->in_cols * s->in_channels;
    const int8_t *first = input + w->top * row_step + w->left * s->in_channels;
    int8x16_t best[4];
    for (int v = 0; v < vectors; v++)
        best[v] = vld1q_s8(first + 16 * v);
    for (int64_t y = w->top; y < w->bottom; y++, first += row_step) {
        const int8_t *cell = first;
        for (int64_t x = w->left; x < w->right; x++, cell += s->in_channels)
            for (int v = 0; v < vectors; v++)
                best[v] = vmaxq_s8(best[v], vld1q_s8(cell + 16 * v));
    }
    for (int v = 0; v < vectors; v++)
        vst1q_s8(output + 16 * v, vminq_s8(vmaxq_s8(best[v], low), high));
}

static void cells_8(const klaus_shape *s, const klaus_window *w, const int8_t *input, int8_t *output, int8x8_t low,
                    int8x8_t high) {
    int8x8_t best = vdup_n_s8(-128);
    for (int64_t y = w->top; y < w->bottom; y++)
        for (int64_t x = w->left; x < w->right; x++)
            best = vmax_s8(best, vld1_s8(input + (y * s->in_cols + x) * s->in_channels));
    vst1_s8(output, vmin_s8(vmax_s8(best, low), high));
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int32_t least, most;
    klaus_int8_limits(s, &least, &most);
    const int8x16_t low = vdupq_n_s8((int8_t)least), high = vdupq_n_s8((int8_t)most);
    const int8_t *input = call->input[0];
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    int8_t *output = (int8_t *)call->output + begin * s->out_cols * s->in_channels;
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < s->out_cols; j++, output += s->in_channels) {
            const klaus_window w = klaus_pool_window(s, i, j);
            if (w.bottom <= w.top || w.right <= w.left) {
                const int32_t zero = s->out_quantization.zero > most ? most : s->out_quantization.zero;
                for (int32_t c = 0; c < s->in_channels; c++)
                    output[c] = (int8_t)zero;
                continue;
            }
            int32_t c = 0;
            for (; c + 64 <= s->in_channels; c += 64)
                cells_16(s, &w, input + c, output + c, low, high, 4);
            for (; c + 32 <= s->in_channels; c += 32)
                cells_16(s, &w, input + c, output + c, low, high, 2);
            for (; c + 16 <= s->in_channels; c += 16)
                cells_16(s, &w, input + c, output + c, low, high, 1);
            for (; c < s->in_channels; c += 8) {
                const int32_t first = c + 8 <= s->in_channels ? c : s->in_channels - 8;
                cells_8(s, &w, input + first, output + first, vget_low_s8(low), vget_low_s8(high));
            }
        }
}

const klaus_variant klaus_max_pool_i8_neon = {
    .name = "klaus_max_pool_i8_neon",
    .op = KLAUS_OP_MAX_POOL,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
