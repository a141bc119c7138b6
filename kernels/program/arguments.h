/* Command lines: options described by a table, checked completely before a command starts. */
#ifndef KLAUS_PROGRAM_ARGUMENTS_H
#define KLAUS_PROGRAM_ARGUMENTS_H
#include <stdbool.h>
#include <stdint.h>

#include "klaus/klaus.h"

typedef enum argument_kind {
    ARGUMENT_FLAG,   /* bool *: --name */
    ARGUMENT_TEXT,   /* const char **: --name TEXT */
    ARGUMENT_NUMBER, /* int64_t *: --name N, low..high */
    ARGUMENT_CHOICE  /* int32_t *: --name WORD, the position of WORD in the list */
} argument_kind;

typedef struct argument {
    const char *name; /* with its dashes */
    argument_kind kind;
    void *value; /* holds the default before */
    int64_t low, high;
    const char *const *words; /* closed by NULL */
    bool required;            /* ARGUMENT_TEXT alone */
} argument;

typedef struct operands {
    const char *const *texts; /* what stands without a dash, in order */
    int32_t count;
} operands;

#define ARGUMENTS_MOST 32 /* options of one command */

/* Fills the values of `table` from argv[2..]; an option with a value may stand there once. `rest` gets what is no
 * option (everything behind "--" too) in argv's own places. On failure `error` says what was wrong. */
klaus_status arguments_read(const argument *table, int32_t count, int argc, char **argv, operands *rest,
                            klaus_error *error);

#endif
