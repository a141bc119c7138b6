#include "dispatch.h"

#include <stdio.h>
#include <string.h>

#define KLAUS_KERNEL(name, op, dtype, isa, arch, core, tile) KLAUS_WHEN_##arch(extern const klaus_variant name;)
#include "kernels.def"
#undef KLAUS_KERNEL

struct kernel_line {
    const klaus_variant *variant;
    const char *op, *dtype, *isa, *core, *tile;
};

#define KLAUS_KERNEL(name, op, dtype, isa, arch, core, tile)                                                           \
    KLAUS_WHEN_##arch({&name COMMA #op COMMA #dtype COMMA #isa COMMA #core COMMA #tile} COMMA)
#define COMMA ,
static const struct kernel_line kernel_lines[] = {
#include "kernels.def"
};
#undef KLAUS_KERNEL
#undef COMMA

#define KERNEL_COUNT ((int32_t)(sizeof kernel_lines / sizeof kernel_lines[0]))

int32_t klaus_dispatch_count(void) {
    return KERNEL_COUNT;
}

const klaus_variant *klaus_dispatch_variant(int32_t index) {
    return index >= 0 && index < KERNEL_COUNT ? kernel_lines[index].variant : NULL;
}

const klaus_variant *klaus_dispatch_find(const char *name) {
    for (int32_t i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(kernel_lines[i].variant->name, name) == 0)
            return kernel_lines[i].variant;
    return NULL;
}

uint32_t klaus_dispatch_dtype(int32_t index) {
    const char *dtype = kernel_lines[index].dtype;
    return strcmp(dtype, "i8") == 0 ? KLAUS_I8 : strcmp(dtype, "f16") == 0 ? KLAUS_F16 : KLAUS_F32;
}

const klaus_variant *klaus_dispatch_oracle(uint32_t op, uint32_t dtype) {
    for (int32_t i = 0; i < KERNEL_COUNT; i++) {
        const klaus_variant *variant = kernel_lines[i].variant;
        if (variant->op == op && variant->isa == KLAUS_ISA_REF && klaus_dispatch_dtype(i) == dtype)
            return variant;
    }
    return NULL;
}

bool klaus_dispatch_available(const klaus_variant *variant, const klaus_cpu *cpu) {
    return klaus_cpu_has(cpu, variant->isa);
}

const klaus_variant *klaus_dispatch_choose(const klaus_shape *shape, const klaus_dispatch_options *options) {
    const klaus_cpu *cpu = options->cpu != NULL ? options->cpu : klaus_cpu_here();
    const klaus_variant *best = NULL;
    for (int32_t i = 0; i < KERNEL_COUNT; i++) {
        const klaus_variant *variant = kernel_lines[i].variant;
        if (variant->op != shape->op || !klaus_dispatch_available(variant, cpu) || !variant->can(shape))
            continue;
        if (options->variant != NULL && strcmp(options->variant, variant->name) == 0)
            return variant;
        if (options->isa != KLAUS_ISA_AUTO && variant->isa > options->isa)
            continue;
        if (variant->lean != NULL && variant->lean(shape) && !options->lean)
            continue;
        /* An unknown core is taken for an out-of-order one: the newer, the likelier. */
        const uint32_t core = cpu->core_class != KLAUS_CORE_ANY ? cpu->core_class : KLAUS_CORE_OUT_OF_ORDER;
        if (variant->core != KLAUS_CORE_ANY && variant->core != core)
            continue;
        best = variant;
    }
    return best;
}

const char *klaus_op_name(uint32_t op) {
    switch (op) {
    case KLAUS_OP_CONV:
        return "conv";
    case KLAUS_OP_FULL_CONNECT:
        return "full_connect";
    case KLAUS_OP_MAX_POOL:
        return "max_pool";
    case KLAUS_OP_AVERAGE_POOL:
        return "average_pool";
    case KLAUS_OP_GLOBAL_POOL:
        return "global_pool";
    case KLAUS_OP_LRN:
        return "lrn";
    case KLAUS_OP_ADD:
        return "add";
    case KLAUS_OP_CONCAT:
        return "concat";
    case KLAUS_OP_SLICE:
        return "slice";
    case KLAUS_OP_SOFTMAX:
        return "softmax";
    case KLAUS_OP_ACTIVATION:
        return "activation";
    case KLAUS_OP_CAST:
        return "cast";
    default:
        return "?";
    }
}

void klaus_dispatch_spell(int32_t index, char *name, size_t name_bytes) {
    const struct kernel_line *line = &kernel_lines[index];
    const bool any_core = strcmp(line->core, "any") == 0, no_tile = strcmp(line->tile, "none") == 0;
    snprintf(name, name_bytes, "klaus_%s_%s_%s%s%s%s%s", line->op, line->dtype, line->isa, any_core ? "" : "_",
             any_core ? "" : line->core, no_tile ? "" : "_", no_tile ? "" : line->tile);
}
