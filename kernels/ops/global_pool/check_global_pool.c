#include "check/cases.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    static const int32_t channels[] = {1, 3, 4, 5, 8, 15, 16, 17, 40, 67};
    s->batch = s->out_rows = s->out_cols = 1;
    s->in_rows = klaus_random_int(random, 1, 9);
    s->in_cols = klaus_random_int(random, 1, 9);
    s->in_channels = s->out_channels = channels[klaus_random_int(random, 0, 9)];
    s->activation = index % 5 == 4 ? KLAUS_RELU6 : KLAUS_LINEAR;
}

static double tolerance(const klaus_shape *s) {
    return klaus_check_sum_tolerance((int64_t)s->in_rows * s->in_cols);
}

static bool bench(int32_t index, klaus_shape *s) {
    s->op = KLAUS_OP_GLOBAL_POOL;
    s->batch = s->out_rows = s->out_cols = 1;
    s->in_rows = s->in_cols = 7;
    s->in_channels = s->out_channels = 1280;
    return index == 0;
}

const klaus_check_cases klaus_check_global_pool = {
    .op = KLAUS_OP_GLOBAL_POOL,
    .count = 40,
    .rule = KLAUS_CHECK_TERMS,
    .shape = shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
