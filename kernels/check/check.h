/* The checker: every kernel variant that this CPU can run against its op's `_ref`, on the machine at hand. */
#ifndef KLAUS_CHECK_H
#define KLAUS_CHECK_H
#include <stdbool.h>
#include <stdint.h>

#include "klaus/klaus.h"

typedef struct klaus_check_options {
    const char *op; /* only variants of this op ("conv") or whose name holds this word ("depthwise"); NULL = all */
    klaus_isa isa;  /* only variants of this instruction set; KLAUS_ISA_AUTO = all */
    uint64_t seed;  /* of shapes and values; the same for every variant */
    bool bench;     /* time each variant that passed on a typical shape */
    bool list;      /* only say which variants there are */
} klaus_check_options;

typedef enum klaus_check_kind {
    KLAUS_CHECK_VARIANT = 1, /* --list: a variant, and whether this CPU can run it */
    KLAUS_CHECK_RESULT = 2,  /* a variant was checked */
    KLAUS_CHECK_BENCH = 3,   /* a variant was timed */
    KLAUS_CHECK_SUMMARY = 4  /* the last one */
} klaus_check_kind;

/* One fact; what does not belong to its kind is 0 or "". Strings are valid during the call of the sink only. */
typedef struct klaus_check_report {
    klaus_check_kind kind;
    const char *variant, *op, *isa, *core;
    bool available;
    bool ok;
    int32_t cases, failed;
    double worst_error, bound; /* of the case that came closest to its bound; relative to the sum of |terms| */
    const char *message;       /* what went wrong first, with the shape; "" if nothing */
    uint64_t ns, multiplies;   /* bench: the fastest of some calls, one thread */
    int32_t passed_variants, failed_variants;
} klaus_check_report;

typedef void (*klaus_check_sink)(void *user, const klaus_check_report *report);

/* Runs the checks and tells the sink, variant by variant. Returns 0 if all passed, 1 if any failed, 2 if no variant is
 * named by the options, 5 if the checker itself found no memory. Not for use while other threads run: signal handlers
 * for SIGILL, SIGTRAP, SIGSEGV, SIGBUS and SIGFPE are replaced while it works. */
int klaus_check_run(const klaus_check_options *options, klaus_check_sink sink, void *user);

#endif
