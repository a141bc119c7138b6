/* What Linux and Apple systems do alike. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/fail.h"
#include "os/os.h"

uint64_t klaus_os_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

klaus_status klaus_os_map(const char *path, klaus_mapping *mapping, klaus_error *error) {
    mapping->bytes = NULL;
    mapping->size = 0;
    /* O_NONBLOCK: a FIFO in place of the file must not hang us. */
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.300s: cannot be opened: %s", path, strerror(errno));
    }
    struct stat facts;
    klaus_status status = KLAUS_OK;
    if (fstat(file, &facts) != 0) {
        status = klaus_fail(error, KLAUS_E_INPUT, "%.300s: cannot be examined: %s", path, strerror(errno));
    } else if (!S_ISREG(facts.st_mode)) {
        status = klaus_fail(error, KLAUS_E_INPUT, "%.300s: is not a regular file; name one", path);
    } else if (facts.st_size <= 0) {
        status = klaus_fail(error, KLAUS_E_INPUT, "%.300s: is empty", path);
    } else if ((uint64_t)facts.st_size > SIZE_MAX / 2) {
        status = klaus_fail(error, KLAUS_E_INPUT, "%.300s: %lld bytes are more than this system can map", path,
                            (long long)facts.st_size);
    } else {
        void *bytes = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes == MAP_FAILED) {
            status = klaus_fail(error, KLAUS_E_MEMORY, "%.300s: %lld bytes cannot be mapped: %s", path,
                                (long long)facts.st_size, strerror(errno));
        } else {
            mapping->bytes = bytes;
            mapping->size = (size_t)facts.st_size;
        }
    }
    close(file);
    return status;
}

void klaus_os_unmap(klaus_mapping *mapping) {
    if (mapping->bytes != NULL) {
        munmap((void *)(uintptr_t)mapping->bytes, mapping->size);
    }
    mapping->bytes = NULL;
    mapping->size = 0;
}

void klaus_os_drop(const klaus_mapping *mapping, size_t offset, size_t bytes) {
    const size_t page = klaus_os_page_bytes(), begin = offset / page * page;
    madvise((void *)((uintptr_t)mapping->bytes + begin), offset + bytes - begin, MADV_DONTNEED); /* a hint: may fail */
}

int32_t klaus_os_cpu_count(void) {
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (int32_t)count;
}

size_t klaus_os_page_bytes(void) {
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes < 1 ? 4096 : (size_t)bytes;
}

void klaus_os_mark(int32_t tag) {
    /* 0x4b4c is no class of processes: the call fails at once and changes nothing, but a counter sees it. */
    (void)getpriority(0x4b4c, (id_t)tag);
}

klaus_status klaus_os_make_folder(const char *path, klaus_error *error) {
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.300s: the folder cannot be made: %s", path, strerror(errno));
    }
    return KLAUS_OK;
}
