#include <mach/mach.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "os/os.h"

/* Declared here: the iOS SDK has no <libproc.h>, and a system without the function must still start the program. */
int proc_pid_rusage(int process, int flavor, rusage_info_t *info) __attribute__((weak_import));

void klaus_os_memory(klaus_memory_figures *figures) {
    memset(figures, 0, sizeof(*figures));
    uint64_t total = 0;
    size_t size = sizeof(total);
    if (sysctlbyname("hw.memsize", &total, &size, NULL, 0) == 0) {
        figures->total_bytes = total;
    }
    struct mach_task_basic_info task;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&task, &count) == KERN_SUCCESS) {
        figures->resident_bytes = task.resident_size;
        figures->peak_resident_bytes = task.resident_size_max;
    }
}

void klaus_os_count(klaus_counters *counters) {
    counters->instructions = counters->cycles = -1; /* the system counts every process anyway */
}

void klaus_os_count_end(klaus_counters *counters) {
    (void)counters;
}

bool klaus_os_executed(const klaus_counters *counters, klaus_executed *executed) {
    (void)counters;
    struct rusage_info_v4 told; /* flavor 4 is the first that counts; systems before it refuse it */
    memset(&told, 0, sizeof(told));
    *executed = (klaus_executed){0, 0};
    if (proc_pid_rusage == NULL || proc_pid_rusage(getpid(), RUSAGE_INFO_V4, (rusage_info_t *)&told) != 0) {
        return false;
    }
    executed->instructions = told.ri_instructions;
    executed->cycles = told.ri_cycles;
    return executed->instructions > 0;
}

const char *klaus_os_counters_name(void) {
    return "proc_pid_rusage";
}

uint64_t klaus_os_anonymous_bytes(void) {
    task_vm_info_data_t task;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&task, &count) != KERN_SUCCESS) {
        return 0;
    }
    return task.internal;
}

const char *klaus_os_target(void) {
#if defined(__ENVIRONMENT_IPHONE_OS_VERSION_MIN_REQUIRED__)
    return "ios";
#else
    return "host";
#endif
}

const char *klaus_os_arch(void) {
#if defined(__aarch64__)
    return "aarch64";
#else
    return "x86_64";
#endif
}
