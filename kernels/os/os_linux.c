#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"

/* Reads a small file of /proc whole; "" where it cannot be read. */
static void read_text(const char *path, char *text, size_t capacity) {
    size_t length = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t got = 0;
        while (length + 1 < capacity && (got = read(file, text + length, capacity - 1 - length)) > 0) {
            length += (size_t)got;
        }
        close(file);
    }
    text[length] = '\0';
}

/* The number behind `key` at the start of a line, which /proc gives in kB; 0 where it is absent. */
static uint64_t kilobytes(const char *text, const char *key) {
    const size_t length = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0) {
            const long long value = strtoll(line + length, NULL, 10);
            return value < 0 ? 0 : (uint64_t)value * 1024;
        }
    }
    return 0;
}

void klaus_os_memory(klaus_memory_figures *figures) {
    char text[4096];
    read_text("/proc/meminfo", text, sizeof(text));
    figures->total_bytes = kilobytes(text, "MemTotal:");
    figures->available_bytes = kilobytes(text, "MemAvailable:");
    read_text("/proc/self/status", text, sizeof(text));
    figures->resident_bytes = kilobytes(text, "VmRSS:");
    figures->peak_resident_bytes = kilobytes(text, "VmHWM:");
}

const char *klaus_os_target(void) {
#if defined(__aarch64__)
    return "linux-aarch64";
#elif defined(__arm__)
    return "linux-armv7";
#else
    return "host";
#endif
}

const char *klaus_os_arch(void) {
#if defined(__aarch64__)
    return "aarch64";
#elif defined(__arm__)
    return "armv7";
#elif defined(__x86_64__)
    return "x86_64";
#else
    return "other";
#endif
}
