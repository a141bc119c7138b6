/* Average pooling of halves, summed in float32, eight channels at a time; the last eight overlap those before. */
#include "ops/neon_fp16.h"
#include "ops/pool.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_AVERAGE_POOL && klaus_shape_is(s, KLAUS_F16) && klaus_pool_is_sound(s) &&
           s->in_channels >= 8;
}

static float16x8_t average(const klaus_shape *s, const klaus_window *w, const uint16_t *input) {
    float32x4_t low = vdupq_n_f32(0), high = low;
    for (int64_t y = w->top; y < w->bottom; y++)
        for (int64_t x = w->left; x < w->right; x++) {
            const float16x8_t value = klaus_load_8h(input + (y * s->in_cols + x) * s->in_channels);
            low = vaddq_f32(low, klaus_low_4s(value));
            high = vaddq_f32(high, klaus_high_4s(value));
        }
    const bool empty = w->bottom <= w->top || w->right <= w->left;
    const float share = empty ? 1 : 1 / (float)((w->bottom - w->top) * (w->right - w->left));
    return klaus_narrow_8h(vmulq_n_f32(low, share), vmulq_n_f32(high, share));
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_limits_8h limits = klaus_activation_limits_8h(s->activation);
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < s->out_cols; j++) {
            const klaus_window w = klaus_pool_window(s, i, j);
            uint16_t *output = (uint16_t *)call->output + (i * s->out_cols + j) * s->in_channels;
            for (int32_t c = 0; c < s->in_channels; c += 8) {
                const int32_t first = c + 8 <= s->in_channels ? c : s->in_channels - 8;
                const float16x8_t mean = average(s, &w, (const uint16_t *)call->input[0] + first);
                klaus_store_8h(output + first, klaus_limit_8h(mean, limits));
            }
        }
}

const klaus_variant klaus_average_pool_f16_neon_fp16 = {
    .name = "klaus_average_pool_f16_neon_fp16",
    .op = KLAUS_OP_AVERAGE_POOL,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
