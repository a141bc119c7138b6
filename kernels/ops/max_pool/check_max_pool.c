#include "ops/check_pool.h"

/* Exact, but for armv7's NEON, which takes denormals for zeros. */
static double tolerance(const klaus_shape *shape) {
    (void)shape;
    return 0;
}

static bool bench(int32_t index, klaus_shape *shape) {
    return klaus_check_pool_bench(index, KLAUS_OP_MAX_POOL, shape);
}

const klaus_check_cases klaus_check_max_pool = {
    .op = KLAUS_OP_MAX_POOL,
    .count = 60,
    .rule = KLAUS_CHECK_RELATIVE,
    .shape = klaus_check_pool_shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
