#include "ops/elements.h"

#include <math.h>
#include <string.h>

#include "ops/weights.h"

int8_t klaus_quantize(float x, float inverse, int32_t zero) {
    if (isnan(x))
        return (int8_t)zero;
    const float scaled = x * inverse;
    const float limited = scaled > 1000 ? 1000 : scaled < -1000 ? -1000 : scaled;
    const int32_t q = zero + (int32_t)rintf(limited);
    return (int8_t)(q > 127 ? 127 : q < -128 ? -128 : q);
}

void klaus_elements_read(const void *from, uint32_t dtype, const klaus_quantization *quantization, int64_t count,
                         float *to) {
    if (dtype == KLAUS_F16) {
        for (int64_t i = 0; i < count; i++)
            to[i] = klaus_half_to_float(((const uint16_t *)from)[i]);
    } else if (dtype == KLAUS_I8) {
        for (int64_t i = 0; i < count; i++)
            to[i] = quantization->scale * (float)(((const int8_t *)from)[i] - quantization->zero);
    } else {
        memcpy(to, from, (size_t)count * sizeof(float));
    }
}

void klaus_elements_write(const float *from, int64_t count, uint32_t dtype, const klaus_quantization *quantization,
                          void *to) {
    if (dtype == KLAUS_F16) {
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)to)[i] = klaus_float_to_half(from[i]);
    } else if (dtype == KLAUS_I8) {
        const float inverse = 1 / quantization->scale;
        for (int64_t i = 0; i < count; i++)
            ((int8_t *)to)[i] = klaus_quantize(from[i], inverse, quantization->zero);
    } else {
        memcpy(to, from, (size_t)count * sizeof(float));
    }
}
