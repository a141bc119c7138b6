/* Local response normalisation of int8 for the power 0.75 and windows of five: integers around one root in float32.
 *
 * With d = q - zero, S = the window's sum of d^2 (exact) and b = S + kappa / (alpha * in.scale^2), a result is
 *     d * gain * b^-0.75,   gain = in.scale * (alpha * in.scale^2)^-0.75 / out.scale
 * b^-0.25 begins as an estimate z to eight bits; with t = b * z^4, one step of Newton's method makes z^3 the power:
 * z^3 * (7 - 3 t) / 4, to 4e-4. The factor becomes 16 bits of fixed point, and one rounding product ends it. */
#include <math.h>

#include "ops/lrn/lrn.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define LANES 8
#define MOST_SHIFT 7 /* 255 << 7 fits 16 bits */

/* What the factor is at most, where all inputs are zero. */
static float most_factor(const klaus_shape *s) {
    return s->in_quantization[0].scale / s->out_quantization.scale / (sqrtf(s->kappa) * sqrtf(sqrtf(s->kappa)));
}

/* How far d is shifted so that the factor fits 15 bits: factor * 2^(15 - shift) < 2^15. */
static int32_t shift_of(float factor) {
    int32_t shift = 0;
    while (shift <= MOST_SHIFT && factor >= 0.98f * (float)(1 << shift))
        shift++;
    return shift;
}

static bool can(const klaus_shape *s) {
    if (!klaus_lrn_has_geometry(s) || !klaus_shape_is(s, KLAUS_I8) || s->size / 2 != 2 || s->beta != 0.75f ||
        s->activation != KLAUS_LINEAR || s->in_channels / s->groups % LANES != 0)
        return false;
    const float scale = s->in_quantization[0].scale, square = s->alpha * scale * scale;
    return s->kappa >= 1e-3f && s->kappa < 1e6f && square > 1e-20f && square < 1e6f &&
           shift_of(most_factor(s)) <= MOST_SHIFT;
}

typedef struct constants {
    int8x8_t in_zero;
    int16x8_t out_zero, shift;
    float32x4_t base, gain; /* gain * 3/4 * 2^(15 - shift) */
} constants;

/* b^-0.75 times the gain, of four sums. */
static inline int32x4_t factor_of(uint32x4_t sum, const constants *k) {
    const float32x4_t b = vaddq_f32(vcvtq_f32_u32(sum), k->base);
    const float32x4_t z = vrsqrteq_f32(vmulq_f32(b, vrsqrteq_f32(b)));
    const float32x4_t z2 = vmulq_f32(z, z);
    const float32x4_t t = vmulq_f32(vmulq_f32(b, z2), z2);
    const float32x4_t power = vmulq_f32(vmulq_f32(z2, z), vsubq_f32(vdupq_n_f32(7.0f / 3), t));
    return vcvtnq_s32_f32(vmulq_f32(power, k->gain));
}

static inline int16x8_t difference(const int8_t *x, const constants *k) {
    return vsubl_s8(vld1_s8(x), k->in_zero);
}

static inline uint16x8_t square(int16x8_t d) {
    return vreinterpretq_u16_s16(vmulq_s16(d, d));
}

/* Eight results. `pairs`: the last four sums of two neighbours that the channels before gave; those of these follow. */
static inline int8x8_t normalised(int16x8_t d, uint16x8_t own, uint16x8_t behind, uint32x4_t *pairs,
                                  const constants *k) {
    const uint16x8_t one = vextq_u16(own, behind, 1), two = vextq_u16(own, behind, 2);
    const uint32x4_t low = vaddl_u16(vget_low_u16(own), vget_low_u16(one)), high = vaddl_high_u16(own, one);
    const uint32x4_t first = vaddw_u16(vaddq_u32(vextq_u32(*pairs, low, 2), low), vget_low_u16(two));
    const uint32x4_t second = vaddw_high_u16(vaddq_u32(vextq_u32(low, high, 2), high), two);
    *pairs = high;
    const int16x8_t factor = vqmovn_high_s32(vqmovn_s32(factor_of(first, k)), factor_of(second, k));
    return vqmovn_s16(vqaddq_s16(vqrdmulhq_s16(vshlq_s16(d, k->shift), factor), k->out_zero));
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const float scale = s->in_quantization[0].scale, alpha = s->alpha * scale * scale;
    const int32_t shift = shift_of(most_factor(s)), group = s->in_channels / s->groups;
    const float gain = scale / (sqrtf(alpha) * sqrtf(sqrtf(alpha))) / s->out_quantization.scale;
    const constants k = {.in_zero = vdup_n_s8((int8_t)s->in_quantization[0].zero),
                         .out_zero = vdupq_n_s16((int16_t)s->out_quantization.zero),
                         .shift = vdupq_n_s16((int16_t)shift),
                         .base = vdupq_n_f32(s->kappa / alpha),
                         .gain = vdupq_n_f32(gain * 0.75f * (float)(1 << (15 - shift)))};
    const uint16x8_t zeros = vdupq_n_u16(0);
    int64_t begin, end;
    klaus_share((int64_t)s->in_rows * s->in_cols, 1, part, parts, &begin, &end);
    const int8_t *x = (const int8_t *)call->input[0] + begin * s->in_channels;
    int8_t *y = (int8_t *)call->output + begin * s->in_channels;
    for (int64_t n = (end - begin) * s->groups; n > 0; n--) {
        int16x8_t d = difference(x, &k);
        uint16x8_t own = square(d);
        /* The pair of the channel before the first one, which is zero, and the first. */
        uint32x4_t pairs = vextq_u32(vdupq_n_u32(0), vmovl_u16(vget_low_u16(own)), 1);
        for (int32_t c = LANES; c < group; c += LANES) {
            x += LANES;
            const int16x8_t next = difference(x, &k);
            const uint16x8_t behind = square(next);
            vst1_s8(y, normalised(d, own, behind, &pairs, &k));
            y += LANES;
            d = next;
            own = behind;
        }
        vst1_s8(y, normalised(d, own, zeros, &pairs, &k));
        x += LANES;
        y += LANES;
    }
}

const klaus_variant klaus_lrn_i8_neon = {
    .name = "klaus_lrn_i8_neon",
    .op = KLAUS_OP_LRN,
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
