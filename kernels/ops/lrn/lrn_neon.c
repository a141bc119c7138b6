/* Local response normalisation for the powers 0.75 and 0.5, by inverse square roots instead of powf.
 *
 * The squares of a group are written between zeros, so that a window is a row of unaligned loads without edges.
 * The base is limited to 1e37, where the result is lost in rounding for any input that can have made it. */
#include <string.h>

#include "ops/lrn/lrn.h"
#include "ops/neon.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return klaus_lrn_is_sound(s) && (s->beta == 0.75f || s->beta == 0.5f) && s->kappa >= 1e-3f && s->alpha >= 0;
}

/* A group's squares, half a window of zeros on both sides, and room for the last vector's surplus. */
static size_t part_floats(const klaus_shape *s) {
    const size_t group = (size_t)(s->in_channels / s->groups), half = (size_t)(s->size / 2);
    return (group + 2 * half + 4 + 15) / 16 * 16;
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)part_floats(shape) * sizeof(float) * (uint64_t)parts;
}

/* base^-beta */
static inline float32x4_t power(float32x4_t base, const bool three_quarters) {
    base = vminq_f32(base, vdupq_n_f32(1e37f));
    const float32x4_t root = klaus_inverse_sqrt(base);
    if (!three_quarters)
        return root;
    /* base^-1/4 is the inverse root of base^1/2 = base * base^-1/2 */
    return vmulq_f32(root, klaus_inverse_sqrt(vmulq_f32(base, root)));
}

/* One group of one cell. */
__attribute__((always_inline)) static inline void group_of(const klaus_shape *s, const float *x, float *y,
                                                           float *squares, const int32_t half,
                                                           const bool three_quarters) {
    const int32_t group = s->in_channels / s->groups;
    const klaus_limits limits = klaus_activation_limits(s->activation);
    const float32x4_t kappa = vdupq_n_f32(s->kappa), alpha = vdupq_n_f32(s->alpha);
    int32_t c = 0;
    for (; c + 4 <= group; c += 4) {
        const float32x4_t value = vld1q_f32(x + c);
        vst1q_f32(squares + half + c, vmulq_f32(value, value));
    }
    for (; c < group; c++)
        squares[half + c] = x[c] * x[c];
    for (c = 0; c < group; c += 4) {
        float32x4_t sum = vld1q_f32(squares + c);
        for (int32_t i = 1; i <= 2 * half; i++)
            sum = vaddq_f32(sum, vld1q_f32(squares + c + i));
        const float32x4_t factor = power(vfmaq_f32(kappa, alpha, sum), three_quarters);
        if (c + 4 <= group) {
            vst1q_f32(y + c, klaus_limit(vmulq_f32(vld1q_f32(x + c), factor), limits));
        } else {
            float edge[4] = {0, 0, 0, 0};
            memcpy(edge, x + c, (size_t)(group - c) * sizeof(float));
            vst1q_f32(edge, klaus_limit(vmulq_f32(vld1q_f32(edge), factor), limits));
            memcpy(y + c, edge, (size_t)(group - c) * sizeof(float));
        }
    }
}

/* Four channels with windows of five, from their own squares and those of the four before and behind. */
__attribute__((always_inline)) static inline float32x4_t normalised(float32x4_t value, float32x4_t before,
                                                                    float32x4_t own, float32x4_t behind,
                                                                    float32x4_t kappa, float32x4_t alpha) {
    const float32x4_t left = vaddq_f32(vextq_f32(before, own, 2), vextq_f32(before, own, 3));
    const float32x4_t right = vaddq_f32(vextq_f32(own, behind, 1), vextq_f32(own, behind, 2));
    const float32x4_t sum = vaddq_f32(vaddq_f32(left, own), right);
    return vmulq_f32(value, power(vfmaq_f32(kappa, alpha, sum), true));
}

/* The common case, everything in registers: windows of five, power 3/4, no activation, channels in fours. */
__attribute__((noinline)) static void groups_of_fives(const klaus_shape *s, const float *x, float *y, int64_t groups) {
    const int32_t group = s->in_channels / s->groups;
    const float32x4_t kappa = vdupq_n_f32(s->kappa), alpha = vdupq_n_f32(s->alpha), zero = vdupq_n_f32(0);
    for (; groups > 0; groups--) {
        float32x4_t value = vld1q_f32(x), before = zero, own = vmulq_f32(value, value);
        for (int32_t c = 4; c < group; c += 4) {
            x += 4;
            const float32x4_t next = vld1q_f32(x), behind = vmulq_f32(next, next);
            vst1q_f32(y, normalised(value, before, own, behind, kappa, alpha));
            y += 4;
            before = own;
            own = behind;
            value = next;
        }
        vst1q_f32(y, normalised(value, before, own, zero, kappa, alpha));
        x += 4;
        y += 4;
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const int32_t group = s->in_channels / s->groups, half = s->size / 2;
    float *squares = (float *)call->scratch + part_floats(s) * (size_t)part;
    memset(squares, 0, part_floats(s) * sizeof(float));
    int64_t begin, end;
    klaus_share((int64_t)s->in_rows * s->in_cols, 1, part, parts, &begin, &end);
    if (s->beta == 0.75f && half == 2 && group % 4 == 0 && s->activation == KLAUS_LINEAR) {
        groups_of_fives(s, (const float *)call->input[0] + begin * s->in_channels,
                        (float *)call->output + begin * s->in_channels, (end - begin) * s->groups);
        return;
    }
    for (int64_t at = begin * s->in_channels; at < end * s->in_channels; at += group) {
        const float *x = (const float *)call->input[0] + at;
        float *y = (float *)call->output + at;
        group_of(s, x, y, squares, half, s->beta == 0.75f);
    }
}

const klaus_variant klaus_lrn_f32_neon = {
    .name = "klaus_lrn_f32_neon",
    .op = KLAUS_OP_LRN,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
