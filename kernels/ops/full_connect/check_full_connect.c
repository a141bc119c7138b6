/* Shapes for full connect: every weight dtype, block and tile edges, batches. */
#include "check/cases.h"
#include "ops/shape.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    static const int32_t inputs[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 255, 256, 257, 300, 513, 600};
    static const int32_t outputs[] = {1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 20, 24, 25, 40};
    static const int32_t batches[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 15};
    static const int32_t tens[] = {9, 10, 19, 20};
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 1;
    s->in_channels = inputs[klaus_random_int(random, 0, 19)];
    s->out_channels = outputs[klaus_random_int(random, 0, 13)];
    s->batch = index % 3 == 0 ? 1 : batches[klaus_random_int(random, 0, 9)];
    if (klaus_random_int(random, 0, 5) == 0) { /* a map as input */
        s->in_rows = klaus_random_int(random, 1, 5);
        s->in_cols = klaus_random_int(random, 1, 5);
        s->in_channels = klaus_random_int(random, 1, 12);
    }
    if (index % 5 == 4) { /* tens of rows and whole panels */
        s->batch = tens[klaus_random_int(random, 0, 3)];
        s->out_channels = 8 * klaus_random_int(random, 1, 5);
    }
    s->activation = (uint32_t)klaus_random_int(random, 0, 2);
    s->has_scale = klaus_random_int(random, 0, 1) == 0;
    klaus_check_set_weights(s, index);
}

static double tolerance(const klaus_shape *s) {
    return klaus_check_sum_tolerance(klaus_shape_weights_per_row(s) + 2);
}

static bool bench(int32_t index, klaus_shape *s) {
    if (index > 0)
        return false;
    s->op = KLAUS_OP_FULL_CONNECT;
    s->in_rows = s->in_cols = s->out_rows = s->out_cols = 1;
    s->in_channels = 1024;
    s->out_channels = 504;
    s->batch = 10;
    s->activation = KLAUS_RELU;
    s->weight_dtype = KLAUS_Q4;
    s->codebook_dtype = KLAUS_F16;
    s->codebook_entries = 16;
    return true;
}

const klaus_check_cases klaus_check_full_connect = {
    .op = KLAUS_OP_FULL_CONNECT,
    .count = 149,
    .rule = KLAUS_CHECK_TERMS,
    .shape = shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
