/* Average over all cells, 16 channels at a time; the last four channels overlap those before. */
#include "ops/neon.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_GLOBAL_POOL && klaus_shape_is_f32(s) && s->batch <= 1 && s->in_rows > 0 &&
           s->in_cols > 0 && s->in_channels >= 4 && s->out_channels == s->in_channels;
}

/* `vectors` is a constant where it is inlined. */
__attribute__((always_inline)) static inline void average(const klaus_call *call, int64_t first, const int vectors) {
    const klaus_shape *s = call->shape;
    const int64_t cells = (int64_t)s->in_rows * s->in_cols;
    const klaus_limits limits = klaus_activation_limits(s->activation);
    const float *cell = (const float *)call->input[0] + first;
    float32x4_t sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = vdupq_n_f32(0);
    for (int64_t i = 0; i < cells; i++, cell += s->in_channels)
        for (int v = 0; v < vectors; v++)
            sum[v] = vaddq_f32(sum[v], vld1q_f32(cell + 4 * v));
    for (int v = 0; v < vectors; v++)
        vst1q_f32((float *)call->output + first + 4 * v, klaus_limit(vmulq_n_f32(sum[v], 1.0f / (float)cells), limits));
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(s->in_channels, 16, part, parts, &begin, &end);
    int64_t c = begin;
    for (; c + 16 <= end; c += 16)
        average(call, c, 4);
    for (; c < end; c += 4) /* only the last part has an edge; another may write the same numbers beside it */
        average(call, c + 4 <= s->in_channels ? c : s->in_channels - 4, 1);
}

const klaus_variant klaus_global_pool_f32_neon = {
    .name = "klaus_global_pool_f32_neon",
    .op = KLAUS_OP_GLOBAL_POOL,
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
