/* CPU features on Linux: the kernel's auxiliary vector says what may be used. */
#include "cpu.h"

#include <stddef.h>
#include <string.h>
#if defined(__aarch64__) || defined(__arm__)
#include <sys/auxv.h>
#endif

#if defined(__aarch64__)
/* Bits of AT_HWCAP and AT_HWCAP2, from the kernel's arm64 ABI (Documentation/arch/arm64/elf_hwcaps.rst). */
#define HWCAP_ASIMD_BIT (1UL << 1)
#define HWCAP_ASIMDHP_BIT (1UL << 10)
#define HWCAP_CPUID_BIT (1UL << 11)
#define HWCAP_ASIMDDP_BIT (1UL << 20)
#define HWCAP2_I8MM_BIT (1UL << 13)
#elif defined(__arm__)
#define HWCAP_NEON_BIT (1UL << 12)
#define HWCAP_VFPV4_BIT (1UL << 16)
#endif

void klaus_os_cpu(klaus_cpu *cpu) {
    memset(cpu, 0, sizeof *cpu);
#if defined(__aarch64__)
    const unsigned long capabilities = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
    cpu->neon = (capabilities & HWCAP_ASIMD_BIT) != 0;
    cpu->fp16 = (capabilities & HWCAP_ASIMDHP_BIT) != 0;
    cpu->dotprod = (capabilities & HWCAP_ASIMDDP_BIT) != 0;
    cpu->i8mm = (more & HWCAP2_I8MM_BIT) != 0;
    if (capabilities & HWCAP_CPUID_BIT) { /* the kernel answers the trapped read; without the bit it is a SIGILL */
        uint64_t midr;
        __asm__ volatile("mrs %0, midr_el1" : "=r"(midr));
        cpu->midr = (uint32_t)midr;
    }
#elif defined(__arm__)
    const unsigned long capabilities = getauxval(AT_HWCAP);
    /* *_neon.c is compiled for NEON with VFPv4 (Cortex-A7 and later). */
    cpu->neon = (capabilities & HWCAP_NEON_BIT) != 0 && (capabilities & HWCAP_VFPV4_BIT) != 0;
#endif
    klaus_cpu_name_core(cpu);
}
