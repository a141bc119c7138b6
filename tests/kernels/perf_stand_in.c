/* Preloaded into klaus-run where the kernel lends no CPU counters, or to see what happens when it does not: the
 * counters that it asks for become the kernel's count of nanoseconds on a CPU, opened and read as the real ones are.
 * PERF_STAND_IN says how that goes: "clock", "refuse", or "shared": they did not run all the time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 1024

static char ours[FILES];

static int mode(const char *word) {
    const char *asked = getenv("PERF_STAND_IN");
    return asked != NULL && strcmp(asked, word) == 0;
}

__attribute__((visibility("default"))) long syscall(long number, ...) {
    long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    __builtin_va_list list;
    long given[6];
    __builtin_va_start(list, number);
    for (int i = 0; i < 6; i++) {
        given[i] = __builtin_va_arg(list, long);
    }
    __builtin_va_end(list);
    if (number != SYS_perf_event_open) {
        return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
    }
    if (mode("refuse")) {
        errno = EACCES;
        return -1;
    }
    struct perf_event_attr wanted = *(const struct perf_event_attr *)given[0];
    if (wanted.type != PERF_TYPE_HARDWARE || !wanted.exclude_kernel || !wanted.inherit) {
        abort();
    }
    wanted.type = PERF_TYPE_SOFTWARE;
    wanted.config = PERF_COUNT_SW_TASK_CLOCK;
    const long file = real(number, (long)&wanted, given[1], given[2], given[3], given[4]);
    if (file < 0 || file >= FILES) {
        abort();
    }
    ours[file] = 1;
    return file;
}

__attribute__((visibility("default"))) ssize_t read(int file, void *bytes, size_t size) {
    ssize_t (*real)(int, void *, size_t) = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    const ssize_t got = real(file, bytes, size);
    if (file >= 0 && file < FILES && ours[file] && mode("shared") && got == 24) {
        ((uint64_t *)bytes)[2] /= 2;
    }
    return got;
}
