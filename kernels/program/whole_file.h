/* Files that appear whole or not at all: written beside their place under a name of their own, then renamed. */
#ifndef KLAUS_PROGRAM_WHOLE_FILE_H
#define KLAUS_PROGRAM_WHOLE_FILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "klaus/klaus.h"

#define KLAUS_MAX_PATH 4096

typedef struct whole_file {
    const char *path;
    int file; /* descriptor */
    uint64_t bytes;
    int reason; /* errno of what failed first */
    char beside[KLAUS_MAX_PATH];
} whole_file;

/* What stands at `path` must be a regular file, if anything; the new one gets its mode. */
klaus_status whole_file_open(whole_file *file, const char *path, klaus_error *error);
/* False once writing failed; whole_file_close says why. */
bool whole_file_write(whole_file *file, const void *bytes, size_t size);
/* Ends what whole_file_open began. The file is at its place if `status`, how the work went so far, and the result are
 * KLAUS_OK; its bytes have reached the disk before its name. */
klaus_status whole_file_close(whole_file *file, klaus_status status, klaus_error *error);

/* Numbers as a whole file. */
klaus_status write_floats(const char *path, const float *values, uint64_t count, klaus_error *error);

#endif
