/* The CPU of a build with SIMDe: NEON is there, as far as C goes. In place of os/cpu_linux.c. */
#include "cpu.h"

#include <string.h>

void klaus_os_cpu(klaus_cpu *cpu) {
    memset(cpu, 0, sizeof *cpu);
    cpu->neon = true;
    klaus_cpu_name_core(cpu);
}
