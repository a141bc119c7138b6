/* Which kernel variants exist, which this CPU can run, and which is best for a shape. */
#ifndef KLAUS_DISPATCH_H
#define KLAUS_DISPATCH_H
#include "cpu.h"
#include "ops/op.h"

typedef struct klaus_dispatch_options {
    klaus_isa isa;        /* highest instruction set to use; KLAUS_ISA_AUTO = all that the CPU has */
    const char *variant;  /* name of a variant to take wherever it can run, or NULL */
    const klaus_cpu *cpu; /* NULL = the CPU at hand */
    bool lean;            /* memory counts more than instructions */
} klaus_dispatch_options;

/* All variants of this build, in the order of kernels.def. */
int32_t klaus_dispatch_count(void);
const klaus_variant *klaus_dispatch_variant(int32_t index);
/* The variant of that name, or NULL. */
const klaus_variant *klaus_dispatch_find(const char *name);
/* The first `ref` variant of the op for activations of that dtype: what others are checked against. NULL if none. */
const klaus_variant *klaus_dispatch_oracle(uint32_t op, uint32_t dtype);
/* enum klaus_dtype of the activations, as its line in kernels.def names it. */
uint32_t klaus_dispatch_dtype(int32_t index);

bool klaus_dispatch_available(const klaus_variant *variant, const klaus_cpu *cpu);

/* The best variant that the CPU has, the options allow and can() do the shape; NULL if none (an unknown op, or a
 * combination of dtypes that nothing computes). A variant shaped for another class of core is taken only if forced. */
const klaus_variant *klaus_dispatch_choose(const klaus_shape *shape, const klaus_dispatch_options *options);

/* "conv", "full_connect", ...; "?" for a number outside enum klaus_op. */
const char *klaus_op_name(uint32_t op);

/* A variant's name as the columns of its line in kernels.def make it; index as in klaus_dispatch_variant(). */
void klaus_dispatch_spell(int32_t index, char *name, size_t name_bytes);

#endif
