/* CPU features on Apple's systems: sysctl names under hw.optional. */
#include "cpu.h"

#include <stddef.h>
#include <string.h>
#include <sys/types.h>

/* Declared here: all that is used of <sys/sysctl.h>. */
int sysctlbyname(const char *name, void *value, size_t *value_bytes, void *new_value, size_t new_value_bytes);

static bool has(const char *name) {
    int32_t value = 0;
    size_t bytes = sizeof value;
    return sysctlbyname(name, &value, &bytes, NULL, 0) == 0 && value != 0;
}

void klaus_os_cpu(klaus_cpu *cpu) {
    memset(cpu, 0, sizeof *cpu);
    cpu->neon = true; /* every arm64 Apple CPU */
    /* Before iOS 15 only the older names exist. */
    cpu->fp16 = has("hw.optional.arm.FEAT_FP16") || has("hw.optional.neon_fp16");
    cpu->dotprod = has("hw.optional.arm.FEAT_DotProd");
    cpu->i8mm = has("hw.optional.arm.FEAT_I8MM");
    cpu->midr = 0x61000000; /* the implementer is known, the part is not told to programs */
    klaus_cpu_name_core(cpu);
}
