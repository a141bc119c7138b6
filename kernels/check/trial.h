/* One variant on one case: packed, run whole and in parts, survived if it crashes, compared with the oracle. */
#ifndef KLAUS_CHECK_TRIAL_H
#define KLAUS_CHECK_TRIAL_H
#include "check/cases.h"
#include "check/operands.h"

/* What all cases of a variant came to. */
typedef struct klaus_verdict {
    int32_t cases, failed;
    double worst_error, bound, worst_share;
    char message[360];
} klaus_verdict;

typedef struct klaus_attempt {
    const klaus_variant *variant;
    klaus_call call;
    int32_t parts;
    void *packed; /* not NULL: pack into it instead of running */
    const klaus_weights *weights;
} klaus_attempt;

/* `attempt`: a klaus_attempt; the form that klaus_guard_call() takes. */
void klaus_attempt_do(void *attempt);

/* Adds one case to the verdict. */
void klaus_trial(const klaus_variant *variant, const klaus_operands *o, const klaus_check_cases *cases,
                 klaus_place place, klaus_verdict *v);

#endif
