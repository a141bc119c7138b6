#include "ops/check_pool.h"

static double tolerance(const klaus_shape *shape) {
    return klaus_check_sum_tolerance((int64_t)shape->kernel_rows * shape->kernel_cols);
}

static bool bench(int32_t index, klaus_shape *shape) {
    return klaus_check_pool_bench(index, KLAUS_OP_AVERAGE_POOL, shape);
}

const klaus_check_cases klaus_check_average_pool = {
    .op = KLAUS_OP_AVERAGE_POOL,
    .count = 60,
    .rule = KLAUS_CHECK_TERMS,
    .shape = klaus_check_pool_shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
