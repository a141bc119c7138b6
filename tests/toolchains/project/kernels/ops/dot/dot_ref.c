#include "ops/dot/dot.h"

float dot_ref(const float *a, const float *b, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}
