/* The encodings are those of the Arm Architecture Reference Manual for A-profile, DDI 0487, section C4.1 "A64
 * instruction set encoding". A word belongs to the first rule that it fits. */
#include "decode.h"

#include <stddef.h>

const char *const klaus_class_names[CLASS_COUNT] = {
    "fmla32", "fmla16", "fmlal", "fmadd",  "dot",      "mmla",   "imac", "vector", "permute", "scalar",
    "vload",  "vstore", "gload", "gstore", "prefetch", "branch", "alu",  "sve",    "other"};

/* How the bytes of a load or store follow from its fields. */
typedef enum extent {
    NO_MEMORY,
    WHOLE_REGISTERS, /* ld1 .. ld4, st1 .. st4 */
    ONE_LANE,        /* ... of one element, and ld1r .. ld4r */
    VECTOR_PAIR,     /* ldp, stp of s, d or q registers */
    GENERAL_PAIR,    /* ... of w or x registers */
    VECTOR_LITERAL,
    GENERAL_LITERAL,
    VECTOR_SINGLE, /* ldr, str of b .. q */
    GENERAL_SINGLE,
    EXCLUSIVE_PAIR
} extent;

/* Where bit 22 says whether it is a load or a store. */
enum { VECTOR_ACCESS = CLASS_COUNT, GENERAL_ACCESS };

typedef struct rule {
    uint32_t mask, value;
    int class; /* klaus_class, VECTOR_ACCESS or GENERAL_ACCESS */
    extent extent;
} rule;

/* clang-format off */
static const rule loads_and_stores[] = {
    /* Advanced SIMD structures: multiple, post-indexed multiple; single, post-indexed single */
    {0xBFBF0000, 0x0C000000, VECTOR_ACCESS,  WHOLE_REGISTERS},
    {0xBFA00000, 0x0C800000, VECTOR_ACCESS,  WHOLE_REGISTERS},
    {0xBF9F0000, 0x0D000000, VECTOR_ACCESS,  ONE_LANE},
    {0xBF800000, 0x0D800000, VECTOR_ACCESS,  ONE_LANE},
    /* pairs, whatever the address */
    {0x3E000000, 0x2C000000, VECTOR_ACCESS,  VECTOR_PAIR},
    {0x3E000000, 0x28000000, GENERAL_ACCESS, GENERAL_PAIR},
    /* prefetches: literal, scaled, unscaled, by register */
    {0xFF000000, 0xD8000000, CLASS_PREFETCH, NO_MEMORY},
    {0xFFC00000, 0xF9800000, CLASS_PREFETCH, NO_MEMORY},
    {0xFFE00C00, 0xF8800000, CLASS_PREFETCH, NO_MEMORY},
    {0xFFE00C00, 0xF8A00800, CLASS_PREFETCH, NO_MEMORY},
    /* literals: always loads */
    {0x3F000000, 0x1C000000, CLASS_VLOAD,    VECTOR_LITERAL},
    {0x3F000000, 0x18000000, CLASS_GLOAD,    GENERAL_LITERAL},
    /* atomics read and write, and count as loads; then loads with pointer authentication */
    {0x3F200C00, 0x38200000, CLASS_GLOAD,    GENERAL_SINGLE},
    {0xFF200400, 0xF8200400, CLASS_GLOAD,    GENERAL_SINGLE},
    /* one register, whatever the address */
    {0x3E000000, 0x3C000000, VECTOR_ACCESS,  VECTOR_SINGLE},
    {0x3EC00000, 0x38000000, CLASS_GSTORE,   GENERAL_SINGLE},
    {0x3E000000, 0x38000000, CLASS_GLOAD,    GENERAL_SINGLE},
    /* exclusive pairs; other exclusive, acquire, release, compare and swap; ldapur, stlur */
    {0xBFA00000, 0x88200000, GENERAL_ACCESS, EXCLUSIVE_PAIR},
    {0x3F000000, 0x08000000, GENERAL_ACCESS, GENERAL_SINGLE},
    {0x3FE00C00, 0x19000000, CLASS_GSTORE,   GENERAL_SINGLE},
    {0x3F200C00, 0x19000000, CLASS_GLOAD,    GENERAL_SINGLE},
    {0, 0, CLASS_OTHER, NO_MEMORY},
};

static const rule branches_and_system[] = {
    {0x7C000000, 0x14000000, CLASS_BRANCH, NO_MEMORY}, /* b, bl */
    {0xFF000000, 0x54000000, CLASS_BRANCH, NO_MEMORY}, /* b.cond */
    {0x7C000000, 0x34000000, CLASS_BRANCH, NO_MEMORY}, /* cbz, cbnz, tbz, tbnz */
    {0xFE000000, 0xD6000000, CLASS_BRANCH, NO_MEMORY}, /* br, blr, ret */
    {0, 0, CLASS_OTHER, NO_MEMORY},
};

static const rule vector_arithmetic[] = {
    /* one number at a time: fmadd and its kin, fmla by element of a scalar */
    {0xFF000000, 0x1F000000, CLASS_FMADD,   NO_MEMORY},
    {0xFF80B400, 0x5F801000, CLASS_FMADD,   NO_MEMORY},
    {0xFFC0B400, 0x5F001000, CLASS_FMADD,   NO_MEMORY},
    {0x7F000000, 0x1E000000, CLASS_SCALAR,  NO_MEMORY}, /* fadd, fcmp, fcvt, fmov, scvtf ... */
    {0xDF20C400, 0x5E20C400, CLASS_SCALAR,  NO_MEMORY}, /* three of the same, scalar: fmulx, fabd ... */
    {0xDF3F0C00, 0x5E210800, CLASS_SCALAR,  NO_MEMORY}, /* two registers, scalar: scvtf, fcvtzs ... */
    {0xFFE08400, 0x5E000400, CLASS_PERMUTE, NO_MEMORY}, /* dup, scalar */

    /* fmla, fmls: three vectors; by element */
    {0xBF60FC00, 0x0E20CC00, CLASS_FMLA32,  NO_MEMORY},
    {0xBFC0B400, 0x0F801000, CLASS_FMLA32,  NO_MEMORY},
    {0xBF60FC00, 0x0E400C00, CLASS_FMLA16,  NO_MEMORY},
    {0xBFC0B400, 0x0F001000, CLASS_FMLA16,  NO_MEMORY},
    /* fmlal, fmlsl, fmlal2, fmlsl2, each by vector and by element; bfmlalb, bfmlalt */
    {0xBF60FC00, 0x0E20EC00, CLASS_FMLAL,   NO_MEMORY},
    {0xBF60FC00, 0x2E20CC00, CLASS_FMLAL,   NO_MEMORY},
    {0xBFC0B400, 0x0F800000, CLASS_FMLAL,   NO_MEMORY},
    {0xBFC0B400, 0x2F808000, CLASS_FMLAL,   NO_MEMORY},
    {0xBFE0FC00, 0x2EC0FC00, CLASS_FMLAL,   NO_MEMORY},
    {0xBFC0F400, 0x0FC0F000, CLASS_FMLAL,   NO_MEMORY},

    /* sdot, udot; usdot; bfdot; the same by element, sudot too */
    {0x9FE0FC00, 0x0E809400, CLASS_DOT,     NO_MEMORY},
    {0xBFE0FC00, 0x0E809C00, CLASS_DOT,     NO_MEMORY},
    {0xBFE0FC00, 0x2E40FC00, CLASS_DOT,     NO_MEMORY},
    {0x9FC0F400, 0x0F80E000, CLASS_DOT,     NO_MEMORY},
    {0xBF40F400, 0x0F00F000, CLASS_DOT,     NO_MEMORY},
    {0xBFC0F400, 0x0F40F000, CLASS_DOT,     NO_MEMORY},
    /* smmla, ummla; usmmla; bfmmla */
    {0xDFE0FC00, 0x4E80A400, CLASS_MMLA,    NO_MEMORY},
    {0xFFE0FC00, 0x4E80AC00, CLASS_MMLA,    NO_MEMORY},
    {0xFFE0FC00, 0x6E40EC00, CLASS_MMLA,    NO_MEMORY},

    /* mla, mls; smlal, smlsl and their unsigned and saturating kin; smull; sqrdmlah */
    {0x9F20FC00, 0x0E209400, CLASS_IMAC,    NO_MEMORY},
    {0x9F20CC00, 0x0E208000, CLASS_IMAC,    NO_MEMORY},
    {0x9F20EC00, 0x0E20C000, CLASS_IMAC,    NO_MEMORY},
    {0xBF20F400, 0x2E008400, CLASS_IMAC,    NO_MEMORY},
    /* by element: mla, mls; smlal, smlsl; sqdmlal, sqdmlsl; smull, sqdmull; sqrdmlah, sqrdmlsh */
    {0xBF00B400, 0x2F000000, CLASS_IMAC,    NO_MEMORY},
    {0x9F00B400, 0x0F002000, CLASS_IMAC,    NO_MEMORY},
    {0xBF00B400, 0x0F003000, CLASS_IMAC,    NO_MEMORY},
    {0x9F00E400, 0x0F00A000, CLASS_IMAC,    NO_MEMORY},
    {0xBF00D400, 0x2F00D000, CLASS_IMAC,    NO_MEMORY},

    {0xBF208C00, 0x0E000000, CLASS_PERMUTE, NO_MEMORY}, /* tbl, tbx */
    {0xBF208C00, 0x0E000800, CLASS_PERMUTE, NO_MEMORY}, /* zip, uzp, trn */
    {0xBFE08400, 0x2E000000, CLASS_PERMUTE, NO_MEMORY}, /* ext */
    {0x9FE08400, 0x0E000400, CLASS_PERMUTE, NO_MEMORY}, /* dup, ins, smov, umov */
    {0x9FF80400, 0x0F000400, CLASS_PERMUTE, NO_MEMORY}, /* movi, mvni, fmov of a constant */
    {0x9F3FEC00, 0x0E200800, CLASS_PERMUTE, NO_MEMORY}, /* rev64, rev32, rev16 */

    {0, 0, CLASS_VECTOR, NO_MEMORY},
};
/* clang-format on */

static const rule *find(const rule *rules, uint32_t word) {
    while ((word & rules->mask) != rules->value) {
        rules++;
    }
    return rules;
}

static uint32_t bits(uint32_t word, uint32_t low, uint32_t count) {
    return word >> low & ((1u << count) - 1);
}

static uint32_t lane_bytes(uint32_t word) {
    const uint32_t registers = 1 + (bits(word, 13, 1) << 1 | bits(word, 21, 1));
    const uint32_t scale = bits(word, 14, 2);
    const uint32_t size = bits(word, 10, 2);
    const uint32_t element = scale == 3 ? 1u << size : scale == 2 && size == 1 ? 8 : 1u << scale;
    return registers * element;
}

static uint32_t bytes_of(extent extent, uint32_t word) {
    /* Registers of ld1 .. ld4 by their opcode: ld4, ld1 of 4, ld3, ld1 of 3, ld1 of 1, ld2, ld1 of 2. */
    static const uint8_t registers[16] = {4, 0, 4, 0, 3, 0, 3, 1, 2, 0, 2, 0, 0, 0, 0, 0};
    const uint32_t size = bits(word, 30, 2);
    switch (extent) {
    case NO_MEMORY:
        return 0;
    case WHOLE_REGISTERS:
        return registers[bits(word, 12, 4)] * (bits(word, 30, 1) ? 16u : 8u);
    case ONE_LANE:
        return lane_bytes(word);
    case VECTOR_PAIR:
        return 2 * (4u << size);
    case GENERAL_PAIR:
        return 2 * (size == 2 ? 8u : 4u);
    case VECTOR_LITERAL:
        return 4u << size;
    case GENERAL_LITERAL:
        return size == 1 ? 8 : 4;
    case VECTOR_SINGLE:
        return 1u << (size | bits(word, 23, 1) << 2);
    case GENERAL_SINGLE:
        return 1u << size;
    case EXCLUSIVE_PAIR:
        return 2 * (size == 3 ? 8u : 4u);
    }
    return 0;
}

/* Where SVE and general arithmetic begin and end is all that is asked of them. */
static klaus_class class_of_group(uint32_t group, uint32_t word) {
    if (group == 2) {
        return CLASS_SVE;
    }
    if (group == 0) {
        return bits(word, 31, 1) ? CLASS_SVE : CLASS_OTHER; /* SME, reserved */
    }
    return CLASS_ALU;
}

klaus_decoded klaus_decode(uint32_t word) {
    const uint32_t group = bits(word, 25, 4); /* op1 of the manual's first table */
    const rule *rules = NULL;
    if ((group & 5) == 4) {
        rules = loads_and_stores;
    } else if ((group & 7) == 7) {
        rules = vector_arithmetic;
    } else if ((group & 14) == 10) {
        rules = branches_and_system;
    }
    if (rules == NULL) {
        return (klaus_decoded){class_of_group(group, word), 0};
    }
    const rule *found = find(rules, word);
    const uint32_t loads = bits(word, 22, 1);
    int class = found->class;
    if (class == VECTOR_ACCESS) {
        class = loads ? CLASS_VLOAD : CLASS_VSTORE;
    } else if (class == GENERAL_ACCESS) {
        class = loads ? CLASS_GLOAD : CLASS_GSTORE;
    }
    return (klaus_decoded){(klaus_class)class, bytes_of(found->extent, word)};
}
