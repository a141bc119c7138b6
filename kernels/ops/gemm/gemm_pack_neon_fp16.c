/* Panels of halves: ops/gemm/gemm_f16.h. */
#include <math.h>
#include <string.h>

#include "ops/gemm/gemm_f16.h"
#include "ops/halves.h"
#include "ops/weights.h"

#define SOME 256

/* With its scale. */
static float largest_weight(const klaus_shape *s, const klaus_weights *weights, int64_t row, int64_t terms) {
    float largest = 0, some[SOME];
    for (int64_t i = 0; i < terms; i += SOME) {
        const int64_t count = terms - i < SOME ? terms - i : SOME;
        klaus_weights_read(s, weights, row, i, count, some);
        for (int64_t n = 0; n < count; n++)
            largest = fmaxf(largest, fabsf(some[n]));
    }
    return weights->scale != NULL ? largest * fabsf(weights->scale[row]) : largest;
}

uint64_t klaus_gemm_f16_panels_bytes(int32_t channels, int64_t terms) {
    const int32_t whole = channels / KLAUS_GEMM_F16_WIDTH, rest = channels % KLAUS_GEMM_F16_WIDTH;
    const uint64_t bytes = (uint64_t)whole * klaus_gemm_f16_panel_bytes(KLAUS_GEMM_F16_WIDTH, terms);
    return rest == 0 ? bytes : bytes + klaus_gemm_f16_panel_bytes((rest + 7) / 8 * 8, terms);
}

uint8_t *klaus_gemm_f16_pack(const klaus_shape *s, const klaus_weights *weights, int64_t first, int32_t channels,
                             int64_t terms, uint8_t *to) {
    float of_all = 0;
    for (int32_t c = 0; c < channels; c++)
        of_all = fmaxf(of_all, largest_weight(s, weights, first + c, terms));
    for (int32_t done = 0, width; done < channels; done += width) {
        width = klaus_gemm_f16_panel_width(channels, done);
        const int32_t outputs = channels - done < width ? channels - done : width;
        const size_t bytes = klaus_gemm_f16_panel_bytes(width, terms);
        memset(to, 0, bytes);
        float *scale = (float *)(void *)(to + 16), *bias = scale + width;
        uint16_t *start = (uint16_t *)(void *)(bias + width), *values = start + width;
        uint32_t wide = 0;
        for (int32_t c = 0; c < outputs; c++) {
            const int64_t row = first + done + c;
            bias[c] = weights->bias[row];
            scale[c] = klaus_half_scale(largest_weight(s, weights, row, terms), of_all, bias[c]);
            wide |= scale[c] != 1;
        }
        memcpy(to, &wide, sizeof wide);
        for (int32_t c = 0; c < outputs; c++) {
            const int64_t row = first + done + c;
            const double own = (weights->scale != NULL ? (double)weights->scale[row] : 1.0) / (double)scale[c];
            float some[SOME];
            start[c] = wide ? 0 : klaus_float_to_half(bias[c]);
            for (int64_t i = 0; i < terms; i += SOME) {
                const int64_t count = terms - i < SOME ? terms - i : SOME;
                klaus_weights_read(s, weights, row, i, count, some);
                for (int64_t n = 0; n < count; n++)
                    values[(i + n) * width + c] = klaus_float_to_half((float)(own * (double)some[n]));
            }
        }
        to += bytes;
    }
    return to;
}
