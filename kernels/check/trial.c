#include "check/trial.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/guard.h"
#include "dispatch.h"
#include "ops/elements.h"
#include "ops/shape.h"

static const int32_t part_counts[] = {1, 2, 3, 5};
#define PART_RUNS (sizeof part_counts / sizeof part_counts[0])

void klaus_attempt_do(void *data) {
    const klaus_attempt *a = data;
    if (a->packed != NULL) {
        a->variant->pack(a->call.shape, a->weights, a->packed);
        return;
    }
    for (int32_t phase = 0; phase < a->variant->phases; phase++)
        for (int32_t part = 0; part < a->parts; part++)
            a->variant->run(&a->call, phase, part, a->parts);
}

static void describe(const klaus_shape *s, char *text, size_t bytes) {
    snprintf(text, bytes,
             "[%s batch %d, %dx%dx%d -> %dx%dx%d, kernel %dx%d stride %dx%d pad %d,%d groups %d size %d, weights %u/%u "
             "(%u), act %u, scale %d, addend %d, dtypes %u>%u]",
             klaus_op_name(s->op), (int)s->batch, (int)s->in_rows, (int)s->in_cols, (int)s->in_channels,
             (int)s->out_rows, (int)s->out_cols, (int)s->out_channels, (int)s->kernel_rows, (int)s->kernel_cols,
             (int)s->stride_rows, (int)s->stride_cols, (int)s->pad_top, (int)s->pad_left, (int)s->groups, (int)s->size,
             (unsigned)s->weight_dtype, (unsigned)s->codebook_dtype, (unsigned)s->codebook_entries,
             (unsigned)s->activation, (int)s->has_scale, (int)s->has_addend, (unsigned)s->in_dtype,
             (unsigned)s->out_dtype);
}

static void fail(klaus_verdict *v, const klaus_shape *shape, const char *what) {
    v->failed++;
    if (v->message[0] != '\0')
        return;
    char text[240];
    describe(shape, text, sizeof text);
    snprintf(v->message, sizeof v->message, "%.110s %s", what, text);
}

/* Integers: equal where the dtype has an oracle of its own or nothing is computed, else at most one step apart. */
static const char *compare_integers(const klaus_operands *o, const klaus_check_cases *cases, const float *got,
                                    klaus_verdict *v, char *text, size_t text_bytes) {
    const double bound = o->own_oracle || cases->rule == KLAUS_CHECK_EXACT ? 0 : 1;
    for (size_t i = 0; i < o->out_count; i++) {
        const double error = fabs((double)o->expected[i] - (double)got[i]);
        if (error > bound) {
            snprintf(text, text_bytes, "output %zu is %g, not %g (at most %g apart)", i, (double)got[i],
                     (double)o->expected[i], bound);
            return text;
        }
        if (bound > 0 && error > v->worst_share) {
            v->worst_share = v->worst_error = error;
            v->bound = bound;
        }
    }
    return NULL;
}

/* Marks all channels of the output pixels row_first .. row_last, col_first .. col_last that lie in group `group`. */
static void mark(const klaus_shape *s, int64_t row_first, int64_t row_last, int64_t col_first, int64_t col_last,
                 int32_t group, bool *reached) {
    const int32_t filters = s->out_channels / s->groups;
    for (int64_t row = row_first < 0 ? 0 : row_first; row <= row_last && row < s->out_rows; row++)
        for (int64_t col = col_first < 0 ? 0 : col_first; col <= col_last && col < s->out_cols; col++)
            memset(reached + (row * s->out_cols + col) * s->out_channels + (int64_t)group * filters, true,
                   (size_t)filters * sizeof(bool));
}

/* The first and the last output whose window holds input `at`, no output's bounds heeded. */
static int64_t first_window(int64_t at, int32_t pad, int32_t kernel, int32_t stride) {
    const int64_t from = at + pad - kernel + 1;
    return from <= 0 ? 0 : (from + stride - 1) / stride;
}

static int64_t last_window(int64_t at, int32_t pad, int32_t stride) {
    return (at + pad) / stride;
}

/* Marks the outputs of a convolution by tiles that a NaN or an infinity can reach. A tile's outputs are sums of all the
 * samples that any of them looks at, in the channels of their group. Where tiles begin is the kernel's own affair, but
 * two outputs of one tile are at most `spreads` rows and columns apart. So whatever lies farther from the windows of a
 * NaN than that, or in another group, has no excuse; outputs that would lie behind the map's edge, as a tile's do, have
 * windows, too. Finite numbers whose sum overflows count as their output does, and so does an addend. */
static void mark_reached(const klaus_operands *o, int32_t spreads, bool *reached) {
    const klaus_shape *s = &o->shape;
    const int32_t channels = s->in_channels / s->groups, filters = s->out_channels / s->groups;
    memset(reached, false, o->out_count * sizeof(bool));
    for (int64_t i = 0; i < klaus_shape_input_count(s, 0); i++) {
        float value;
        klaus_elements_read(o->input[0].bytes + (size_t)i * klaus_dtype_bytes(s->in_dtype), s->in_dtype, NULL, 1,
                            &value);
        if (isfinite(value))
            continue;
        const int64_t row = i / s->in_channels / s->in_cols, col = i / s->in_channels % s->in_cols;
        mark(s, first_window(row, s->pad_top, s->kernel_rows, s->stride_rows) - spreads,
             last_window(row, s->pad_top, s->stride_rows) + spreads,
             first_window(col, s->pad_left, s->kernel_cols, s->stride_cols) - spreads,
             last_window(col, s->pad_left, s->stride_cols) + spreads, (int32_t)(i % s->in_channels) / channels,
             reached);
    }
    for (size_t i = 0; i < o->out_count; i++) {
        if (isfinite(o->terms[i]))
            continue;
        const int64_t pixel = (int64_t)i / s->out_channels, row = pixel / s->out_cols, col = pixel % s->out_cols;
        mark(s, row - spreads, row + spreads, col - spreads, col + spreads,
             (int32_t)((int64_t)i % s->out_channels) / filters, reached);
    }
}

/* NULL if all outputs are within their bounds, else what is wrong (in `text`). */
static const char *compare(const klaus_variant *variant, const klaus_operands *o, const klaus_check_cases *cases,
                           const float *got, klaus_verdict *v, char *text, size_t text_bytes) {
    const bool halves = o->shape.in_dtype == KLAUS_F16 || o->shape.out_dtype == KLAUS_F16;
    if (o->shape.out_dtype == KLAUS_I8)
        return compare_integers(o, cases, got, v, text, text_bytes);
    const double tolerance = cases->rule == KLAUS_CHECK_EXACT
                                 ? 0
                                 : cases->tolerance(&o->shape) + (halves ? klaus_check_half_tolerance(&o->shape) : 0);
    /* armv7's NEON takes denormals for zeros; each may meet a factor of about 1. */
    const double smallest = halves ? ldexp(1, -24) : (double)FLT_MIN;
    const double underflow = smallest * (double)(klaus_shape_weights_per_row(&o->shape) + 16);
    const char *wrong = NULL;
    bool *reached = NULL; /* of variants that mix neighbours: what a NaN or an infinity among them may have spoilt */
    double largest = 0;   /* of all others */
    if (variant->spreads > 0) {
        reached = malloc(o->out_count * sizeof(bool));
        if (reached == NULL)
            return "no memory for the check";
        mark_reached(o, variant->spreads, reached);
        for (size_t i = 0; i < o->out_count; i++)
            largest = fmax(largest, reached[i] ? 0 : o->terms[i]);
    }
    for (size_t i = 0; i < o->out_count; i++) {
        const double want = o->expected[i], have = got[i];
        if ((isnan(want) && isnan(have)) || want == have)
            continue;
        if (reached != NULL && reached[i] && (isfinite(want) || !isfinite(have)))
            continue;
        const double size = reached != NULL ? largest : cases->rule == KLAUS_CHECK_TERMS ? o->terms[i] : fabs(want);
        double bound = tolerance * size;
        if (cases->rule != KLAUS_CHECK_EXACT)
            bound += underflow;
        const double error = fabs(want - have);
        if (!(error <= bound) && wrong == NULL) {
            snprintf(text, text_bytes, "output %zu is %.9g, not %.9g (bound %.3g)", i, have, want, bound);
            wrong = text;
        }
        if (isfinite(size) && size > 0 && cases->rule != KLAUS_CHECK_EXACT && error > underflow) {
            const double relative = error / size, share = relative / tolerance;
            if (share > v->worst_share) {
                v->worst_share = share;
                v->worst_error = relative;
                v->bound = tolerance;
            }
        }
    }
    free(reached);
    return wrong;
}

static const char *check_parts(const klaus_variant *variant, const klaus_operands *o, const klaus_check_cases *cases,
                               klaus_place place, klaus_verdict *v, char *text, size_t text_bytes) {
    const size_t out_bytes = o->out_count * klaus_dtype_bytes(o->shape.out_dtype);
    const size_t packed_bytes = (size_t)variant->packed_bytes(&o->shape);
    klaus_weights weights = o->weights;
    klaus_block packed = {0}, output = {0}, scratch = {0};
    const char *wrong = NULL;
    void *whole = malloc(out_bytes);
    float *values = malloc(o->out_count * sizeof(float));
    if (whole == NULL || values == NULL || !klaus_block_make(&packed, packed_bytes, KLAUS_ALIGNMENT, place)) {
        free(whole);
        free(values);
        return "no memory for the check";
    }
    klaus_attempt a = {.variant = variant, .weights = &weights};
    a.call.shape = &o->shape;
    a.call.weights = &weights;
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        a.call.input[n] = o->input[n].size > 0 ? o->input[n].bytes : NULL;
    if (packed_bytes > 0) {
        a.packed = packed.bytes;
        const char *signal = klaus_guard_call(klaus_attempt_do, &a);
        if (signal != NULL) {
            snprintf(text, text_bytes, "pack() stopped by %s", signal);
            wrong = text;
        } else if (!klaus_block_is_whole(&packed)) {
            wrong = "pack() wrote outside its result";
        }
        klaus_block_protect(&packed);
        a.packed = NULL;
        a.call.packed = packed.bytes;
        weights.values = NULL; /* run() has the packed ones */
        weights.codebook = NULL;
    }
    for (size_t run = 0; run < PART_RUNS && wrong == NULL; run++) {
        a.parts = part_counts[run];
        if (!klaus_block_make(&output, out_bytes, klaus_dtype_bytes(o->shape.out_dtype), place) ||
            !klaus_block_make(&scratch, (size_t)variant->scratch_bytes(&o->shape, a.parts), KLAUS_ALIGNMENT, place)) {
            wrong = "no memory for the check";
            break;
        }
        memset(output.bytes, (int)(0x55 + run), out_bytes);
        memset(scratch.bytes, 0xff, scratch.size); /* NaNs: what is not written before it is read shows */
        a.call.output = output.bytes;
        a.call.scratch = scratch.bytes;
        const char *signal = klaus_guard_call(klaus_attempt_do, &a);
        if (signal != NULL) {
            snprintf(text, text_bytes, "stopped by %s in %d parts", signal, (int)a.parts);
            wrong = text;
        } else if (!klaus_block_is_whole(&output)) {
            wrong = "wrote outside its output";
        } else if (!klaus_block_is_whole(&scratch)) {
            wrong = "wrote outside its scratch memory";
        } else if (run == 0) {
            memcpy(whole, output.bytes, out_bytes);
            klaus_operands_read(o, whole, values);
            wrong = compare(variant, o, cases, values, v, text, text_bytes);
        } else if (memcmp(whole, output.bytes, out_bytes) != 0) {
            snprintf(text, text_bytes, "another result in %d parts than in one", (int)a.parts);
            wrong = text;
        }
        klaus_block_free(&output);
        klaus_block_free(&scratch);
    }
    klaus_block_free(&output);
    klaus_block_free(&scratch);
    klaus_block_free(&packed);
    free(whole);
    free(values);
    return wrong;
}

/* The output in place of input `index`: the same numbers as elsewhere. */
static const char *check_in_place(const klaus_variant *variant, const klaus_operands *o, int32_t index,
                                  klaus_place place, char *text, size_t text_bytes) {
    const size_t bytes = o->input[index].size;
    klaus_block packed = {0}, apart = {0}, shared = {0}, scratch = {0};
    klaus_attempt a = {.variant = variant, .weights = &o->weights, .parts = 2};
    const char *wrong = "no memory for the check";
    if (klaus_block_make(&packed, (size_t)variant->packed_bytes(&o->shape), KLAUS_ALIGNMENT, place) &&
        klaus_block_make(&apart, bytes, klaus_dtype_bytes(o->shape.out_dtype), place) &&
        klaus_block_make(&shared, bytes, klaus_dtype_bytes(o->shape.out_dtype), place) &&
        klaus_block_make(&scratch, (size_t)variant->scratch_bytes(&o->shape, a.parts), KLAUS_ALIGNMENT, place)) {
        a.call = (klaus_call){.shape = &o->shape, .weights = &o->weights, .packed = packed.bytes};
        a.call.scratch = scratch.bytes;
        for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
            a.call.input[n] = o->input[n].size > 0 ? o->input[n].bytes : NULL;
        if (packed.size > 0)
            variant->pack(&o->shape, &o->weights, packed.bytes);
        memcpy(shared.bytes, o->input[index].bytes, bytes);
        a.call.output = apart.bytes;
        klaus_attempt_do(&a);
        a.call.input[index] = a.call.output = shared.bytes;
        const char *signal = klaus_guard_call(klaus_attempt_do, &a);
        wrong = signal != NULL ? signal : memcmp(apart.bytes, shared.bytes, bytes) != 0 ? "gives another result" : NULL;
        if (wrong != NULL) {
            snprintf(text, text_bytes, "in place of input %d: %s", (int)index, wrong);
            wrong = text;
        }
    }
    klaus_block_free(&packed);
    klaus_block_free(&apart);
    klaus_block_free(&shared);
    klaus_block_free(&scratch);
    return wrong;
}

void klaus_trial(const klaus_variant *variant, const klaus_operands *o, const klaus_check_cases *cases,
                 klaus_place place, klaus_verdict *v) {
    char text[200];
    v->cases++;
    const char *wrong = check_parts(variant, o, cases, place, v, text, sizeof text);
    for (int32_t n = 0; wrong == NULL && n < klaus_shape_inputs(&o->shape); n++)
        if (klaus_shape_in_place(&o->shape, n) && klaus_shape_input_count(&o->shape, n) == (int64_t)o->out_count)
            wrong = check_in_place(variant, o, n, place, text, sizeof text);
    if (wrong != NULL)
        fail(v, &o->shape, wrong);
}
