#include "klaus/klaus.h"

#include "ops/dot/dot.h"

typedef float dot_function(const float *a, const float *b, int count);

/* A table of functions: in a position-independent file its entries move with the load address. */
static dot_function *const table[] = {
    dot_ref,
#if defined(__ARM_NEON)
    dot_neon,
#endif
#if defined(__aarch64__)
    dot_neon64,
#endif
};

float klaus_dot(const float *a, const float *b, int count) {
    return table[sizeof table / sizeof table[0] - 1](a, b, count);
}

const char *klaus_system(void) {
    return os_name();
}
