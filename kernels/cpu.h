/* What the CPU at hand is and can do, and which kernels this build contains.
 *
 * With kernels/ops/neon.h the only place outside os/ that asks the compiler which architecture it builds for. */
#ifndef KLAUS_CPU_H
#define KLAUS_CPU_H
#include <stdbool.h>
#include <stdint.h>

#include "klaus/klaus.h"

/* kernels.def names an architecture a line; KLAUS_WHEN_<arch>(text) is `text` where this build has it, else nothing.
 *   any    every target
 *   arm    aarch64 and armv7 with NEON: files *_neon.c
 *   arm64  aarch64 alone: files *_neon64.c, *_neon_fp16.c, *_neon_dotprod.c, *_neon_i8mm.c */
#define KLAUS_WHEN_any(text) text
#if defined(__aarch64__)
#define KLAUS_WHEN_arm(text) text
#define KLAUS_WHEN_arm64(text) text
#elif defined(__ARM_NEON)
#define KLAUS_WHEN_arm(text) text
#define KLAUS_WHEN_arm64(text)
#else
#define KLAUS_WHEN_arm(text)
#define KLAUS_WHEN_arm64(text)
#endif

/* In-order cores want loads spread between multiply-adds; out-of-order ones find the order themselves. */
enum klaus_core_class { KLAUS_CORE_ANY = 0, KLAUS_CORE_IN_ORDER = 1, KLAUS_CORE_OUT_OF_ORDER = 2 };

typedef struct klaus_cpu {
    bool neon, fp16, dotprod, i8mm; /* fp16: arithmetic on half-precision vectors, not only conversion */
    uint32_t midr;                  /* MIDR_EL1 of the core that asked; 0 = not readable */
    uint32_t core_class;            /* enum klaus_core_class; KLAUS_CORE_ANY = unknown */
    const char *core;               /* "cortex-a76", ...; "unknown" */
} klaus_cpu;

/* Fills *cpu from the operating system; kernels/os/cpu_<os>.c. Never fails: what cannot be told is absent. */
void klaus_os_cpu(klaus_cpu *cpu);

/* The CPU at hand, asked for once; later calls return the same. Call it once before threads start. */
const klaus_cpu *klaus_cpu_here(void);

bool klaus_cpu_has(const klaus_cpu *cpu, klaus_isa isa);

/* Sets `core` and `core_class` from `midr` (implementer in bits 31..24, part in bits 15..4). */
void klaus_cpu_name_core(klaus_cpu *cpu);

const char *klaus_core_class_name(uint32_t core_class);

#endif
