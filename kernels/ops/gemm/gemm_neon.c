/* 4 x 8 for 16 vector registers: 8 sums, 4 registers of inputs, 2 of weights. */
#include "ops/gemm/gemm_tile_neon.h"

static void tile_1x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 1, 1);
}

static void tile_2x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 2, 1);
}

static void tile_3x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 3, 1);
}

static void tile_4x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 4, 1);
}

static void tile_1x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 1, 2);
}

static void tile_2x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 2, 2);
}

static void tile_3x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 3, 2);
}

static void tile_4x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 4, 2);
}

static void run(const klaus_gemm_tile *tile) {
    static void (*const tiles[2][4])(const klaus_gemm_tile *) = {
        {tile_1x4, tile_2x4, tile_3x4, tile_4x4},
        {tile_1x8, tile_2x8, tile_3x8, tile_4x8},
    };
    tiles[tile->width / 4 - 1][tile->rows - 1](tile);
}

const klaus_gemm_kernel klaus_gemm_f32_neon_4x8 = {.rows = 4, .width = 8, .run = run};
