#include "ops/check_elementwise.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    klaus_check_elementwise_shape(index, random, s);
    s->begin = klaus_random_int(random, 0, s->in_channels - 1);
    s->out_channels = klaus_random_int(random, 1, s->in_channels - s->begin);
}

static bool bench(int32_t index, klaus_shape *s) {
    klaus_check_elementwise_bench(index, KLAUS_OP_SLICE, s);
    s->begin = s->out_channels = 72;
    return index == 0;
}

const klaus_check_cases klaus_check_slice = {
    .op = KLAUS_OP_SLICE,
    .count = 35,
    .rule = KLAUS_CHECK_EXACT,
    .shape = shape,
    .bench = bench,
    .nan_defined = true,
};
