/* The operands of one case, made from a seed in guarded memory, and what the oracle makes of them. */
#ifndef KLAUS_CHECK_OPERANDS_H
#define KLAUS_CHECK_OPERANDS_H
#include <stdbool.h>

#include "check/cases.h"
#include "check/guard.h"
#include "check/random.h"
#include "ops/op.h"

typedef enum klaus_values {
    KLAUS_VALUES_ORDINARY, /* -1 .. 1 */
    KLAUS_VALUES_SPARSE,   /* half of them zero, some negative zero, as after ReLU */
    KLAUS_VALUES_HOSTILE,  /* denormals, very large, very small */
    KLAUS_VALUES_NAN       /* ordinary, with one NaN and one infinity among them */
} klaus_values;

typedef struct klaus_operands {
    klaus_shape shape;
    klaus_block input[KLAUS_MAX_INPUTS], values, codebook, scale, bias, correction;
    klaus_weights weights;
    /* Ordinary memory, out_count each. Of int8 results `expected` holds the integers themselves. */
    float *expected, *terms;
    bool own_oracle; /* the dtype has an oracle of its own, so that int8 results must be equal to the bit */
    size_t out_count;
} klaus_operands;

/* Inputs of the kind asked for and of the shape's dtypes, weights always ordinary. A shape with int8 activations gets
 * quantizations from the seed: all of its tensors the same one for ops that only move or compare numbers. False for
 * want of memory; free it then, too. */
bool klaus_operands_make(klaus_operands *o, const klaus_shape *shape, klaus_random *random, klaus_values kind,
                         klaus_place place);
/* Fills o->expected and, for ops that sum, o->terms: the oracle on absolute values, without an activation. False for
 * want of memory. */
bool klaus_operands_expect(klaus_operands *o, klaus_check_rule rule);
/* The results of a run, as `expected` holds them. */
void klaus_operands_read(const klaus_operands *o, const void *output, float *values);
void klaus_operands_free(klaus_operands *o);

#endif
