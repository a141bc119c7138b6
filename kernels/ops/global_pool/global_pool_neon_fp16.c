/* Average of halves over all cells, summed in float32, 16 channels at a time; the last eight overlap those before. */
#include "ops/neon_fp16.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_GLOBAL_POOL && klaus_shape_is(s, KLAUS_F16) && s->batch <= 1 && s->in_rows > 0 &&
           s->in_cols > 0 && s->in_channels >= 8 && s->out_channels == s->in_channels;
}

/* `vectors` is a constant where it is inlined. */
__attribute__((always_inline)) static inline void average(const klaus_call *call, int64_t first, const int vectors) {
    const klaus_shape *s = call->shape;
    const int64_t cells = (int64_t)s->in_rows * s->in_cols;
    const klaus_limits_8h limits = klaus_activation_limits_8h(s->activation);
    const uint16_t *cell = (const uint16_t *)call->input[0] + first;
    float32x4_t sum[4];
    for (int v = 0; v < 2 * vectors; v++)
        sum[v] = vdupq_n_f32(0);
    for (int64_t i = 0; i < cells; i++, cell += s->in_channels)
        for (int v = 0; v < vectors; v++) {
            const float16x8_t value = klaus_load_8h(cell + 8 * v);
            sum[2 * v] = vaddq_f32(sum[2 * v], klaus_low_4s(value));
            sum[2 * v + 1] = vaddq_f32(sum[2 * v + 1], klaus_high_4s(value));
        }
    const float share = 1.0f / (float)cells;
    for (int v = 0; v < vectors; v++) {
        const float16x8_t mean = klaus_narrow_8h(vmulq_n_f32(sum[2 * v], share), vmulq_n_f32(sum[2 * v + 1], share));
        klaus_store_8h((uint16_t *)call->output + first + 8 * v, klaus_limit_8h(mean, limits));
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(s->in_channels, 16, part, parts, &begin, &end);
    int64_t c = begin;
    for (; c + 16 <= end; c += 16)
        average(call, c, 2);
    for (; c < end; c += 8) /* only the last part has an edge; another may write the same numbers beside it */
        average(call, c + 8 <= s->in_channels ? c : s->in_channels - 8, 1);
}

const klaus_variant klaus_global_pool_f16_neon_fp16 = {
    .name = "klaus_global_pool_f16_neon_fp16",
    .op = KLAUS_OP_GLOBAL_POOL,
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
