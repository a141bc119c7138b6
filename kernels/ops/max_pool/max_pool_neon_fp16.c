/* Max pooling of halves, eight channels at a time, 16 in the usual case; the last eight overlap those before. */
#include "ops/neon_fp16.h"
#include "ops/pool.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return s->op == KLAUS_OP_MAX_POOL && klaus_shape_is(s, KLAUS_F16) && klaus_pool_is_sound(s) && s->in_channels >= 8;
}

static float16x8_t largest(const klaus_shape *s, const klaus_window *w, const uint16_t *input) {
    float16x8_t value = klaus_zero_8h();
    bool begun = false;
    for (int64_t y = w->top; y < w->bottom; y++)
        for (int64_t x = w->left; x < w->right; x++) {
            const float16x8_t next = klaus_load_8h(input + (y * s->in_cols + x) * s->in_channels);
            value = begun ? vmaxq_f16(value, next) : next;
            begun = true;
        }
    return value;
}

/* Two vectors of a column of three rows. */
typedef struct pair {
    float16x8_t at[2];
} pair;

static inline pair column(const uint16_t *first, const uint16_t *second, const uint16_t *third) {
    pair most;
    KLAUS_UNROLL_ALL for (int v = 0; v < 2; v++) most.at[v] =
        vmaxq_f16(vmaxq_f16(klaus_load_8h(first + 8 * v), klaus_load_8h(second + 8 * v)), klaus_load_8h(third + 8 * v));
    return most;
}

/* `outputs` windows of 3x3 in a row, stride 2, wholly inside; 16 channels. Neighbours share a column. */
static void threes(const uint16_t *input, int64_t row, int64_t channels, uint16_t *output, int64_t outputs,
                   klaus_limits_8h limits) {
    const uint16_t *first = input, *second = first + row, *third = second + row;
    pair left = column(first, second, third);
    for (; outputs > 0; outputs--, output += channels) {
        first += channels, second += channels, third += channels;
        const pair middle = column(first, second, third);
        first += channels, second += channels, third += channels;
        const pair right = column(first, second, third);
        KLAUS_UNROLL_ALL for (int v = 0; v < 2; v++) klaus_store_8h(
            output + 8 * v, klaus_limit_8h(vmaxq_f16(vmaxq_f16(left.at[v], middle.at[v]), right.at[v]), limits));
        left = right;
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_limits_8h limits = klaus_activation_limits_8h(s->activation);
    const uint16_t *input = call->input[0];
    const int64_t channels = s->in_channels, row = s->in_cols * channels;
    const bool usual = s->kernel_rows == 3 && s->kernel_cols == 3 && s->stride_cols == 2 && s->pad_left == 0 &&
                       channels % 16 == 0 && (int64_t)(s->out_cols - 1) * 2 + 3 <= s->in_cols;
    int64_t begin, end;
    klaus_share(s->out_rows, 1, part, parts, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        uint16_t *output = (uint16_t *)call->output + i * s->out_cols * channels;
        const int64_t top = i * s->stride_rows - s->pad_top;
        if (usual && top >= 0 && top + 3 <= s->in_rows) {
            for (int64_t c = 0; c < channels; c += 16)
                threes(input + top * row + c, row, channels, output + c, s->out_cols, limits);
            continue;
        }
        for (int64_t j = 0; j < s->out_cols; j++, output += channels) {
            const klaus_window w = klaus_pool_window(s, i, j);
            for (int64_t c = 0; c < channels; c += 8) {
                const int64_t first = c + 8 <= channels ? c : channels - 8;
                klaus_store_8h(output + first, klaus_limit_8h(largest(s, &w, input + first), limits));
            }
        }
    }
}

const klaus_variant klaus_max_pool_f16_neon_fp16 = {
    .name = "klaus_max_pool_f16_neon_fp16",
    .op = KLAUS_OP_MAX_POOL,
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
