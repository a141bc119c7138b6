/* 7 x 12 for 32 vector registers: 21 sums, 7 registers of inputs, 3 of weights. Four steps of depth take 7 + 12 loads
 * for 84 multiply-adds. Seven divides the maps of networks made for 224 pixels (112, 56, 28, 14, 7), and 13 * 13 and
 * 27 * 27 leave one row over. */
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

static void tile_5x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 5, 1);
}

static void tile_6x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 6, 1);
}

static void tile_7x4(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 7, 1);
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

static void tile_5x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 5, 2);
}

static void tile_6x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 6, 2);
}

static void tile_7x8(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 7, 2);
}

static void tile_1x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 1, 3);
}

static void tile_2x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 2, 3);
}

static void tile_3x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 3, 3);
}

static void tile_4x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 4, 3);
}

static void tile_5x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 5, 3);
}

static void tile_6x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 6, 3);
}

static void tile_7x12(const klaus_gemm_tile *tile) {
    klaus_gemm_tile_body(tile, 7, 3);
}

static void run(const klaus_gemm_tile *tile) {
    static void (*const tiles[3][7])(const klaus_gemm_tile *) = {
        {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4, tile_7x4},
        {tile_1x8, tile_2x8, tile_3x8, tile_4x8, tile_5x8, tile_6x8, tile_7x8},
        {tile_1x12, tile_2x12, tile_3x12, tile_4x12, tile_5x12, tile_6x12, tile_7x12},
    };
    tiles[tile->width / 4 - 1][tile->rows - 1](tile);
}

const klaus_gemm_kernel klaus_gemm_f32_neon_7x12 = {.rows = 7, .width = 12, .run = run};
