#include "ops/mapped/mapped.h"

#include <string.h>

#include "ops/neon.h"
#include "ops/weights.h"

#define UNROLLED _Pragma("clang loop unroll(full)")
#define MOST_STEP 64 /* weights of a row that one step turns */

void klaus_mapped_open(klaus_mapped *rows, const klaus_shape *s, const klaus_weights *weights) {
    rows->values = weights->values;
    rows->row_bytes = weights->row_bytes;
    rows->dtype = s->weight_dtype;
    rows->halves = s->codebook_dtype == KLAUS_F16;
    if (s->weight_dtype == KLAUS_Q8)
        for (uint32_t i = 0; i < 256; i++)
            rows->entries[i] = klaus_codebook_entry(s, weights, i);
    if (s->weight_dtype != KLAUS_Q4 && s->weight_dtype != KLAUS_Q2)
        return;
    memset(rows->table, 0, sizeof rows->table);
    const uint32_t bytes = rows->halves ? 2 : 4;
    for (uint32_t i = 0; i < s->codebook_entries && i < 16; i++)
        for (uint32_t byte = 0; byte < bytes; byte++)
            rows->table[16 * byte + i] = ((const uint8_t *)weights->codebook)[bytes * i + byte];
}

const uint8_t *klaus_mapped_at(const klaus_mapped *rows, int64_t channel, int64_t begin) {
    const uint8_t *row = rows->values + (size_t)channel * rows->row_bytes;
    switch (rows->dtype) {
    case KLAUS_F32:
        return row + 4 * begin;
    case KLAUS_F16:
        return row + 2 * begin;
    case KLAUS_Q4:
        return row + begin / 2;
    case KLAUS_Q2:
        return row + begin / 4;
    default:
        return row + begin;
    }
}

/* ---- one step: four channels, 16 bytes of each ---- */

/* Bytes of four rows to four vectors, each with bytes 4v .. 4v + 3 of all rows: a b c d a b c d ... */
static inline void turn_bytes(const uint8_t *const *from, uint8x16_t *to) {
    const uint8x16x2_t ac = vzipq_u8(vld1q_u8(from[0]), vld1q_u8(from[2]));
    const uint8x16x2_t bd = vzipq_u8(vld1q_u8(from[1]), vld1q_u8(from[3]));
    const uint8x16x2_t first = vzipq_u8(ac.val[0], bd.val[0]), second = vzipq_u8(ac.val[1], bd.val[1]);
    to[0] = first.val[0];
    to[1] = first.val[1];
    to[2] = second.val[0];
    to[3] = second.val[1];
}

/* 16 indices to four vectors of weights. */
static inline void look_up_halves(uint8x16_t low, uint8x16_t high, uint8x16_t indices, float32x4_t *weights) {
    const uint8x16x2_t halves = vzipq_u8(klaus_table16(low, indices), klaus_table16(high, indices));
    weights[0] = vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves.val[0])));
    weights[1] = klaus_widen_high(halves.val[0]);
    weights[2] = vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves.val[1])));
    weights[3] = klaus_widen_high(halves.val[1]);
}

static inline void look_up_floats(const uint8_t *table, uint8x16_t indices, float32x4_t *weights) {
    uint8x16_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = klaus_table16(vld1q_u8(table + 16 * i), indices);
    const uint8x16x2_t low = vzipq_u8(bytes[0], bytes[1]), high = vzipq_u8(bytes[2], bytes[3]);
    for (int half = 0; half < 2; half++) {
        const uint16x8x2_t four = vzipq_u16(vreinterpretq_u16_u8(low.val[half]), vreinterpretq_u16_u8(high.val[half]));
        weights[2 * half] = vreinterpretq_f32_u16(four.val[0]);
        weights[2 * half + 1] = vreinterpretq_f32_u16(four.val[1]);
    }
}

/* 16 bytes of indices: `per` (2 or 4) of them a byte, in order of the weights. */
__attribute__((always_inline)) static inline void step_indices(const klaus_mapped *rows, const uint8_t *const *from,
                                                               float *to, int64_t width, const int per,
                                                               const bool halves) {
    const uint8x16_t low = vld1q_u8(rows->table), high = vld1q_u8(rows->table + 16);
    uint8x16_t bytes[4];
    turn_bytes(from, bytes);
    UNROLLED for (int v = 0; v < 4; v++) {
        float32x4_t weights[4][4]; /* [index of a byte][byte] */
        UNROLLED for (int i = 0; i < per; i++) {
            uint8x16_t indices = bytes[v];
            if (per == 2)
                indices = i == 0 ? vandq_u8(indices, vdupq_n_u8(15)) : vshrq_n_u8(indices, 4);
            else if (i == 3)
                indices = vshrq_n_u8(indices, 6);
            else
                indices = vandq_u8(i == 0   ? indices
                                   : i == 1 ? vshrq_n_u8(indices, 2)
                                            : vshrq_n_u8(indices, 4),
                                   vdupq_n_u8(3));
            if (halves)
                look_up_halves(low, high, indices, weights[i]);
            else
                look_up_floats(rows->table, indices, weights[i]);
        }
        UNROLLED for (int byte = 0; byte < 4; byte++) UNROLLED for (int i = 0; i < per; i++)
            klaus_store_step(&to, weights[i][byte], width);
    }
}

static inline void step_halves(const uint8_t *const *from, float *to, int64_t width) {
    uint16x8_t row[4];
    UNROLLED for (int i = 0; i < 4; i++) row[i] = vreinterpretq_u16_u8(vld1q_u8(from[i]));
    const uint16x8x2_t ac = vzipq_u16(row[0], row[2]), bd = vzipq_u16(row[1], row[3]);
    UNROLLED for (int half = 0; half < 2; half++) {
        const uint16x8x2_t all = vzipq_u16(ac.val[half], bd.val[half]);
        UNROLLED for (int v = 0; v < 2; v++) {
            const uint8x16_t halves = vreinterpretq_u8_u16(all.val[v]);
            klaus_store_step(&to, vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves))), width);
            klaus_store_step(&to, klaus_widen_high(halves), width);
        }
    }
}

static inline void step_floats(const uint8_t *const *from, float *to, int64_t width) {
    float32x4_t row[4];
    UNROLLED for (int i = 0; i < 4; i++) row[i] = vreinterpretq_f32_u8(vld1q_u8(from[i]));
    const float32x4x2_t ac = vzipq_f32(row[0], row[2]), bd = vzipq_f32(row[1], row[3]);
    UNROLLED for (int half = 0; half < 2; half++) {
        const float32x4x2_t all = vzipq_f32(ac.val[half], bd.val[half]);
        klaus_store_step(&to, all.val[0], width);
        klaus_store_step(&to, all.val[1], width);
    }
}

/* No register table holds 256 entries: each is a load of its own, as integers so that nothing is converted. */
static inline void step_bytes(const klaus_mapped *rows, const uint8_t *const *from, float *to, int64_t width) {
    const uint32_t *entries = (const uint32_t *)(const void *)rows->entries;
    for (int i = 0; i < 16; i++, to += width) {
        const uint32_t four[4] = {entries[from[0][i]], entries[from[1][i]], entries[from[2][i]], entries[from[3][i]]};
        memcpy(to, four, sizeof four);
    }
}

/* Weights that 16 bytes hold. */
static int64_t step_weights(uint32_t dtype) {
    switch (dtype) {
    case KLAUS_F32:
        return 4;
    case KLAUS_F16:
        return 8;
    case KLAUS_Q4:
        return 32;
    case KLAUS_Q2:
        return MOST_STEP;
    default:
        return 16;
    }
}

enum kind { FLOATS, HALVES, Q8, Q4_HALVES, Q4_FLOATS, Q2_HALVES, Q2_FLOATS };

/* `bytes` (a multiple of 16) of four rows; `kind` is a constant where it is inlined. */
__attribute__((always_inline)) static inline void steps_of(const klaus_mapped *rows, const uint8_t *const *from,
                                                           size_t bytes, float *to, int64_t width,
                                                           const enum kind kind) {
    const uint8_t *row[4] = {from[0], from[1], from[2], from[3]};
    const int64_t weights = kind == FLOATS ? 4 : kind == HALVES ? 8 : kind == Q8 ? 16 : kind <= Q4_FLOATS ? 32 : 64;
    for (size_t at = 0; at < bytes; at += 16, to += weights * width) {
        if (kind == FLOATS)
            step_floats(row, to, width);
        else if (kind == HALVES)
            step_halves(row, to, width);
        else if (kind == Q8)
            step_bytes(rows, row, to, width);
        else
            step_indices(rows, row, to, width, kind <= Q4_FLOATS ? 2 : 4, kind == Q4_HALVES || kind == Q2_HALVES);
        for (int i = 0; i < 4; i++)
            row[i] += 16;
    }
}

/* A function a kind, so that each saves no registers but its own. */
__attribute__((noinline)) static void floats(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                             float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, FLOATS);
}

__attribute__((noinline)) static void halves(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                             float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, HALVES);
}

__attribute__((noinline)) static void q8(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes, float *to,
                                         int64_t width) {
    steps_of(rows, from, bytes, to, width, Q8);
}

__attribute__((noinline)) static void q4_halves(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                                float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, Q4_HALVES);
}

__attribute__((noinline)) static void q4_floats(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                                float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, Q4_FLOATS);
}

__attribute__((noinline)) static void q2_halves(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                                float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, Q2_HALVES);
}

__attribute__((noinline)) static void q2_floats(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes,
                                                float *to, int64_t width) {
    steps_of(rows, from, bytes, to, width, Q2_FLOATS);
}

static void read_steps(const klaus_mapped *rows, const uint8_t *const *from, size_t bytes, float *to, int64_t width) {
    if (rows->dtype == KLAUS_F32)
        floats(rows, from, bytes, to, width);
    else if (rows->dtype == KLAUS_F16)
        halves(rows, from, bytes, to, width);
    else if (rows->dtype == KLAUS_Q8)
        q8(rows, from, bytes, to, width);
    else if (rows->dtype == KLAUS_Q4)
        (rows->halves ? q4_halves : q4_floats)(rows, from, bytes, to, width);
    else
        (rows->halves ? q2_halves : q2_floats)(rows, from, bytes, to, width);
}

/* What is left of four rows and fills no step: nothing behind a row may be read. */
__attribute__((noinline)) static void read_rest(const klaus_mapped *rows, const uint8_t *const *from, int64_t count,
                                                float *to, int64_t width) {
    uint8_t padded[4][16];
    float weights[MOST_STEP][4];
    const size_t bytes = (size_t)((count * 16 + step_weights(rows->dtype) - 1) / step_weights(rows->dtype));
    memset(padded, 0, sizeof padded);
    for (int i = 0; i < 4; i++)
        memcpy(padded[i], from[i], bytes);
    const uint8_t *const row[4] = {padded[0], padded[1], padded[2], padded[3]};
    read_steps(rows, row, 16, weights[0], 4);
    for (int64_t i = 0; i < count; i++)
        memcpy(to + i * width, weights[i], sizeof weights[i]);
}

void klaus_mapped_read(const klaus_mapped *rows, int64_t first, int32_t channels, int32_t width, int64_t begin,
                       int64_t count, float *to) {
    const int64_t step = step_weights(rows->dtype), whole = count / step * step;
    for (int32_t c = 0; c < width; c += 4) {
        const uint8_t *row[4];
        for (int32_t i = 0; i < 4; i++) {
            const int32_t channel = c + i < channels ? c + i : channels - 1;
            row[i] = klaus_mapped_at(rows, first + channel, begin);
        }
        const size_t bytes = (size_t)(whole / step) * 16;
        read_steps(rows, row, bytes, to + c, width);
        if (whole < count) {
            const uint8_t *const rest[4] = {row[0] + bytes, row[1] + bytes, row[2] + bytes, row[3] + bytes};
            read_rest(rows, rest, count - whole, to + whole * width + c, width);
        }
    }
}
