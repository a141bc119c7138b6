#include "ops/weights.h"

#include <string.h>

float klaus_half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff, bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        /* mantissa * 2^-24, exact in float32 */
        const float magnitude = (float)mantissa * (1.0f / 16777216.0f);
        memcpy(&bits, &magnitude, sizeof bits);
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t klaus_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    uint32_t mantissa = magnitude, half = 0;
    int32_t dropped = 13;
    if (magnitude >= 0x38800000) { /* normal: 2^-14 and up */
        mantissa -= 112u << 23;
    } else { /* in units of 2^-24 */
        const int32_t exponent = (int32_t)(magnitude >> 23);
        if (exponent < 102) /* below half the smallest one */
            return sign;
        mantissa = (magnitude & 0x7fffff) | 0x800000;
        dropped = 126 - exponent;
    }
    half = mantissa >> dropped;
    const uint32_t rest = mantissa & ((1u << dropped) - 1), middle = 1u << (dropped - 1);
    half += rest > middle || (rest == middle && (half & 1) != 0);
    return (uint16_t)(sign | half);
}

float klaus_codebook_entry(const klaus_shape *shape, const klaus_weights *weights, uint32_t index) {
    if (index >= shape->codebook_entries)
        return 0.0f;
    if (shape->codebook_dtype == KLAUS_F16)
        return klaus_half_to_float(((const uint16_t *)weights->codebook)[index]);
    return ((const float *)weights->codebook)[index];
}

uint32_t klaus_weight_index(const klaus_shape *shape, const klaus_weights *weights, int64_t row, int64_t position) {
    const uint8_t *bytes = (const uint8_t *)weights->values + (size_t)row * weights->row_bytes;
    switch (shape->weight_dtype) {
    case KLAUS_Q4:
        return (bytes[position / 2] >> (position % 2 * 4)) & 15u;
    case KLAUS_Q2:
        return (bytes[position / 4] >> (position % 4 * 2)) & 3u;
    default:
        return bytes[position];
    }
}

void klaus_weights_read(const klaus_shape *shape, const klaus_weights *weights, int64_t row, int64_t begin,
                        int64_t count, float *values) {
    const uint8_t *bytes = (const uint8_t *)weights->values + (size_t)row * weights->row_bytes;
    if (shape->weight_dtype == KLAUS_F32) {
        memcpy(values, bytes + begin * 4, (size_t)count * 4);
        return;
    }
    if (shape->weight_dtype == KLAUS_F16) {
        for (int64_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, bytes + (begin + i) * 2, sizeof half);
            values[i] = klaus_half_to_float(half);
        }
        return;
    }
    float entries[256];
    for (uint32_t i = 0; i < 256; i++)
        entries[i] = klaus_codebook_entry(shape, weights, i);
    for (int64_t i = 0; i < count; i++)
        values[i] = entries[klaus_weight_index(shape, weights, row, begin + i)];
}
