/* What surrounds the int8 micro-kernels and needs no dot products itself. */
#include "ops/gemm/gemm_dot.h"
#include "ops/int8.h"
#include "ops/neon.h"

klaus_dot_results klaus_dot_results_of(const klaus_shape *shape) {
    klaus_dot_results results = {.floats = shape->out_dtype == KLAUS_F32, .addend = shape->has_addend};
    if (results.floats)
        return results;
    klaus_int8_limits(shape, &results.low, &results.high);
    results.zero = shape->out_quantization.zero;
    results.bytes = !results.addend && results.zero == -128 && results.low == -128 && results.high == 127;
    results.addend_zero = shape->in_quantization[1].zero;
    results.addend_factor = shape->in_quantization[1].scale / shape->out_quantization.scale;
    return results;
}

/* ---- results of bare sums ---- */

static inline float32x4_t value_of(const klaus_dot_tile *tile, const int32_t *sums, int32_t c) {
    return vfmaq_f32(vld1q_f32(tile->offset + c), vcvtq_f32_s32(vld1q_s32(sums + c)), vld1q_f32(tile->multiplier + c));
}

/* Four channels of all rows as float32. */
static void finish_floats(const klaus_dot_tile *tile, int64_t at, int32_t rows, int32_t c, const int32_t *sums) {
    const klaus_limits limits = klaus_activation_limits(tile->call->shape->activation);
    const float *addend = tile->results->addend ? tile->call->input[1] : NULL;
    float *output = tile->call->output;
    for (at += c; rows > 0; rows--, sums += tile->width, at += tile->call->shape->out_channels) {
        float32x4_t value = value_of(tile, sums, c);
        if (addend != NULL)
            value = vaddq_f32(value, vld1q_f32(addend + at));
        vst1q_f32(output + at, klaus_limit(value, limits));
    }
}

/* Four channels of all rows as int8. */
static void finish_bytes(const klaus_dot_tile *tile, int64_t at, int32_t rows, int32_t c, const int32_t *sums) {
    const klaus_dot_results *results = tile->results;
    const int16x4_t zero = vdup_n_s16((int16_t)results->zero);
    const int16x8_t addend_zero = vdupq_n_s16((int16_t)results->addend_zero);
    const int8x8_t low = vdup_n_s8((int8_t)results->low), high = vdup_n_s8((int8_t)results->high);
    const float32x4_t multiplier = vld1q_f32(tile->multiplier + c), offset = vld1q_f32(tile->offset + c);
    const float32x4_t factor = vdupq_n_f32(results->addend_factor);
    const int8_t *addend = results->addend ? (const int8_t *)tile->call->input[1] + at + c : NULL;
    int8_t *output = (int8_t *)tile->call->output + at + c;
    const int64_t stride = tile->call->shape->out_channels;
    for (sums += c; rows > 0; rows--, sums += tile->width, output += stride) {
        float32x4_t value = vfmaq_f32(offset, vcvtq_f32_s32(vld1q_s32(sums)), multiplier);
        if (addend != NULL) {
            const int8x8_t four = vreinterpret_s8_s32(vld1_dup_s32((const int32_t *)(const void *)addend));
            const int32x4_t q = vmovl_s16(vget_low_s16(vsubq_s16(vmovl_s8(four), addend_zero)));
            value = vfmaq_f32(value, vcvtq_f32_s32(q), factor);
            addend += stride;
        }
        const int16x4_t rounded = vqadd_s16(vqmovn_s32(vcvtnq_s32_f32(value)), zero);
        const int8x8_t q = vmin_s8(vmax_s8(vqmovn_s16(vcombine_s16(rounded, rounded)), low), high);
        vst1_lane_s32((int32_t *)(void *)output, vreinterpret_s32_s8(q), 0);
    }
}

void klaus_dot_finish(const klaus_dot_tile *tile, int64_t at, int32_t rows, const int32_t *sums) {
    const int32_t whole = tile->outputs / 4 * 4;
    for (int32_t c = 0; c < whole; c += 4) {
        if (tile->results->floats)
            finish_floats(tile, at, rows, c, sums);
        else
            finish_bytes(tile, at, rows, c, sums);
    }
    for (int32_t r = 0; whole < tile->outputs && r < rows; r++)
        for (int32_t c = whole; c < tile->outputs; c++)
            klaus_int8_finish(tile->call, sums[r * tile->width + c], tile->multiplier[c], tile->offset[c],
                              at + r * tile->call->shape->out_channels + c);
}
