/* How every part of the library says that something is wrong: one status, one line. */
#ifndef KLAUS_ENGINE_FAIL_H
#define KLAUS_ENGINE_FAIL_H
#include <stdint.h>

#include "klaus/klaus.h"

/* Fills `error` (may be NULL) with the formatted line, control characters replaced, and returns `status`. */
klaus_status klaus_fail(klaus_error *error, klaus_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that `error` already holds. */
void klaus_fail_prefix(klaus_error *error, const char *prefix);

#endif
