/* Full connect of halves: up to ten rows of input times 16 outputs, 20 sums. Weights go from their packed form through
 * registers into the sums: two look-ups of bytes and two interleavings give 16 halves, for all rows of a tile.
 * `rows` and `kind` are constants where they are inlined. */
#include <string.h>

#include "ops/full_connect/full_connect_f16.h"
#include "ops/layouts.h"
#include "ops/neon.h"
#include "ops/neon_fp16.h"
#include "ops/shape.h"

#define WIDTH KLAUS_FULL_CONNECT_F16_WIDTH
#define MOST_ROWS 10
/* One row has two sums an output, so that a multiply-add need not wait for the one before. */
#define SETS(rows) ((rows) == 1 ? 2 : 1)

enum kind { HALVES, Q4, Q2 };

typedef struct sums_of {
    float16x8_t at[MOST_ROWS][2];
} sums_of;

/* Input `i` of eight: its lanes in the tile's vectors x are numbers i * rows .. i * rows + rows - 1. */
__attribute__((always_inline)) static inline void add(sums_of *sums, const float16x8_t *x, float16x8_t low,
                                                      float16x8_t high, const int i, const int rows) {
    KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) {
        const int at = i * rows + r, to = rows == 1 ? i % 2 : r;
        sums->at[to][0] = klaus_fma_lane_8h(sums->at[to][0], low, x[at / 8], at % 8);
        sums->at[to][1] = klaus_fma_lane_8h(sums->at[to][1], high, x[at / 8], at % 8);
    }
}

__attribute__((always_inline)) static inline void add_indices(sums_of *sums, const float16x8_t *x,
                                                              const uint8x16_t *table, uint8x16_t indices, const int i,
                                                              const int rows) {
    const uint8x16_t low = vqtbl1q_u8(table[0], indices), high = vqtbl1q_u8(table[1], indices);
    add(sums, x, vreinterpretq_f16_u8(vzip1q_u8(low, high)), vreinterpretq_f16_u8(vzip2q_u8(low, high)), i, rows);
}

/* The vectors of x that inputs `from` .. `to` - 1 of eight use and those before do not. */
__attribute__((always_inline)) static inline void load_some(float16x8_t *x, const uint16_t *from_x, const int from,
                                                            const int to, const int rows) {
    KLAUS_UNROLL_ALL for (int v = 0; v < rows; v++) if (8 * v < to * rows && (from == 0 || 8 * v >= from * rows)) x[v] =
        klaus_load_8h(from_x + 8 * v);
}

/* Eight inputs. */
__attribute__((always_inline)) static inline void eight(sums_of *sums, const uint16_t *from_x, const uint8x16_t *table,
                                                        const uint8_t *weights, const enum kind kind, const int rows) {
    float16x8_t x[MOST_ROWS];
    const int step = kind == Q2 ? 4 : 2;
    KLAUS_UNROLL_ALL for (int i = 0; i < 8; i += step) {
        load_some(x, from_x, i, i + step, rows);
        if (kind == HALVES) {
            const uint16_t *at = (const uint16_t *)(const void *)weights + WIDTH * i;
            const uint16x8x4_t w = vld1q_u16_x4(at);
            add(sums, x, vreinterpretq_f16_u16(w.val[0]), vreinterpretq_f16_u16(w.val[1]), i, rows);
            add(sums, x, vreinterpretq_f16_u16(w.val[2]), vreinterpretq_f16_u16(w.val[3]), i + 1, rows);
        } else {
            const uint8x16_t indices = vld1q_u8(weights + 16 * (i / step));
            const uint8x16_t mask = vdupq_n_u8(kind == Q4 ? 15 : 3);
            add_indices(sums, x, table, vandq_u8(indices, mask), i, rows);
            if (kind == Q4) {
                add_indices(sums, x, table, vshrq_n_u8(indices, 4), i + 1, rows);
            } else {
                add_indices(sums, x, table, vandq_u8(vshrq_n_u8(indices, 2), mask), i + 1, rows);
                add_indices(sums, x, table, vandq_u8(vshrq_n_u8(indices, 4), mask), i + 2, rows);
                add_indices(sums, x, table, vshrq_n_u8(indices, 6), i + 3, rows);
            }
        }
        klaus_step_ends();
    }
}

/* One panel, one tile of rows: sums [rows][16] in float32. */
__attribute__((always_inline)) static inline void multiply(const uint16_t *x, const uint8_t *packed_table,
                                                           const uint8_t *weights, int64_t eights, float *wide,
                                                           const enum kind kind, const int rows) {
    const int eight_bytes = 2 * WIDTH * (kind == HALVES ? 8 : kind == Q4 ? 2 : 1);
    uint8x16_t table[2] = {vdupq_n_u8(0), vdupq_n_u8(0)};
    if (kind != HALVES) {
        table[0] = vld1q_u8(packed_table);
        table[1] = vld1q_u8(packed_table + 16);
    }
    bool begun = false;
    while (eights > 0) {
        sums_of sums;
        int64_t now = eights < KLAUS_HALF_TERMS / 8 ? eights : KLAUS_HALF_TERMS / 8;
        eights -= now;
        KLAUS_UNROLL_ALL for (int r = 0; r < rows * SETS(rows); r++) sums.at[r][0] = sums.at[r][1] = klaus_zero_8h();
#pragma clang loop unroll(disable)
        for (; now > 0; now--, x += 8 * rows, weights += eight_bytes)
            eight(&sums, x, table, weights, kind, rows);
        if (rows == 1) {
            sums.at[0][0] = vaddq_f16(sums.at[0][0], sums.at[1][0]);
            sums.at[0][1] = vaddq_f16(sums.at[0][1], sums.at[1][1]);
        }
        KLAUS_UNROLL_ALL for (int r = 0; r < rows; r++) KLAUS_UNROLL_ALL for (int v = 0; v < 2; v++) {
            float *to = wide + WIDTH * r + 8 * v;
            float32x4_t low = klaus_low_4s(sums.at[r][v]), high = klaus_high_4s(sums.at[r][v]);
            if (begun) {
                low = vaddq_f32(low, vld1q_f32(to));
                high = vaddq_f32(high, vld1q_f32(to + 4));
            }
            vst1q_f32(to, low);
            vst1q_f32(to + 4, high);
        }
        begun = true;
    }
}

static void halves_1(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 1);
}

static void halves_2(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 2);
}

static void halves_3(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 3);
}

static void halves_4(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 4);
}

static void halves_5(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 5);
}

static void halves_6(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 6);
}

static void halves_7(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 7);
}

static void halves_8(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 8);
}

static void halves_9(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 9);
}

static void halves_10(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, HALVES, 10);
}

static void q4_1(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 1);
}

static void q4_2(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 2);
}

static void q4_3(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 3);
}

static void q4_4(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 4);
}

static void q4_5(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 5);
}

static void q4_6(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 6);
}

static void q4_7(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 7);
}

static void q4_8(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 8);
}

static void q4_9(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 9);
}

static void q4_10(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q4, 10);
}

static void q2_1(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 1);
}

static void q2_2(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 2);
}

static void q2_3(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 3);
}

static void q2_4(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 4);
}

static void q2_5(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 5);
}

static void q2_6(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 6);
}

static void q2_7(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 7);
}

static void q2_8(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 8);
}

static void q2_9(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 9);
}

static void q2_10(const uint16_t *x, const uint8_t *table, const uint8_t *weights, int64_t eights, float *wide) {
    multiply(x, table, weights, eights, wide, Q2, 10);
}

typedef void (*multiplier)(const uint16_t *, const uint8_t *, const uint8_t *, int64_t, float *);

static multiplier multiplier_of(const klaus_shape *s, int32_t rows) {
    static const multiplier all[3][MOST_ROWS] = {
        {halves_1, halves_2, halves_3, halves_4, halves_5, halves_6, halves_7, halves_8, halves_9, halves_10},
        {q4_1, q4_2, q4_3, q4_4, q4_5, q4_6, q4_7, q4_8, q4_9, q4_10},
        {q2_1, q2_2, q2_3, q2_4, q2_5, q2_6, q2_7, q2_8, q2_9, q2_10},
    };
    const uint32_t stored = klaus_full_connect_f16_stored(s);
    return all[stored == KLAUS_F16 ? HALVES : stored == KLAUS_Q4 ? Q4 : Q2][rows - 1];
}

/* Rows of a tile: the batch cut evenly. */
static int32_t tile_rows(const klaus_shape *s) {
    const int32_t batch = (int32_t)klaus_at_least_one(s->batch), tiles = (batch + MOST_ROWS - 1) / MOST_ROWS;
    return (batch + tiles - 1) / tiles;
}

static int64_t eights_of(const klaus_shape *s) {
    return (klaus_shape_inputs_per_row(s) + 7) / 8;
}

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    (void)parts;
    return (uint64_t)klaus_at_least_one(s->batch) * (uint64_t)eights_of(s) * 16;
}

/* Phase 0: the inputs as the products want them. */
static void order(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s), eights = eights_of(s), batch = klaus_at_least_one(s->batch);
    const int32_t most = tile_rows(s);
    int64_t begin, end;
    klaus_share(eights * 8, 8, part, parts, &begin, &end);
    for (int64_t first = 0; first < batch; first += most) {
        const int64_t rows = batch - first < most ? batch - first : most;
        uint16_t *const to = (uint16_t *)call->scratch + first * eights * 8;
        for (int64_t r = 0; r < rows; r++) {
            const uint16_t *from = (const uint16_t *)call->input[0] + (first + r) * inputs;
            const int64_t known = end < inputs ? end : inputs;
            for (int64_t i = begin; i < known; i++)
                to[i * rows + r] = from[i];
            for (int64_t i = known > begin ? known : begin; i < end; i++)
                to[i * rows + r] = 0;
        }
    }
}

/* Sums of some outputs, 16 or fewer, to results. */
static void finish(const klaus_shape *s, const float *head, const float *wide, int32_t outputs, void *output,
                   int64_t at) {
    const klaus_limits limits = klaus_activation_limits(s->activation);
    float results[WIDTH];
    uint16_t halves[WIDTH];
    for (int32_t c = 0; c < WIDTH; c += 4) {
        const float32x4_t value = vfmaq_f32(vld1q_f32(head + WIDTH + c), vld1q_f32(wide + c), vld1q_f32(head + c));
        vst1q_f32(results + c, klaus_limit(value, limits));
        vst1_u16(halves + c, vreinterpret_u16_f16(vcvt_f16_f32(klaus_limit(value, limits))));
    }
    if (s->out_dtype == KLAUS_F32)
        memcpy((float *)output + at, results, (size_t)outputs * sizeof(float));
    else
        memcpy((uint16_t *)output + at, halves, (size_t)outputs * 2);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    if (phase == 0) {
        order(call, part, parts);
        return;
    }
    const int64_t eights = eights_of(s), batch = klaus_at_least_one(s->batch);
    const int32_t most = tile_rows(s);
    const uint8_t *table = call->packed;
    int64_t begin, end;
    klaus_share(s->out_channels, WIDTH, part, parts, &begin, &end);
    const uint8_t *panel =
        table + klaus_full_connect_f16_table_bytes(s) + (size_t)(begin / WIDTH) * klaus_full_connect_f16_panel_bytes(s);
    for (int64_t first = begin; first < end; first += WIDTH, panel += klaus_full_connect_f16_panel_bytes(s)) {
        const int32_t outputs = s->out_channels - first < WIDTH ? (int32_t)(s->out_channels - first) : WIDTH;
        for (int64_t row = 0; row < batch; row += most) {
            const int32_t rows = batch - row < most ? (int32_t)(batch - row) : most;
            float wide[MOST_ROWS * WIDTH];
            multiplier_of(s, rows)((const uint16_t *)call->scratch + row * eights * 8, table,
                                   panel + 2 * WIDTH * sizeof(float), eights, wide);
            for (int32_t r = 0; r < rows; r++)
                finish(s, (const float *)(const void *)panel, wide + WIDTH * r, outputs, call->output,
                       (row + r) * s->out_channels + first);
        }
    }
}

const klaus_variant klaus_full_connect_f16_neon_fp16_10x16 = {
    .name = "klaus_full_connect_f16_neon_fp16_10x16",
    .op = KLAUS_OP_FULL_CONNECT,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_FULL_CONNECT_F16_PANELS_16,
    .phases = KLAUS_FULL_CONNECT_F16_PHASES,
    .can = klaus_full_connect_f16_can,
    .packed_bytes = klaus_full_connect_f16_packed_bytes,
    .pack = klaus_full_connect_f16_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
