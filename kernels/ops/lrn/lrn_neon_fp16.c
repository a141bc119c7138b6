/* Local response normalisation of halves, for the powers 0.75 and 0.5: squares, their sums and powers in float32, as
 * halves overflow from 256 on. An inverse root is the estimate and one Newton step, 2^-16, which halves do not see. */
#include <string.h>

#include "ops/lrn/lrn.h"
#include "ops/neon_fp16.h"
#include "ops/shape.h"

static bool can(const klaus_shape *s) {
    return klaus_shape_is(s, KLAUS_F16) && klaus_lrn_has_geometry(s) && (s->beta == 0.75f || s->beta == 0.5f) &&
           s->kappa >= 1e-3f && s->alpha >= 0 && s->alpha <= 1e20f;
}

/* A group's squares, half a window of zeros on both sides, and room for the last vector's surplus. */
static size_t part_floats(const klaus_shape *s) {
    const size_t group = (size_t)(s->in_channels / s->groups), half = (size_t)(s->size / 2);
    return (group + 2 * half + 8 + 15) / 16 * 16;
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)part_floats(shape) * sizeof(float) * (uint64_t)parts;
}

static inline float32x4_t inverse_root(float32x4_t x) {
    const float32x4_t estimate = vrsqrteq_f32(x);
    return vmulq_f32(estimate, vrsqrtsq_f32(vmulq_f32(x, estimate), estimate));
}

/* base^-beta */
static inline float32x4_t power(float32x4_t base, const bool three_quarters) {
    const float32x4_t root = inverse_root(base);
    if (!three_quarters)
        return root;
    /* base^-1/4 is the inverse root of base^1/2 = base * base^-1/2 */
    return vmulq_f32(root, inverse_root(vmulq_f32(base, root)));
}

/* One group of one cell. */
static void group_of(const klaus_shape *s, const uint16_t *x, uint16_t *y, float *squares) {
    const int32_t group = s->in_channels / s->groups, half = s->size / 2;
    const klaus_limits_8h limits = klaus_activation_limits_8h(s->activation);
    const float32x4_t kappa = vdupq_n_f32(s->kappa), alpha = vdupq_n_f32(s->alpha);
    uint16_t edge[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int32_t c = 0; c < group; c += 8) {
        const size_t count = group - c < 8 ? (size_t)(group - c) : 8;
        float own[8];
        memcpy(edge, x + c, count * 2);
        const float16x8_t value = klaus_load_8h(edge);
        vst1q_f32(own, vmulq_f32(klaus_low_4s(value), klaus_low_4s(value)));
        vst1q_f32(own + 4, vmulq_f32(klaus_high_4s(value), klaus_high_4s(value)));
        memcpy(squares + half + c, own, count * sizeof(float));
    }
    for (int32_t c = 0; c < group; c += 8) {
        const size_t count = group - c < 8 ? (size_t)(group - c) : 8;
        float32x4_t low = vld1q_f32(squares + c), high = vld1q_f32(squares + c + 4);
        for (int32_t i = 1; i <= 2 * half; i++) {
            low = vaddq_f32(low, vld1q_f32(squares + c + i));
            high = vaddq_f32(high, vld1q_f32(squares + c + i + 4));
        }
        low = power(vfmaq_f32(kappa, alpha, low), s->beta == 0.75f);
        high = power(vfmaq_f32(kappa, alpha, high), s->beta == 0.75f);
        memcpy(edge, x + c, count * 2);
        const float16x8_t value = klaus_load_8h(edge);
        low = vmulq_f32(klaus_low_4s(value), low);
        high = vmulq_f32(klaus_high_4s(value), high);
        klaus_store_8h(edge, klaus_limit_8h(klaus_narrow_8h(low, high), limits));
        memcpy(y + c, edge, count * 2);
    }
}

/* Sums of five neighbours' squares. */
static inline float32x4_t fives(float32x4_t own, float32x4_t behind, float32x4_t pairs_before, float32x4_t pairs) {
    /* pairs[i] = own[i] + own[i + 1]: those of i - 2 and of i, and own[i + 2] */
    return vaddq_f32(vaddq_f32(vextq_f32(pairs_before, pairs, 2), pairs), vextq_f32(own, behind, 2));
}

static inline float32x4_t pairs_of(float32x4_t own, float32x4_t behind) {
    return vaddq_f32(own, vextq_f32(own, behind, 1));
}

/* The common case, everything in registers: windows of five, power 3/4, no activation, channels in eights. */
__attribute__((noinline)) static void groups_of_fives(const klaus_shape *s, const uint16_t *x, uint16_t *y,
                                                      int64_t groups) {
    const int32_t group = s->in_channels / s->groups;
    const float32x4_t kappa = vdupq_n_f32(s->kappa), alpha = vdupq_n_f32(s->alpha), zero = vdupq_n_f32(0);
    for (; groups > 0; groups--) {
        float16x8_t value = klaus_load_8h(x);
        float32x4_t low = klaus_low_4s(value), high = klaus_high_4s(value);
        low = vmulq_f32(low, low);
        high = vmulq_f32(high, high);
        /* pairs before the first: of two zeros, and of a zero and the first */
        float32x4_t pairs_before = vextq_f32(zero, low, 1);
        for (int32_t c = 8; c <= group; c += 8) {
            float16x8_t next = value;
            float32x4_t next_low = zero, next_high = zero;
            x += 8;
            if (c < group) {
                next = klaus_load_8h(x);
                next_low = klaus_low_4s(next);
                next_high = klaus_high_4s(next);
                next_low = vmulq_f32(next_low, next_low);
                next_high = vmulq_f32(next_high, next_high);
            }
            const float32x4_t low_pairs = pairs_of(low, high), high_pairs = pairs_of(high, next_low);
            const float32x4_t first = fives(low, high, pairs_before, low_pairs);
            const float32x4_t second = fives(high, next_low, low_pairs, high_pairs);
            const float16x8_t factor = klaus_narrow_8h(power(vfmaq_f32(kappa, alpha, first), true),
                                                       power(vfmaq_f32(kappa, alpha, second), true));
            klaus_store_8h(y, vmulq_f16(value, factor));
            y += 8;
            pairs_before = high_pairs;
            value = next;
            low = next_low;
            high = next_high;
        }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const int32_t group = s->in_channels / s->groups;
    float *squares = (float *)call->scratch + part_floats(s) * (size_t)part;
    memset(squares, 0, part_floats(s) * sizeof(float));
    int64_t begin, end;
    klaus_share((int64_t)s->in_rows * s->in_cols, 1, part, parts, &begin, &end);
    const uint16_t *x = (const uint16_t *)call->input[0] + begin * s->in_channels;
    uint16_t *y = (uint16_t *)call->output + begin * s->in_channels;
    if (s->beta == 0.75f && s->size / 2 == 2 && group % 8 == 0 && s->activation == KLAUS_LINEAR) {
        groups_of_fives(s, x, y, (end - begin) * s->groups);
        return;
    }
    for (int64_t at = 0; at < (end - begin) * s->in_channels; at += group)
        group_of(s, x + at, y + at, squares);
}

const klaus_variant klaus_lrn_f16_neon_fp16 = {
    .name = "klaus_lrn_f16_neon_fp16",
    .op = KLAUS_OP_LRN,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
