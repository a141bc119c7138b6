/* Shapes for casts; the checker sets the dtypes. */
#include "ops/check_elementwise.h"

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    klaus_check_elementwise_shape(index, random, s);
    s->activation = KLAUS_LINEAR;
}

static bool bench(int32_t index, klaus_shape *s) {
    const bool known = klaus_check_elementwise_bench(index, KLAUS_OP_CAST, s);
    s->activation = KLAUS_LINEAR;
    return known;
}

const klaus_check_cases klaus_check_cast = {
    .op = KLAUS_OP_CAST,
    .count = 40,
    .rule = KLAUS_CHECK_EXACT,
    .shape = shape,
    .tolerance = NULL,
    .bench = bench,
    .nan_defined = true,
};
