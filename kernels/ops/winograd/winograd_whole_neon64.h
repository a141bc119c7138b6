/* The multiplies of whole blocks of eight tiles on aarch64. */
#ifndef KLAUS_OPS_WINOGRAD_WHOLE_NEON64_H
#define KLAUS_OPS_WINOGRAD_WHOLE_NEON64_H
#include "ops/winograd/winograd.h"

void klaus_winograd_multiply_8x12(const klaus_winograd_product *product);
void klaus_winograd_multiply_8x8(const klaus_winograd_product *product);

#endif
