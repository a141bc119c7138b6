#include "ops/dot/dot.h"

const char *os_name(void) {
    return "apple";
}
