#include "cpu.h"

#include <stddef.h>

struct core_name {
    uint32_t implementer, part, core_class;
    const char *name;
};

/* Part numbers as Arm's technical reference manuals print them. */
static const struct core_name core_names[] = {
    {0x41, 0xc05, KLAUS_CORE_IN_ORDER, "cortex-a5"},       {0x41, 0xc07, KLAUS_CORE_IN_ORDER, "cortex-a7"},
    {0x41, 0xc08, KLAUS_CORE_IN_ORDER, "cortex-a8"},       {0x41, 0xc09, KLAUS_CORE_OUT_OF_ORDER, "cortex-a9"},
    {0x41, 0xc0f, KLAUS_CORE_OUT_OF_ORDER, "cortex-a15"},  {0x41, 0xc0e, KLAUS_CORE_OUT_OF_ORDER, "cortex-a17"},
    {0x41, 0xd01, KLAUS_CORE_IN_ORDER, "cortex-a32"},      {0x41, 0xd03, KLAUS_CORE_IN_ORDER, "cortex-a53"},
    {0x41, 0xd04, KLAUS_CORE_IN_ORDER, "cortex-a35"},      {0x41, 0xd05, KLAUS_CORE_IN_ORDER, "cortex-a55"},
    {0x41, 0xd07, KLAUS_CORE_OUT_OF_ORDER, "cortex-a57"},  {0x41, 0xd08, KLAUS_CORE_OUT_OF_ORDER, "cortex-a72"},
    {0x41, 0xd09, KLAUS_CORE_OUT_OF_ORDER, "cortex-a73"},  {0x41, 0xd0a, KLAUS_CORE_OUT_OF_ORDER, "cortex-a75"},
    {0x41, 0xd0b, KLAUS_CORE_OUT_OF_ORDER, "cortex-a76"},  {0x41, 0xd0c, KLAUS_CORE_OUT_OF_ORDER, "neoverse-n1"},
    {0x41, 0xd0d, KLAUS_CORE_OUT_OF_ORDER, "cortex-a77"},  {0x41, 0xd40, KLAUS_CORE_OUT_OF_ORDER, "neoverse-v1"},
    {0x41, 0xd41, KLAUS_CORE_OUT_OF_ORDER, "cortex-a78"},  {0x41, 0xd44, KLAUS_CORE_OUT_OF_ORDER, "cortex-x1"},
    {0x41, 0xd46, KLAUS_CORE_IN_ORDER, "cortex-a510"},     {0x41, 0xd47, KLAUS_CORE_OUT_OF_ORDER, "cortex-a710"},
    {0x41, 0xd48, KLAUS_CORE_OUT_OF_ORDER, "cortex-x2"},   {0x41, 0xd49, KLAUS_CORE_OUT_OF_ORDER, "neoverse-n2"},
    {0x41, 0xd4d, KLAUS_CORE_OUT_OF_ORDER, "cortex-a715"}, {0x41, 0xd4e, KLAUS_CORE_OUT_OF_ORDER, "cortex-x3"},
    {0x41, 0xd80, KLAUS_CORE_IN_ORDER, "cortex-a520"},     {0x41, 0xd81, KLAUS_CORE_OUT_OF_ORDER, "cortex-a720"},
};

void klaus_cpu_name_core(klaus_cpu *cpu) {
    const uint32_t implementer = cpu->midr >> 24, part = (cpu->midr >> 4) & 0xfff;
    cpu->core = "unknown";
    cpu->core_class = KLAUS_CORE_ANY;
    for (size_t i = 0; i < sizeof core_names / sizeof core_names[0]; i++)
        if (core_names[i].implementer == implementer && core_names[i].part == part) {
            cpu->core = core_names[i].name;
            cpu->core_class = core_names[i].core_class;
        }
    if (implementer == 0x61) { /* Apple: every core since the A6 works out of order */
        cpu->core = "apple";
        cpu->core_class = KLAUS_CORE_OUT_OF_ORDER;
    }
}

bool klaus_cpu_has(const klaus_cpu *cpu, klaus_isa isa) {
    switch (isa) {
    case KLAUS_ISA_AUTO:
    case KLAUS_ISA_REF:
        return true;
    case KLAUS_ISA_NEON:
        return cpu->neon;
    case KLAUS_ISA_NEON_FP16:
        return cpu->fp16;
    case KLAUS_ISA_NEON_DOTPROD:
        return cpu->dotprod;
    case KLAUS_ISA_NEON_I8MM:
        return cpu->i8mm;
    }
    return false;
}

const klaus_cpu *klaus_cpu_here(void) {
    static klaus_cpu here;
    if (here.core == NULL)
        klaus_os_cpu(&here);
    return &here;
}

const char *klaus_core_class_name(uint32_t core_class) {
    switch (core_class) {
    case KLAUS_CORE_IN_ORDER:
        return "in-order";
    case KLAUS_CORE_OUT_OF_ORDER:
        return "out-of-order";
    default:
        return "any";
    }
}
