#include "program/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/fail.h"

#define MOST_AT_ONCE ((size_t)1 << 26) /* some systems take no more than 2 GiB in one call */

static klaus_status refuse(const whole_file *file, int reason, klaus_error *error) {
    return klaus_fail(error, KLAUS_E_INPUT, "%.300s: cannot be written: %s", file->path, strerror(reason));
}

/* Nothing that stands there already, a link included, is written to or followed. */
static int create(const char *path, mode_t mode) {
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
}

klaus_status whole_file_open(whole_file *file, const char *path, klaus_error *error) {
    struct stat before;
    *file = (whole_file){.path = path, .file = -1};
    const bool stands = stat(path, &before) == 0;
    if (stands && !S_ISREG(before.st_mode)) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "%.300s: cannot be written: it is there and no regular file; name another", path);
    }
    const int length = snprintf(file->beside, sizeof(file->beside), "%s.%ld.part", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof(file->beside)) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.200s...: the path is too long", path);
    }
    file->file = create(file->beside, 0666);
    if (file->file < 0 && errno == EEXIST) { /* a process of our number left it: it ended without a chance to tidy up */
        unlink(file->beside);
        file->file = create(file->beside, 0666);
    }
    if (file->file < 0) {
        return refuse(file, errno, error);
    }
    if (stands && fchmod(file->file, before.st_mode & 0777) != 0) {
        file->reason = errno;
    }
    return KLAUS_OK;
}

bool whole_file_write(whole_file *file, const void *bytes, size_t size) {
    const char *from = bytes;
    while (file->reason == 0 && size > 0) {
        const ssize_t written = write(file->file, from, size < MOST_AT_ONCE ? size : MOST_AT_ONCE);
        if (written < 0 && errno != EINTR) {
            file->reason = errno;
        } else if (written > 0) {
            from += written;
            size -= (size_t)written;
            file->bytes += (uint64_t)written;
        }
    }
    return file->reason == 0;
}

klaus_status whole_file_close(whole_file *file, klaus_status status, klaus_error *error) {
    const bool wanted = status == KLAUS_OK;
    /* To the disk before the name changes, or a power cut could leave an empty file under that name. */
    if (wanted && file->reason == 0 && fsync(file->file) != 0) {
        file->reason = errno;
    }
    if (close(file->file) != 0 && file->reason == 0) {
        file->reason = errno;
    }
    if (wanted && file->reason == 0 && rename(file->beside, file->path) != 0) {
        file->reason = errno;
    }
    if (!wanted || file->reason != 0) {
        unlink(file->beside);
    }
    return wanted && file->reason != 0 ? refuse(file, file->reason, error) : status;
}

klaus_status write_floats(const char *path, const float *values, uint64_t count, klaus_error *error) {
    whole_file file;
    klaus_status status = whole_file_open(&file, path, error);
    if (status == KLAUS_OK) {
        whole_file_write(&file, values, (size_t)count * sizeof(float));
        status = whole_file_close(&file, KLAUS_OK, error);
    }
    return status;
}
