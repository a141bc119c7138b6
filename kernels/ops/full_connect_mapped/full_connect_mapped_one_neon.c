/* A batch of one: weights go from their rows through registers into the sums. `kind` is a constant where it is
 * inlined. */
#include "ops/full_connect_mapped/full_connect_mapped.h"
#include "ops/mapped/mapped.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define UNROLLED _Pragma("clang loop unroll(full)")
#define STEP 32 /* inputs */

enum kind { FLOATS, HALVES, Q8, Q4 };

/* Two sums an output, so that a multiply-add need not wait for the one before. */
typedef struct sums_of {
    float32x4_t at[4][2];
} sums_of;

static inline float32x4_t low_floats(uint8x16_t halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(halves)));
}

static inline float32x4_t four_entries(const float *entries, const uint8_t *indices) {
    const float four[4] = {entries[indices[0]], entries[indices[1]], entries[indices[2]], entries[indices[3]]};
    return vld1q_f32(four);
}

/* Eight halves of one output. */
static inline void add_halves(float32x4_t *sums, uint8x16_t halves, float32x4_t first, float32x4_t second) {
    sums[0] = vfmaq_f32(sums[0], low_floats(halves), first);
    sums[1] = vfmaq_f32(sums[1], klaus_widen_high(halves), second);
}

/* STEP inputs of four outputs, a number of times. Inputs of 4-bit indices are loaded evens and odds apart, as the two
 * indices of a byte come apart. */
__attribute__((always_inline)) static inline void add_steps(sums_of *sums, const klaus_mapped *rows,
                                                            const uint8_t *const *from, const float *x, int64_t steps,
                                                            const enum kind kind) {
    const uint8x16_t low = vld1q_u8(rows->table), high = vld1q_u8(rows->table + 16);
    const uint8_t *row[4] = {from[0], from[1], from[2], from[3]};
#pragma clang loop unroll(disable)
    for (; steps > 0; steps--) {
        float32x4_t inputs[8];
        UNROLLED for (int i = 0; i < 8; i += 2) {
            if (kind == Q4) {
                const float32x4x2_t pair = vld2q_f32(x);
                inputs[i / 2] = pair.val[0];     /* 0, 2, 4, 6; 8, 10 ... */
                inputs[4 + i / 2] = pair.val[1]; /* 1, 3, 5, 7; 9, 11 ... */
            } else {
                inputs[i] = vld1q_f32(x);
                inputs[i + 1] = vld1q_f32(x + 4);
            }
            x += 8;
        }
        UNROLLED for (int o = 0; o < 4; o++) {
            float32x4_t *to = sums->at[o];
            if (kind == Q4) {
                const uint8x16_t pairs = vld1q_u8(row[o]);
                UNROLLED for (int odd = 0; odd < 2; odd++) {
                    const uint8x16_t indices = odd ? vshrq_n_u8(pairs, 4) : vandq_u8(pairs, vdupq_n_u8(15));
                    const uint8x16x2_t halves = vzipq_u8(klaus_table16(low, indices), klaus_table16(high, indices));
                    add_halves(to, halves.val[0], inputs[4 * odd], inputs[4 * odd + 1]);
                    add_halves(to, halves.val[1], inputs[4 * odd + 2], inputs[4 * odd + 3]);
                    klaus_settle(&to[0], &to[1]);
                }
                row[o] += 16;
            } else if (kind == HALVES) {
                UNROLLED for (int i = 0; i < 4; i++)
                    add_halves(to, vld1q_u8(row[o] + 16 * i), inputs[2 * i], inputs[2 * i + 1]);
                row[o] += 64;
            } else if (kind == Q8) {
                UNROLLED for (int i = 0; i < 8; i++) to[i % 2] =
                    vfmaq_f32(to[i % 2], four_entries(rows->entries, row[o] + 4 * i), inputs[i]);
                row[o] += 32;
            } else {
                UNROLLED for (int i = 0; i < 8; i++) to[i % 2] =
                    vfmaq_f32(to[i % 2], vreinterpretq_f32_u8(vld1q_u8(row[o] + 16 * i)), inputs[i]);
                row[o] += 128;
            }
            klaus_settle(&to[0], &to[1]);
        }
    }
}

static inline float32x4_t sum_of_four(const sums_of *sums) {
    float values[4];
    for (int o = 0; o < 4; o++) {
        const float32x4_t both = vaddq_f32(sums->at[o][0], sums->at[o][1]);
        const float32x2_t pair = vadd_f32(vget_low_f32(both), vget_high_f32(both));
        values[o] = vget_lane_f32(vpadd_f32(pair, pair), 0);
    }
    return vld1q_f32(values);
}

/* Outputs `first` .. + 3; `outputs` of them exist. */
__attribute__((always_inline)) static inline void four_of(const klaus_call *call, const klaus_mapped *rows,
                                                          int64_t first, int32_t outputs, const enum kind kind) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s), steps = inputs / STEP, whole = steps * STEP;
    const float *x = call->input[0];
    const uint8_t *row[4];
    sums_of sums;
    for (int32_t o = 0; o < 4; o++) {
        row[o] = klaus_mapped_at(rows, first + (o < outputs ? o : outputs - 1), 0);
        sums.at[o][0] = sums.at[o][1] = vdupq_n_f32(0);
    }
    add_steps(&sums, rows, row, x, steps, kind);
    float32x4_t sum = sum_of_four(&sums);
    if (whole < inputs) {
        float weights[STEP][4];
        klaus_mapped_read(rows, first, outputs, 4, whole, inputs - whole, weights[0]);
        for (int64_t i = 0; whole + i < inputs; i++)
            sum = vfmaq_f32(sum, vld1q_f32(weights[i]), vdupq_n_f32(x[whole + i]));
    }
    float scale[4] = {1, 1, 1, 1}, bias[4] = {0}, values[4];
    for (int32_t o = 0; o < outputs; o++) {
        bias[o] = call->weights->bias[first + o];
        if (call->weights->scale != NULL)
            scale[o] = call->weights->scale[first + o];
    }
    const float32x4_t value = vfmaq_f32(vld1q_f32(bias), sum, vld1q_f32(scale));
    vst1q_f32(values, klaus_limit(value, klaus_activation_limits(s->activation)));
    for (int32_t o = 0; o < outputs; o++)
        ((float *)call->output)[first + o] = values[o];
}

__attribute__((noinline)) static void four_floats(const klaus_call *call, const klaus_mapped *rows, int64_t first,
                                                  int32_t outputs) {
    four_of(call, rows, first, outputs, FLOATS);
}

__attribute__((noinline)) static void four_halves(const klaus_call *call, const klaus_mapped *rows, int64_t first,
                                                  int32_t outputs) {
    four_of(call, rows, first, outputs, HALVES);
}

__attribute__((noinline)) static void four_q8(const klaus_call *call, const klaus_mapped *rows, int64_t first,
                                              int32_t outputs) {
    four_of(call, rows, first, outputs, Q8);
}

__attribute__((noinline)) static void four_q4(const klaus_call *call, const klaus_mapped *rows, int64_t first,
                                              int32_t outputs) {
    four_of(call, rows, first, outputs, Q4);
}

bool klaus_full_connect_mapped_one_can(const klaus_shape *s) {
    if (s->batch > 1 || s->op != KLAUS_OP_FULL_CONNECT || !klaus_shape_is_f32(s) || s->has_addend ||
        s->in_channels <= 0 || s->out_channels <= 0 || klaus_shape_inputs_per_row(s) > INT32_MAX)
        return false;
    return s->weight_dtype == KLAUS_F32 || s->weight_dtype == KLAUS_F16 || s->weight_dtype == KLAUS_Q8 ||
           (s->weight_dtype == KLAUS_Q4 && s->codebook_dtype == KLAUS_F16);
}

bool klaus_full_connect_mapped_one_lean(const klaus_shape *s) {
    return s->weight_dtype == KLAUS_Q8;
}

void klaus_full_connect_mapped_one(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    klaus_mapped rows;
    klaus_mapped_open(&rows, s, call->weights);
    int64_t begin, end;
    klaus_share(s->out_channels, 4, part, parts, &begin, &end);
    for (int64_t first = begin; first < end; first += 4) {
        const int32_t outputs = end - first < 4 ? (int32_t)(end - first) : 4;
        if (s->weight_dtype == KLAUS_Q4)
            four_q4(call, &rows, first, outputs);
        else if (s->weight_dtype == KLAUS_Q8)
            four_q8(call, &rows, first, outputs);
        else if (s->weight_dtype == KLAUS_F16)
            four_halves(call, &rows, first, outputs);
        else
            four_floats(call, &rows, first, outputs);
    }
}
