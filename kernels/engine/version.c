#include "klaus/klaus.h"

const char *klaus_version(void) {
    return "0.1.0";
}

const char *klaus_isa_name(klaus_isa isa) {
    switch (isa) {
    case KLAUS_ISA_AUTO:
        return "auto";
    case KLAUS_ISA_REF:
        return "ref";
    case KLAUS_ISA_NEON:
        return "neon";
    case KLAUS_ISA_NEON_FP16:
        return "neon_fp16";
    case KLAUS_ISA_NEON_DOTPROD:
        return "neon_dotprod";
    case KLAUS_ISA_NEON_I8MM:
        return "neon_i8mm";
    }
    return "?";
}
