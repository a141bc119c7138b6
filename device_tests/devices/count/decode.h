/* What class an A64 instruction belongs to, and which memory it touches. No state, no dependencies. */
#ifndef KLAUS_COUNT_DECODE_H
#define KLAUS_COUNT_DECODE_H
#include <stdint.h>

/* One class an instruction; counting.py checks its own list against klaus_count_names. */
typedef enum klaus_class {
    CLASS_FMLA32,   /* vector multiply-add, float32 */
    CLASS_FMLA16,   /* ..., float16 */
    CLASS_FMLAL,    /* ..., half or bfloat products added to float32 */
    CLASS_FMADD,    /* multiply-add of one number */
    CLASS_DOT,      /* sdot, udot, usdot, bfdot */
    CLASS_MMLA,     /* smmla, ummla, usmmla, bfmmla */
    CLASS_IMAC,     /* integer mla, mlal, mull */
    CLASS_VECTOR,   /* every other vector arithmetic, float64's included */
    CLASS_PERMUTE,  /* vectors put together anew or filled: tbl, zip, ext, dup, ins, umov, movi */
    CLASS_SCALAR,   /* arithmetic on one floating-point number, conversions, fmov */
    CLASS_VLOAD,    /* to vector registers */
    CLASS_VSTORE,   /* from them */
    CLASS_GLOAD,    /* to general registers, atomics included */
    CLASS_GSTORE,   /* from them */
    CLASS_PREFETCH, /* prfm */
    CLASS_BRANCH,
    CLASS_ALU,   /* arithmetic on general registers */
    CLASS_SVE,   /* SVE and SME, whatever they do */
    CLASS_OTHER, /* system */
    CLASS_COUNT
} klaus_class;

extern const char *const klaus_class_names[CLASS_COUNT];

typedef struct klaus_decoded {
    klaus_class class;
    uint32_t bytes; /* of memory read or written; 0 for what touches none */
} klaus_decoded;

/* `word` as it stands in memory, little-endian read. Unallocated words belong to some class near them. */
klaus_decoded klaus_decode(uint32_t word);

#endif
