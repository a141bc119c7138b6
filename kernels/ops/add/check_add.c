#include "ops/check_elementwise.h"

static bool bench(int32_t index, klaus_shape *shape) {
    return klaus_check_elementwise_bench(index, KLAUS_OP_ADD, shape);
}

static double tolerance(const klaus_shape *shape) {
    (void)shape;
    return klaus_check_sum_tolerance(0);
}

const klaus_check_cases klaus_check_add = {
    .op = KLAUS_OP_ADD,
    .count = 42,
    .rule = KLAUS_CHECK_TERMS, /* not exact: armv7's NEON flushes denormals */
    .shape = klaus_check_elementwise_shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
