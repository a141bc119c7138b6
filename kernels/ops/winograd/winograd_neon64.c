/* Winograd's convolution for 32 vector registers: eight tiles times twelve channels, 24 sums. Whole
 * blocks have code of their own, the rest a body in C. */
#include "ops/layouts.h"
#include "ops/winograd/winograd_tile_neon.h"
#include "ops/winograd/winograd_whole_neon64.h"

static void multiply_1x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 1, 1, 8);
}

static void multiply_2x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 2, 1, 8);
}

static void multiply_3x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 3, 1, 8);
}

static void multiply_4x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 4, 1, 8);
}

static void multiply_5x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 5, 1, 8);
}

static void multiply_6x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 6, 1, 8);
}

static void multiply_7x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 7, 1, 8);
}

static void multiply_8x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 8, 1, 8);
}

static void multiply_1x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 1, 2, 8);
}

static void multiply_2x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 2, 2, 8);
}

static void multiply_3x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 3, 2, 8);
}

static void multiply_4x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 4, 2, 8);
}

static void multiply_5x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 5, 2, 8);
}

static void multiply_6x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 6, 2, 8);
}

static void multiply_7x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 7, 2, 8);
}

static void multiply_1x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 1, 3, 8);
}

static void multiply_2x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 2, 3, 8);
}

static void multiply_3x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 3, 3, 8);
}

static void multiply_4x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 4, 3, 8);
}

static void multiply_5x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 5, 3, 8);
}

static void multiply_6x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 6, 3, 8);
}

static void multiply_7x12(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 7, 3, 8);
}

static void multiply(const klaus_winograd_product *product) {
    static void (*const all[3][8])(const klaus_winograd_product *) = {
        {multiply_1x4, multiply_2x4, multiply_3x4, multiply_4x4, multiply_5x4, multiply_6x4, multiply_7x4,
         multiply_8x4},
        {multiply_1x8, multiply_2x8, multiply_3x8, multiply_4x8, multiply_5x8, multiply_6x8, multiply_7x8,
         klaus_winograd_multiply_8x8},
        {multiply_1x12, multiply_2x12, multiply_3x12, multiply_4x12, multiply_5x12, multiply_6x12, multiply_7x12,
         klaus_winograd_multiply_8x12},
    };
    all[product->width / 4 - 1][product->tiles - 1](product);
}

static const klaus_winograd_kernel kernel = {.tiles = 8, .width = 12, .multiply = multiply};

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_winograd_pack(shape, weights, packed, kernel.width);
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_winograd_scratch_bytes(shape, parts, &kernel);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    klaus_winograd_run(call, phase, part, parts, &kernel);
}

const klaus_variant klaus_winograd_f32_neon_8x12 = {
    .name = "klaus_winograd_f32_neon_8x12",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_WINOGRAD_F32_PANELS_12,
    .spreads = KLAUS_WINOGRAD_MOST_TILE - 1,
    .phases = KLAUS_WINOGRAD_PHASES,
    .can = klaus_winograd_can,
    .packed_bytes = klaus_winograd_packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
