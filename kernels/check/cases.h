/* What an op gives to the checker: shapes worth trying, how exact its variants must be, and a typical shape to time. */
#ifndef KLAUS_CHECK_CASES_H
#define KLAUS_CHECK_CASES_H
#include "check/random.h"
#include "ops/op.h"

typedef enum klaus_check_rule {
    KLAUS_CHECK_EXACT,    /* the same numbers (zeros of either sign are equal) */
    KLAUS_CHECK_TERMS,    /* |error| <= tolerance * sum of |terms|: the oracle on absolute values tells the sum */
    KLAUS_CHECK_RELATIVE, /* |error| <= tolerance * |result| */
} klaus_check_rule;

typedef struct klaus_check_cases {
    uint32_t op;
    int32_t count;
    klaus_check_rule rule;
    /* The shape of case `index`; `random` is fresh for each case. Sizes small enough for an emulator. */
    void (*shape)(int32_t index, klaus_random *random, klaus_shape *shape);
    double (*tolerance)(const klaus_shape *shape);
    /* Typical shapes, `index` from 0 on; false when there are no more. A variant is timed on the first it can do. */
    bool (*bench)(int32_t index, klaus_shape *shape);
    bool nan_defined; /* whether a NaN among the inputs has one right answer */
} klaus_check_cases;

/* ops/<op>/check_<op>.c */
extern const klaus_check_cases klaus_check_conv, klaus_check_full_connect, klaus_check_max_pool,
    klaus_check_average_pool, klaus_check_global_pool, klaus_check_lrn, klaus_check_add, klaus_check_concat,
    klaus_check_slice, klaus_check_softmax, klaus_check_activation, klaus_check_cast;

/* Weight dtype number `index` of all combinations with a codebook's dtype, into the shape; wraps around. */
void klaus_check_set_weights(klaus_shape *shape, int32_t index);

/* A tolerance for float32 sums of `terms` products in any order. Rounding errors of a long sum behave like a random
 * walk, hence the root; 2^-24 is half a unit in the last place of 1. */
double klaus_check_sum_tolerance(int64_t terms);

/* What half precision adds to the tolerance of a shape: 2^-11 is half a unit in its last place of 1. A kernel may sum
 * up to 128 products in halves before it widens the sum. */
double klaus_check_half_tolerance(const klaus_shape *shape);

#endif
