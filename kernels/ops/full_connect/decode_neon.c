/* Packed weights to floats, a block at a time; ops/full_connect/full_connect_gemm.h says how they lie. */
#include "ops/full_connect/full_connect_gemm.h"

#include <string.h>

#include "ops/neon.h"

void klaus_decode_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    (void)table;
    int64_t i = 0; /* a block is a multiple of four: panels are */
    for (; i + 8 <= count; i += 8) {
        const uint8x16_t halves = vld1q_u8(encoded + 2 * i);
        vst1q_f32(weights + i, vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves))));
        vst1q_f32(weights + i + 4, klaus_widen_high(halves));
    }
    if (i < count)
        vst1q_f32(weights + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(encoded + 2 * i))));
}

/* 256 entries fit no register table: four scalar loads are the shortest way, as integers so that nothing is
 * converted. */
void klaus_decode_q8(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    const uint32_t *entries = table;
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t indices, four[4];
        memcpy(&indices, encoded + i, 4);
        four[0] = entries[indices & 255];
        four[1] = entries[indices >> 8 & 255];
        four[2] = entries[indices >> 16 & 255];
        four[3] = entries[indices >> 24];
        memcpy(weights + i, four, 16);
    }
}

/* The bytes of half-precision numbers, low and high ones apart, to 16 floats. */
static inline void widen_halves(uint8x16_t low, uint8x16_t high, float *weights) {
    const uint8x16x2_t halves = vzipq_u8(low, high);
    vst1q_f32(weights, vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves.val[0]))));
    vst1q_f32(weights + 4, klaus_widen_high(halves.val[0]));
    vst1q_f32(weights + 8, vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves.val[1]))));
    vst1q_f32(weights + 12, klaus_widen_high(halves.val[1]));
}

/* 16 indices to floats whose bytes stand in four tables. */
static inline void look_up_floats(const uint8x16_t *tables, uint8x16_t indices, float *weights) {
    const uint8x16x2_t low = vzipq_u8(klaus_table16(tables[0], indices), klaus_table16(tables[1], indices));
    const uint8x16x2_t high = vzipq_u8(klaus_table16(tables[2], indices), klaus_table16(tables[3], indices));
    for (int half = 0; half < 2; half++) {
        const uint16x8x2_t four = vzipq_u16(vreinterpretq_u16_u8(low.val[half]), vreinterpretq_u16_u8(high.val[half]));
        vst1q_f32(weights + 8 * half, vreinterpretq_f32_u16(four.val[0]));
        vst1q_f32(weights + 8 * half + 4, vreinterpretq_f32_u16(four.val[1]));
    }
}

void klaus_decode_q4_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    const uint8x16_t low = vld1q_u8(table), high = vld1q_u8((const uint8_t *)table + 16);
    for (int64_t i = 0; i < count; i += 32, encoded += 16) {
        const uint8x16_t pairs = vld1q_u8(encoded);
        const uint8x16_t first = vandq_u8(pairs, vdupq_n_u8(15)), second = vshrq_n_u8(pairs, 4);
        widen_halves(klaus_table16(low, first), klaus_table16(high, first), weights + i);
        widen_halves(klaus_table16(low, second), klaus_table16(high, second), weights + i + 16);
    }
}

void klaus_decode_q2_f16(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    const uint8x16_t low = vld1q_u8(table), high = vld1q_u8((const uint8_t *)table + 16);
    for (int64_t i = 0; i < count; i += 64, encoded += 16) {
        uint8x16_t fours = vld1q_u8(encoded);
        for (int part = 0; part < 4; part++) {
            const uint8x16_t indices = vandq_u8(fours, vdupq_n_u8(3));
            widen_halves(klaus_table16(low, indices), klaus_table16(high, indices), weights + i + 16 * part);
            fours = vshrq_n_u8(fours, 2);
        }
    }
}

void klaus_decode_q4_f32(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    const uint8_t *rows = table;
    const uint8x16_t tables[4] = {vld1q_u8(rows), vld1q_u8(rows + 16), vld1q_u8(rows + 32), vld1q_u8(rows + 48)};
    for (int64_t i = 0; i < count; i += 32, encoded += 16) {
        const uint8x16_t pairs = vld1q_u8(encoded);
        look_up_floats(tables, vandq_u8(pairs, vdupq_n_u8(15)), weights + i);
        look_up_floats(tables, vshrq_n_u8(pairs, 4), weights + i + 16);
    }
}

void klaus_decode_q2_f32(const void *table, const uint8_t *encoded, int64_t count, float *weights) {
    const uint8_t *rows = table;
    const uint8x16_t tables[4] = {vld1q_u8(rows), vld1q_u8(rows + 16), vld1q_u8(rows + 32), vld1q_u8(rows + 48)};
    for (int64_t i = 0; i < count; i += 64, encoded += 16) {
        uint8x16_t fours = vld1q_u8(encoded);
        for (int part = 0; part < 4; part++) {
            look_up_floats(tables, vandq_u8(fours, vdupq_n_u8(3)), weights + i + 16 * part);
            fours = vshrq_n_u8(fours, 2);
        }
    }
}
