#include <math.h>

#include "check/cases.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    static const int32_t channels[] = {1, 2, 3, 4, 5, 8, 10, 31, 100, 257};
    s->batch = index % 2 == 0 ? 1 : klaus_random_int(random, 2, 10);
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 1;
    s->in_channels = s->out_channels = channels[klaus_random_int(random, 0, 9)];
}

/* exp to about two units in the last place, a sum of positive terms, a quotient. */
static double tolerance(const klaus_shape *s) {
    return ldexp(16 + 4 * sqrt((double)s->in_channels), -24);
}

static bool bench(int32_t index, klaus_shape *s) {
    s->op = KLAUS_OP_SOFTMAX;
    s->batch = 10;
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 1;
    s->in_channels = s->out_channels = 1000;
    return index == 0;
}

const klaus_check_cases klaus_check_softmax = {
    .op = KLAUS_OP_SOFTMAX,
    .count = 40,
    .rule = KLAUS_CHECK_RELATIVE,
    .shape = shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = false,
};
