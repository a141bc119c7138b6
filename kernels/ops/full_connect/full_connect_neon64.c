/* Full connect on the 7x12 micro-kernel, weights decoded a block at a time. */
#include "ops/full_connect/full_connect.h"
#include "ops/full_connect/full_connect_gemm.h"
#include "ops/full_connect/full_connect_rows.h"
#include "ops/layouts.h"

static uint64_t packed_bytes(const klaus_shape *shape) {
    return klaus_full_connect_gemm_packed_bytes(shape, klaus_gemm_f32_neon_7x12.width);
}

static void pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_full_connect_gemm_pack(shape, weights, packed, klaus_gemm_f32_neon_7x12.width);
}

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return klaus_full_connect_gemm_scratch_bytes(shape, parts, klaus_gemm_f32_neon_7x12.width);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_full_connect_gemm_run(call, part, parts, &klaus_gemm_f32_neon_7x12);
}

const klaus_variant klaus_full_connect_f32_neon_7x12 = {
    .name = "klaus_full_connect_f32_neon_7x12",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_PANELS_12,
    .phases = 1,
    .can = klaus_full_connect_is_sound,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

static void run_one(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    klaus_full_connect_gemv_run(call, part, parts, klaus_gemm_f32_neon_7x12.width);
}

/* What the kernel for ten rows takes is left to one row's kernel of the same layout, so that a session that runs one
 * row and ten holds its weights once. */
static bool one_can(const klaus_shape *shape) {
    klaus_shape ten = *shape;
    ten.batch = 10;
    return klaus_full_connect_gemv_can(shape) && !klaus_full_connect_rows_can(&ten);
}

/* For one row of input. */
const klaus_variant klaus_full_connect_f32_neon_1x12 = {
    .name = "klaus_full_connect_f32_neon_1x12",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_PANELS_12,
    .phases = 1,
    .can = one_can,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run_one,
};

static uint64_t ten_packed_bytes(const klaus_shape *shape) {
    return klaus_full_connect_gemm_packed_bytes(shape, 8);
}

static void ten_pack(const klaus_shape *shape, const klaus_weights *weights, void *packed) {
    klaus_full_connect_gemm_pack(shape, weights, packed, 8);
}

/* For ten rows of input. */
const klaus_variant klaus_full_connect_f32_neon_10x8 = {
    .name = "klaus_full_connect_f32_neon_10x8",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_PANELS_8,
    .phases = KLAUS_FULL_CONNECT_ROWS_PHASES,
    .can = klaus_full_connect_rows_can,
    .packed_bytes = ten_packed_bytes,
    .pack = ten_pack,
    .scratch_bytes = klaus_full_connect_rows_scratch_bytes,
    .run = klaus_full_connect_rows_run,
};
