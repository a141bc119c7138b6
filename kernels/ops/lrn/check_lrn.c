#include "check/cases.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    static const float betas[] = {0.75f, 0.5f, 0.75f, 1.0f};
    s->batch = 1;
    s->in_rows = s->out_rows = klaus_random_int(random, 1, 5);
    s->in_cols = s->out_cols = klaus_random_int(random, 1, 7);
    s->groups = klaus_random_int(random, 1, 3);
    s->in_channels = s->out_channels = s->groups * klaus_random_int(random, 1, index % 2 == 0 ? 9 : 40);
    s->size = klaus_random_int(random, 1, 7);
    s->kappa = index % 3 == 0 ? 1 : 2;
    s->alpha = index % 5 == 0 ? 0.5f : 1e-4f;
    s->beta = betas[index % 4];
    s->activation = index % 6 == 5 ? KLAUS_RELU : KLAUS_LINEAR;
    if (index % 5 == 4) { /* as networks have it: windows of five, channels in fours or eights */
        s->groups = 1 + index % 2;
        s->in_channels = s->out_channels = s->groups * (index % 2 == 0 ? 4 * (1 + index % 4) : 8 * (1 + index % 6));
        s->size = 5;
        s->alpha = index % 20 < 10 ? 0.5f : 1e-4f;
        s->beta = 0.75f;
        s->activation = KLAUS_LINEAR;
    }
}

/* A handful of roundings, the powers' included. */
static double tolerance(const klaus_shape *s) {
    (void)s;
    return 2e-6;
}

static bool bench(int32_t index, klaus_shape *s) {
    s->op = KLAUS_OP_LRN;
    s->batch = 1;
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 55;
    s->in_channels = s->out_channels = 96;
    s->groups = 2;
    s->size = 5;
    s->kappa = 2;
    s->alpha = 1e-4f;
    s->beta = 0.75f;
    return index == 0;
}

const klaus_check_cases klaus_check_lrn = {
    .op = KLAUS_OP_LRN,
    .count = 60,
    .rule = KLAUS_CHECK_RELATIVE,
    .shape = shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = false,
};
