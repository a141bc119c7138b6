#include "ops/depthwise/depthwise.h"

#include "ops/conv/conv.h"
#include "ops/shape.h"
#include "ops/weights.h"

bool klaus_depthwise_can(const klaus_shape *s) {
    return klaus_conv_is_sound(s) && s->groups == s->in_channels && s->out_channels == s->in_channels &&
           s->in_channels >= 4 && s->kernel_rows == s->kernel_cols && (s->kernel_rows == 3 || s->kernel_rows == 5) &&
           s->stride_rows == s->stride_cols && (s->stride_rows == 1 || s->stride_rows == 2) && s->pad_top >= 0 &&
           s->pad_left >= 0;
}

uint64_t klaus_depthwise_packed_bytes(const klaus_shape *s) {
    const uint64_t blocks = ((uint64_t)s->in_channels + 3) / 4;
    return blocks * 4 * (1 + (uint64_t)(s->kernel_rows * s->kernel_cols)) * sizeof(float);
}

void klaus_depthwise_pack(const klaus_shape *s, const klaus_weights *weights, void *packed) {
    const int32_t taps = s->kernel_rows * s->kernel_cols, blocks = (s->in_channels + 3) / 4;
    float *to = packed, filter[25];
    for (int32_t block = 0; block < blocks; block++, to += 4 * (1 + taps))
        for (int32_t c = 0; c < 4; c++) {
            const int32_t channel = klaus_depthwise_first(s->in_channels, block) + c;
            klaus_weights_read(s, weights, channel, 0, taps, filter);
            const float scale = weights->scale != NULL ? weights->scale[channel] : 1.0f;
            to[c] = weights->bias[channel];
            for (int32_t tap = 0; tap < taps; tap++)
                to[4 + 4 * tap + c] = scale * filter[tap];
        }
}
