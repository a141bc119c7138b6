#include "ops/check_elementwise.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    klaus_check_elementwise_shape(index, random, s);
    s->input_count = klaus_random_int(random, 1, KLAUS_MAX_INPUTS);
    s->out_channels = 0;
    for (int32_t n = 0; n < s->input_count; n++) {
        s->input_channels[n] = klaus_random_int(random, 1, 9);
        s->out_channels += s->input_channels[n];
    }
    s->in_channels = s->input_channels[0];
}

static bool bench(int32_t index, klaus_shape *s) {
    klaus_check_elementwise_bench(index, KLAUS_OP_CONCAT, s);
    s->input_count = 2;
    s->input_channels[0] = s->input_channels[1] = s->in_channels = 72;
    return index == 0;
}

const klaus_check_cases klaus_check_concat = {
    .op = KLAUS_OP_CONCAT,
    .count = 35,
    .rule = KLAUS_CHECK_EXACT,
    .shape = shape,
    .bench = bench,
    .nan_defined = true,
};
