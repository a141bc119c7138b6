/* What surrounds the int8 micro-kernels and needs no dot products itself. */
#include "ops/gemm/gemm_dot.h"
#include "ops/int8.h"
#include "ops/neon.h"

klaus_dot_results klaus_dot_results_of(const klaus_shape *shape) {
    klaus_dot_results results = {.floats = shape->out_dtype == KLAUS_F32, .addend = shape->has_addend};
    results.plain = !results.floats && !results.addend;
    if (results.floats)
        return results;
    klaus_int8_limits(shape, &results.low, &results.high);
    results.limited = results.low > -128 || results.high < 127;
    results.zero = shape->out_quantization.zero;
    results.addend_zero = shape->in_quantization[1].zero;
    results.addend_factor = shape->in_quantization[1].scale / shape->out_quantization.scale;
    return results;
}

void klaus_dot_interleave(const int8_t *const rows[KLAUS_DOT_BLOCK], int64_t bytes, int8_t *block) {
    const int8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
    int32_t *to = (int32_t *)(void *)block;
    int64_t at = 0;
    for (; at + 16 <= bytes; at += 16) {
        const int32x4x4_t four = {{vreinterpretq_s32_s8(vld1q_s8(a + at)), vreinterpretq_s32_s8(vld1q_s8(b + at)),
                                   vreinterpretq_s32_s8(vld1q_s8(c + at)), vreinterpretq_s32_s8(vld1q_s8(d + at))}};
        vst4q_s32(to + at, four);
    }
    if (at < bytes) { /* the last 16 once more, where they end */
        at = bytes - 16;
        const int32x4x4_t four = {{vreinterpretq_s32_s8(vld1q_s8(a + at)), vreinterpretq_s32_s8(vld1q_s8(b + at)),
                                   vreinterpretq_s32_s8(vld1q_s8(c + at)), vreinterpretq_s32_s8(vld1q_s8(d + at))}};
        vst4q_s32(to + at, four);
    }
}

static float32x4_t value_of(const klaus_dot_tile *tile, const int32_t *sums, int32_t c) {
    return vfmaq_f32(vld1q_f32(tile->offset + c), vcvtq_f32_s32(vld1q_s32(sums + c)), vld1q_f32(tile->multiplier + c));
}

/* Four results of float32. */
static void finish_floats(const klaus_dot_tile *tile, float32x4_t value, int64_t at) {
    const klaus_limits limits = klaus_activation_limits(tile->call->shape->activation);
    if (tile->results->addend)
        value = vaddq_f32(value, vld1q_f32((const float *)tile->call->input[1] + at));
    vst1q_f32((float *)tile->call->output + at, klaus_limit(value, limits));
}

/* Four results of int8. */
static void finish_bytes(const klaus_dot_tile *tile, float32x4_t value, int64_t at) {
    const klaus_dot_results *results = tile->results;
    if (results->addend) {
        const int32_t *from = (const int32_t *)(const void *)((const int8_t *)tile->call->input[1] + at);
        const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vld1_dup_s32(from)));
        const int32x4_t q = vmovl_s16(vget_low_s16(vsubq_s16(wide, vdupq_n_s16((int16_t)results->addend_zero))));
        value = vfmaq_n_f32(value, vcvtq_f32_s32(q), results->addend_factor);
    }
    const int16x4_t rounded = vqadd_s16(vqmovn_s32(vcvtnq_s32_f32(value)), vdup_n_s16((int16_t)results->zero));
    int8x8_t q = vqmovn_s16(vcombine_s16(rounded, rounded));
    q = vmin_s8(vmax_s8(q, vdup_n_s8((int8_t)results->low)), vdup_n_s8((int8_t)results->high));
    vst1_lane_s32((int32_t *)(void *)((int8_t *)tile->call->output + at), vreinterpret_s32_s8(q), 0);
}

void klaus_dot_finish(const klaus_dot_tile *tile, const int32_t *sums) {
    const int32_t whole = tile->outputs / 4 * 4;
    int64_t at = tile->at;
    for (int32_t r = 0; r < tile->rows; r++, sums += tile->width, at += tile->call->shape->out_channels) {
        for (int32_t c = 0; c < whole; c += 4) {
            if (tile->results->floats)
                finish_floats(tile, value_of(tile, sums, c), at + c);
            else
                finish_bytes(tile, value_of(tile, sums, c), at + c);
        }
        for (int32_t c = whole; c < tile->outputs; c++)
            klaus_int8_finish(tile->call, sums[c], tile->multiplier[c], tile->offset[c], at + c);
    }
}
