/* Depthwise convolution. For 3x3 several output rows at a time, which share input rows; 5x5 needs 25 registers for its
 * weights, so one row, and where the picture ends only the rows of the kernel that meet it. */
#include "ops/depthwise/depthwise_line_neon.h"
#include "ops/depthwise/depthwise_walk_neon64.h"
#include "ops/layouts.h"

/* ---- any shape ---- */

__attribute__((noinline)) static void any_3x3(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 3, 1, 2);
}

__attribute__((noinline)) static void any_3x3_stride_2(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 3, 2, 2);
}

__attribute__((noinline)) static void any_5x5(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 5, 1, 1);
}

__attribute__((noinline)) static void any_5x5_stride_2(const klaus_call *call, int32_t part, int32_t parts) {
    klaus_depthwise_rows(call, part, parts, 5, 2, 1);
}

/* ---- usual shapes ---- */

/* Output rows of four channels. */
typedef struct rows_of {
    const klaus_call *call;
    const klaus_depthwise_ends *ends;
    const float *packed; /* the block's */
    int64_t begin, end;
    int32_t first;
    int above; /* kernel rows that lie above the picture */
} rows_of;

__attribute__((noinline)) static void one_3x3(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 1, 1, 3);
}

__attribute__((noinline)) static void one_3x3_clipped(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 3, 1, 1, 2);
}

__attribute__((noinline)) static void two_3x3(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 1, 2, 4);
}

__attribute__((noinline)) static void four_3x3(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 1, 4, 6);
}

__attribute__((noinline)) static void one_3x3_stride_2(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 2, 1, 3);
}

__attribute__((noinline)) static void one_3x3_stride_2_clipped(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 3, 2, 1, 2);
}

__attribute__((noinline)) static void two_3x3_stride_2(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 2, 2, 5);
}

__attribute__((noinline)) static void four_3x3_stride_2(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 3, 2, 4, 9);
}

__attribute__((noinline)) static void one_5x5(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 5, 1, 1, 5);
}

__attribute__((noinline)) static void one_5x5_of_4_rows(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 5, 1, 1, 4);
}

__attribute__((noinline)) static void one_5x5_of_3_rows(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 5, 1, 1, 3);
}

__attribute__((noinline)) static void one_5x5_stride_2(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, 0, 5, 2, 1, 5);
}

__attribute__((noinline)) static void one_5x5_stride_2_of_4_rows(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 5, 2, 1, 4);
}

__attribute__((noinline)) static void one_5x5_stride_2_of_3_rows(const rows_of *r) {
    klaus_depthwise_rows_of(r->call, r->ends, r->packed, r->begin, r->end, r->first, r->above, 5, 2, 1, 3);
}

/* The walks of one kernel and stride. */
typedef struct walks {
    void (*one[3])(const rows_of *rows); /* of all rows of the kernel, of one less, of two less */
    void (*two)(const rows_of *rows);    /* of two and four lines; NULL: none */
    void (*four)(const rows_of *rows);
} walks;

static const walks all_walks[2][2] = {
    {{{one_3x3, one_3x3_clipped, NULL}, two_3x3, four_3x3},
     {{one_3x3_stride_2, one_3x3_stride_2_clipped, NULL}, two_3x3_stride_2, four_3x3_stride_2}},
    {{{one_5x5, one_5x5_of_4_rows, one_5x5_of_3_rows}, NULL, NULL},
     {{one_5x5_stride_2, one_5x5_stride_2_of_4_rows, one_5x5_stride_2_of_3_rows}, NULL, NULL}},
};

/* Output rows r->begin .. end - 1: groups of lines, then single rows, those that read all of the kernel's rows
 * together. */
static void walk(const walks *known, rows_of *r, int64_t end) {
    const klaus_shape *s = r->call->shape;
    const int64_t first = r->begin;
    int64_t row = first;
    if (known->four != NULL) {
        r->end = first + (end - first) / 4 * 4;
        if (r->end > r->begin)
            known->four(r);
        r->begin = r->end;
        r->end += (end - r->end) / 2 * 2;
        if (r->end > r->begin)
            known->two(r);
        row = r->end;
    }
    while (row < end) {
        const int64_t top = row * s->stride_rows - s->pad_top, below = top + s->kernel_rows - s->in_rows;
        r->above = top < 0 ? (int)-top : 0;
        const int64_t missing = r->above + (below > 0 ? below : 0);
        r->begin = row++;
        if (missing == 0)
            while (row < end && row * s->stride_rows - s->pad_top + s->kernel_rows <= s->in_rows)
                row++;
        r->end = row;
        known->one[missing](r);
    }
}

/* Rows that are walked before the next channels: what they read of a line of the cache, 16 channels, stays in the first
 * cache. */
#define BAND_CELLS 256

static void run_walks(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const walks *known = &all_walks[s->kernel_rows == 5][s->stride_rows == 2];
    const int64_t cells = BAND_CELLS / (s->in_cols * s->stride_rows) / 4 * 4, band = cells > 4 ? cells : 4;
    const size_t block_floats = 4 * (size_t)(1 + s->kernel_rows * s->kernel_cols);
    klaus_depthwise_ends ends;
    const klaus_limits limits = klaus_activation_limits(s->activation);
    vst1q_f32(ends.limits, limits.low);
    vst1q_f32(ends.limits + 4, limits.high);
    int64_t begin, end;
    klaus_share(s->out_rows, 4, part, parts, &begin, &end);
    for (int64_t row = begin; row < end; row += band) {
        const float *packed = call->packed;
        for (int32_t first = 0; first < s->in_channels; first += 4, packed += block_floats) {
            rows_of r = {.call = call, .ends = &ends, .packed = packed, .begin = row, .first = first};
            vst1q_f32(ends.bias, vld1q_f32(packed));
            vst1q_f32(ends.bias + 4, vld1q_f32(packed));
            walk(known, &r, row + band < end ? row + band : end);
        }
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    if (klaus_depthwise_walks(s))
        run_walks(call, part, parts);
    else if (s->kernel_rows == 3 && s->stride_rows == 1)
        any_3x3(call, part, parts);
    else if (s->kernel_rows == 3)
        any_3x3_stride_2(call, part, parts);
    else if (s->stride_rows == 1)
        any_5x5(call, part, parts);
    else
        any_5x5_stride_2(call, part, parts);
}

const klaus_variant klaus_depthwise_f32_neon_2x4 = {
    .name = "klaus_depthwise_f32_neon_2x4",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_DEPTHWISE_F32,
    .phases = 1,
    .can = klaus_depthwise_can,
    .packed_bytes = klaus_depthwise_packed_bytes,
    .pack = klaus_depthwise_pack,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
