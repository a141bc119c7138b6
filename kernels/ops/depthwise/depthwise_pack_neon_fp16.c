#include <math.h>
#include <string.h>

#include "ops/conv/conv.h"
#include "ops/depthwise/depthwise_f16.h"
#include "ops/halves.h"
#include "ops/shape.h"
#include "ops/weights.h"

bool klaus_depthwise_f16_can(const klaus_shape *s) {
    return klaus_shape_is(s, KLAUS_F16) && klaus_conv_has_geometry(s) && s->groups == s->in_channels &&
           s->out_channels == s->in_channels && s->in_channels >= 8 && s->kernel_rows == s->kernel_cols &&
           (s->kernel_rows == 3 || s->kernel_rows == 5) && s->stride_rows == s->stride_cols &&
           (s->stride_rows == 1 || s->stride_rows == 2) && s->pad_top >= 0 && s->pad_left >= 0;
}

uint64_t klaus_depthwise_f16_packed_bytes(const klaus_shape *s) {
    return ((uint64_t)s->in_channels + 7) / 8 * klaus_depthwise_f16_block_bytes(s);
}

/* With its scale. */
static float largest_weight(const klaus_shape *s, const klaus_weights *weights, int32_t channel) {
    const int32_t taps = s->kernel_rows * s->kernel_cols;
    float filter[25], largest = 0;
    klaus_weights_read(s, weights, channel, 0, taps, filter);
    for (int32_t tap = 0; tap < taps; tap++)
        largest = fmaxf(largest, fabsf(filter[tap]));
    return weights->scale != NULL ? largest * fabsf(weights->scale[channel]) : largest;
}

void klaus_depthwise_f16_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const int32_t taps = s->kernel_rows * s->kernel_cols, blocks = (s->in_channels + 7) / 8;
    uint8_t *to = packed;
    float of_all = 0;
    for (int32_t channel = 0; channel < s->in_channels; channel++)
        of_all = fmaxf(of_all, largest_weight(s, weights, channel));
    memset(packed, 0, (size_t)klaus_depthwise_f16_packed_bytes(s));
    for (int32_t n = 0; n < blocks; n++, to += klaus_depthwise_f16_block_bytes(s)) {
        klaus_depthwise_f16_block *block = (klaus_depthwise_f16_block *)(void *)to;
        float filters[8][25];
        const int32_t first = klaus_depthwise_f16_first(s->in_channels, n);
        for (int32_t c = 0; c < 8; c++) {
            klaus_weights_read(s, weights, first + c, 0, taps, filters[c]);
            block->bias[c] = weights->bias[first + c];
            block->scale[c] = klaus_half_scale(largest_weight(s, weights, first + c), of_all, block->bias[c]);
            block->wide |= block->scale[c] != 1;
        }
        for (int32_t c = 0; c < 8; c++) {
            const double own = weights->scale != NULL ? (double)weights->scale[first + c] : 1.0;
            block->start[c] = block->wide ? 0 : klaus_float_to_half(block->bias[c]);
            for (int32_t tap = 0; tap < taps; tap++)
                block->weights[8 * tap + c] =
                    klaus_float_to_half((float)((double)filters[c][tap] * own / (double)block->scale[c]));
        }
    }
}
