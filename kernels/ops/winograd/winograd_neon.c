/* Winograd's convolution for 16 vector registers: four tiles times eight channels. */
#include "ops/layouts.h"
#include "ops/winograd/winograd_tile_neon.h"

static void multiply_1x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 1, 1, 4);
}

static void multiply_2x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 2, 1, 4);
}

static void multiply_3x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 3, 1, 4);
}

static void multiply_4x4(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 4, 1, 4);
}

static void multiply_1x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 1, 2, 4);
}

static void multiply_2x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 2, 2, 4);
}

static void multiply_3x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 3, 2, 4);
}

static void multiply_4x8(const klaus_winograd_product *product) {
    klaus_winograd_multiply_body(product, 4, 2, 4);
}

static void multiply(const klaus_winograd_product *product) {
    static void (*const all[2][4])(const klaus_winograd_product *) = {
        {multiply_1x4, multiply_2x4, multiply_3x4, multiply_4x4},
        {multiply_1x8, multiply_2x8, multiply_3x8, multiply_4x8},
    };
    all[product->width / 4 - 1][product->tiles - 1](product);
}

static const klaus_winograd_kernel kernel = {.tiles = 4, .width = 8, .multiply = multiply};

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_winograd_pack(shape, weights, packed, kernel.width);
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_winograd_scratch_bytes(shape, parts, &kernel);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    klaus_winograd_run(call, phase, part, parts, &kernel);
}

const klaus_variant klaus_winograd_f32_neon_4x8 = {
    .name = "klaus_winograd_f32_neon_4x8",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_WINOGRAD_F32_PANELS_8,
    .spreads = KLAUS_WINOGRAD_MOST_TILE - 1,
    .phases = KLAUS_WINOGRAD_PHASES,
    .can = klaus_winograd_can,
    .packed_bytes = klaus_winograd_packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
