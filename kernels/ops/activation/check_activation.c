#include "ops/check_elementwise.h"

static bool bench(int32_t index, klaus_shape *shape) {
    return klaus_check_elementwise_bench(index, KLAUS_OP_ACTIVATION, shape);
}

const klaus_check_cases klaus_check_activation = {
    .op = KLAUS_OP_ACTIVATION,
    .count = 42,
    .rule = KLAUS_CHECK_EXACT,
    .shape = klaus_check_elementwise_shape,
    .bench = bench,
    .nan_defined = true,
};
