/* Full connect for one row of input: weights go from their packed form through registers into the sums, eight inputs a
 * step. The packed layout is that of full_connect_gemm.h. `kind` and `vectors` (width / 4) are constants where they are
 * inlined. */
#include "ops/full_connect/full_connect.h"
#include "ops/full_connect/full_connect_gemm.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define MOST_VECTORS 3
#define UNROLLED _Pragma("clang loop unroll(full)")

enum kind { FLOATS, HALVES, Q4 };

/* Two sums an output, so that a multiply-add need not wait for the one before. */
typedef struct sums_of {
    float32x4_t at[2][MOST_VECTORS];
} sums_of;

/* Vector number `q` of a step: input q / vectors, outputs 4 * (q % vectors) .. + 3. */
__attribute__((always_inline)) static inline void add(sums_of *sums, float32x4_t weights, const float32x4_t *inputs,
                                                      const int q, const int vectors) {
    const int input = q / vectors, v = q % vectors;
    float32x4_t *to = &sums->at[input % 2][v];
    const float32x4_t x = inputs[input / 4];
    *to = input % 4 == 0   ? klaus_fma_lane0(*to, weights, x)
          : input % 4 == 1 ? klaus_fma_lane1(*to, weights, x)
          : input % 4 == 2 ? klaus_fma_lane2(*to, weights, x)
                           : klaus_fma_lane3(*to, weights, x);
}

__attribute__((always_inline)) static inline void
add_halves(sums_of *sums, uint8x16_t halves, const float32x4_t *inputs, const int q, const int vectors) {
    add(sums, vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves))), inputs, q, vectors);
    add(sums, klaus_widen_high(halves), inputs, q + 1, vectors);
}

/* 16 indices: four vectors of weights from number `q` on. */
__attribute__((always_inline)) static inline void add_indices(sums_of *sums, uint8x16_t low, uint8x16_t high,
                                                              uint8x16_t indices, const float32x4_t *inputs,
                                                              const int q, const int vectors) {
    const uint8x16x2_t halves = vzipq_u8(klaus_table16(low, indices), klaus_table16(high, indices));
    add_halves(sums, halves.val[0], inputs, q, vectors);
    add_halves(sums, halves.val[1], inputs, q + 2, vectors);
}

/* Adds `count` inputs, a multiple of eight; returns where the weights end. */
__attribute__((always_inline)) static inline const uint8_t *add_block(sums_of *sums, const uint8_t *table,
                                                                      const uint8_t *encoded, const float *x,
                                                                      int64_t count, const enum kind kind,
                                                                      const int vectors) {
    uint8x16_t low = vdupq_n_u8(0), high = low;
    if (kind == Q4) {
        low = vld1q_u8(table);
        high = vld1q_u8(table + 16);
    }
#pragma clang loop unroll(disable)
    for (; count > 0; count -= 8, x += 8) {
        const float32x4_t inputs[2] = {vld1q_f32(x), vld1q_f32(x + 4)};
        if (kind == Q4) {
            UNROLLED for (int g = 0; g < vectors; g++) {
                const uint8x16_t pairs = vld1q_u8(encoded + 16 * g);
                add_indices(sums, low, high, vandq_u8(pairs, vdupq_n_u8(15)), inputs, 8 * g, vectors);
                add_indices(sums, low, high, vshrq_n_u8(pairs, 4), inputs, 8 * g + 4, vectors);
            }
            encoded += 16 * vectors;
        } else if (kind == HALVES) {
            UNROLLED for (int g = 0; g < 4 * vectors; g++)
                add_halves(sums, vld1q_u8(encoded + 16 * g), inputs, 2 * g, vectors);
            encoded += 64 * vectors;
        } else {
            UNROLLED for (int g = 0; g < 8 * vectors; g++)
                add(sums, vreinterpretq_f32_u8(vld1q_u8(encoded + 16 * g)), inputs, g, vectors);
            encoded += 128 * vectors;
        }
    }
    return encoded;
}

/* The inputs that fill no step. */
static void add_rest(sums_of *sums, const klaus_shape *s, const uint8_t *table, const uint8_t *encoded, const float *x,
                     int64_t count, int32_t width) {
    float decoded[(8 * 4 * MOST_VECTORS + 63) / 64 * 64];
    const klaus_decoder decode = klaus_full_connect_decoder(s);
    const float *weights = decode != NULL ? decoded : (const float *)(const void *)encoded;
    if (decode != NULL)
        decode(table, encoded, count * width, decoded);
    for (int64_t i = 0; i < count; i++)
        for (int32_t v = 0; v < width / 4; v++, weights += 4)
            sums->at[i % 2][v] = vfmaq_f32(sums->at[i % 2][v], vld1q_f32(weights), vdupq_n_f32(x[i]));
}

/* One panel: `outputs` of its channels exist. */
__attribute__((always_inline)) static inline void panel_of(const klaus_call *call, const uint8_t *panel, float *output,
                                                           int32_t outputs, const enum kind kind, const int vectors) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    const uint8_t *table = call->packed, *encoded = panel + 2 * 16 * vectors;
    const float *x = call->input[0], *scale = (const float *)(const void *)panel;
    sums_of sums;
    for (int v = 0; v < vectors; v++)
        sums.at[0][v] = sums.at[1][v] = vdupq_n_f32(0);
    for (int64_t done = 0; done < inputs; done += KLAUS_FULL_CONNECT_BLOCK) {
        const int64_t count = klaus_full_connect_block_inputs(inputs, done), whole = count / 8 * 8;
        const uint8_t *rest = add_block(&sums, table, encoded, x + done, whole, kind, vectors);
        if (whole < count)
            add_rest(&sums, s, table, rest, x + done + whole, count - whole, 4 * vectors);
        encoded += (size_t)klaus_full_connect_block_bytes(s, count, 4 * vectors);
    }
    const klaus_limits limits = klaus_activation_limits(s->activation);
    float values[4 * MOST_VECTORS];
    for (int v = 0; v < vectors; v++) {
        const float32x4_t sum = vaddq_f32(sums.at[0][v], sums.at[1][v]);
        const float32x4_t value = vfmaq_f32(vld1q_f32(scale + 4 * (vectors + v)), sum, vld1q_f32(scale + 4 * v));
        vst1q_f32(values + 4 * v, klaus_limit(value, limits));
    }
    for (int32_t c = 0; c < outputs; c++)
        output[c] = values[c];
}

__attribute__((noinline)) static void floats_4(const klaus_call *call, const uint8_t *panel, float *output,
                                               int32_t outputs) {
    panel_of(call, panel, output, outputs, FLOATS, 1);
}

__attribute__((noinline)) static void floats_8(const klaus_call *call, const uint8_t *panel, float *output,
                                               int32_t outputs) {
    panel_of(call, panel, output, outputs, FLOATS, 2);
}

__attribute__((noinline)) static void floats_12(const klaus_call *call, const uint8_t *panel, float *output,
                                                int32_t outputs) {
    panel_of(call, panel, output, outputs, FLOATS, 3);
}

__attribute__((noinline)) static void halves_4(const klaus_call *call, const uint8_t *panel, float *output,
                                               int32_t outputs) {
    panel_of(call, panel, output, outputs, HALVES, 1);
}

__attribute__((noinline)) static void halves_8(const klaus_call *call, const uint8_t *panel, float *output,
                                               int32_t outputs) {
    panel_of(call, panel, output, outputs, HALVES, 2);
}

__attribute__((noinline)) static void halves_12(const klaus_call *call, const uint8_t *panel, float *output,
                                                int32_t outputs) {
    panel_of(call, panel, output, outputs, HALVES, 3);
}

__attribute__((noinline)) static void q4_4(const klaus_call *call, const uint8_t *panel, float *output,
                                           int32_t outputs) {
    panel_of(call, panel, output, outputs, Q4, 1);
}

__attribute__((noinline)) static void q4_8(const klaus_call *call, const uint8_t *panel, float *output,
                                           int32_t outputs) {
    panel_of(call, panel, output, outputs, Q4, 2);
}

__attribute__((noinline)) static void q4_12(const klaus_call *call, const uint8_t *panel, float *output,
                                            int32_t outputs) {
    panel_of(call, panel, output, outputs, Q4, 3);
}

bool klaus_full_connect_gemv_can(const klaus_shape *s) {
    if (!klaus_full_connect_is_sound(s) || s->batch > 1)
        return false;
    const uint32_t stored = klaus_full_connect_stored(s);
    return stored == KLAUS_F32 || stored == KLAUS_F16 || (stored == KLAUS_Q4 && s->codebook_dtype == KLAUS_F16);
}

void klaus_full_connect_gemv_run(const klaus_call *call, int32_t part, int32_t parts, int32_t panel_width) {
    static void (*const all[3][3])(const klaus_call *, const uint8_t *, float *, int32_t) = {
        {floats_4, floats_8, floats_12},
        {halves_4, halves_8, halves_12},
        {q4_4, q4_8, q4_12},
    };
    const klaus_shape *s = call->shape;
    const uint32_t stored = klaus_full_connect_stored(s);
    const int kind = stored == KLAUS_F32 ? FLOATS : stored == KLAUS_F16 ? HALVES : Q4;
    int64_t begin, end;
    klaus_share(s->out_channels, panel_width, part, parts, &begin, &end);
    const uint8_t *panel = (const uint8_t *)call->packed + klaus_full_connect_table_bytes(s) +
                           (size_t)((uint64_t)(begin / panel_width) * klaus_full_connect_panel_bytes(s, panel_width));
    for (int64_t first = begin; first < end; first += panel_width) {
        const int32_t width = klaus_panel_width(s->out_channels, (int32_t)first, panel_width);
        const int32_t outputs = s->out_channels - (int32_t)first < width ? s->out_channels - (int32_t)first : width;
        all[kind][width / 4 - 1](call, panel, (float *)call->output + first, outputs);
        panel += (size_t)klaus_full_connect_panel_bytes(s, width);
    }
}
