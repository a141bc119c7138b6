#include <mach/mach.h>
#include <stddef.h>
#include <string.h>
#include <sys/sysctl.h>

#include "os/os.h"

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
