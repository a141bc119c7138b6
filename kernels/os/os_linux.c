#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

/* A counter of this thread and its threads to come; -1 where the kernel has none for us (no PMU, as in most emulators;
 * /proc/sys/kernel/perf_event_paranoid above 2; a sandbox). User mode only: that needs the least permission, and what
 * an interrupt executes is not ours. */
static int open_counter(uint64_t event) {
    struct perf_event_attr wanted;
    memset(&wanted, 0, sizeof(wanted));
    wanted.type = PERF_TYPE_HARDWARE;
    wanted.size = sizeof(wanted);
    wanted.config = event;
    wanted.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
    wanted.inherit = 1;
    wanted.exclude_kernel = 1;
    wanted.exclude_hv = 1;
    return (int)syscall(SYS_perf_event_open, &wanted, 0, -1, -1, (unsigned long)PERF_FLAG_FD_CLOEXEC);
}

void klaus_os_count(klaus_counters *counters) {
    counters->instructions = open_counter(PERF_COUNT_HW_INSTRUCTIONS);
    counters->cycles = open_counter(PERF_COUNT_HW_CPU_CYCLES);
}

void klaus_os_count_end(klaus_counters *counters) {
    if (counters->instructions >= 0) {
        close(counters->instructions);
    }
    if (counters->cycles >= 0) {
        close(counters->cycles);
    }
    counters->instructions = counters->cycles = -1;
}

/* 0 where the counter did not run all the time: others used it too, or the thread was on a core that it does not belong
 * to (big.LITTLE). What the kernel would make of that is an estimate, no count. */
static uint64_t read_counter(int file) {
    struct {
        uint64_t value, enabled_ns, running_ns;
    } told;
    if (file < 0 || read(file, &told, sizeof(told)) != (ssize_t)sizeof(told) || told.running_ns != told.enabled_ns) {
        return 0;
    }
    return told.value;
}

bool klaus_os_executed(const klaus_counters *counters, klaus_executed *executed) {
    executed->instructions = read_counter(counters->instructions);
    executed->cycles = read_counter(counters->cycles);
    return executed->instructions > 0;
}

const char *klaus_os_counters_name(void) {
    return "perf_event";
}

uint64_t klaus_os_anonymous_bytes(void) {
    char text[4096];
    /* Exact, but only since Linux 4.14; the other is what the kernel's counters say, up to 256 kB wrong a thread. */
    read_text("/proc/self/smaps_rollup", text, sizeof(text));
    const uint64_t bytes = kilobytes(text, "Anonymous:");
    if (bytes != 0) {
        return bytes;
    }
    read_text("/proc/self/status", text, sizeof(text));
    return kilobytes(text, "RssAnon:");
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
