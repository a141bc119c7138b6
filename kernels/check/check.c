/* The checker's loop: op by op, case by case, variant by variant. Each case's operands are made once, so that every
 * variant sees the same; each variant runs whole and in 2, 3 and 5 parts. */
#include "check/check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/cases.h"
#include "check/guard.h"
#include "dispatch.h"
#include "ops/shape.h"
#include "os/os.h"

static const klaus_check_cases *const all_cases[] = {
    &klaus_check_conv,        &klaus_check_full_connect, &klaus_check_max_pool,   &klaus_check_average_pool,
    &klaus_check_global_pool, &klaus_check_lrn,          &klaus_check_add,        &klaus_check_concat,
    &klaus_check_slice,       &klaus_check_softmax,      &klaus_check_activation,
};
#define OP_COUNT (sizeof all_cases / sizeof all_cases[0])

static const int32_t part_counts[] = {1, 2, 3, 5};
#define PART_RUNS (sizeof part_counts / sizeof part_counts[0])

/* ---- a case's operands ---- */

enum {
    VALUES_ORDINARY, /* -1 .. 1 */
    VALUES_SPARSE,   /* half of them zero, some negative zero, as after ReLU */
    VALUES_HOSTILE,  /* denormals, very large, very small */
    VALUES_NAN,      /* ordinary, with one NaN and one infinity among them */
    VALUE_KINDS
};

typedef struct operands {
    klaus_shape shape;
    klaus_block input[KLAUS_MAX_INPUTS], values, codebook, scale, bias;
    klaus_weights weights;
    float *expected, *terms; /* ordinary memory, out_count each */
    size_t out_count;
} operands;

static float hostile_value(klaus_random *random) {
    switch (klaus_random_int(random, 0, 5)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return klaus_random_float(random) * FLT_MIN; /* denormal */
    case 3:
        return klaus_random_float(random) * 1e15f;
    case 4:
        return klaus_random_float(random) * 1e-15f;
    default:
        return klaus_random_float(random);
    }
}

static void fill_floats(klaus_random *random, int kind, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        values[i] = klaus_random_float(random);
        if (kind == VALUES_SPARSE && klaus_random_int(random, 0, 1) == 0)
            values[i] = klaus_random_int(random, 0, 3) == 0 ? -0.0f : 0.0f;
        if (kind == VALUES_HOSTILE)
            values[i] = hostile_value(random);
    }
}

/* Halves of ordinary size: sign, an exponent for about 2^-6 .. 1, any mantissa; now and then zero or a denormal. */
static void fill_halves(klaus_random *random, uint16_t *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = klaus_random_bits(random);
        const uint16_t exponent = (uint16_t)(9 + (bits >> 16) % 6);
        values[i] = (uint16_t)((bits & 0x8000) | (uint16_t)(exponent << 10) | (bits & 0x3ff));
        if ((bits >> 32) % 16 == 0)
            values[i] &= 0x83ff;
    }
}

static bool make_weights(operands *o, klaus_random *random, klaus_place place) {
    const klaus_shape *s = &o->shape;
    const size_t rows = (size_t)s->out_channels, row = (size_t)klaus_shape_weights_per_row(s);
    const uint32_t dtype = s->weight_dtype;
    const size_t row_bytes = dtype == KLAUS_F32   ? row * 4
                             : dtype == KLAUS_F16 ? row * 2
                             : dtype == KLAUS_Q8  ? row
                             : dtype == KLAUS_Q4  ? (row + 1) / 2
                                                  : (row + 3) / 4;
    const size_t entry_bytes = s->codebook_dtype == KLAUS_F16 ? 2 : 4;
    if (!klaus_block_make(&o->values, rows * row_bytes,
                          dtype == KLAUS_F32   ? 4
                          : dtype == KLAUS_F16 ? 2
                                               : 1,
                          place) ||
        !klaus_block_make(&o->codebook, s->codebook_entries * entry_bytes, entry_bytes, place) ||
        !klaus_block_make(&o->scale, s->has_scale ? rows * 4 : 0, 4, place) ||
        !klaus_block_make(&o->bias, rows * 4, 4, place))
        return false;
    if (dtype == KLAUS_F32)
        fill_floats(random, VALUES_ORDINARY, (float *)(void *)o->values.bytes, rows * row);
    else if (dtype == KLAUS_F16)
        fill_halves(random, (uint16_t *)(void *)o->values.bytes, rows * row);
    else
        for (size_t r = 0; r < rows; r++) { /* any index below the number of entries, padding bits zero */
            uint8_t *bytes = o->values.bytes + r * row_bytes;
            const size_t bits = dtype == KLAUS_Q8 ? 8 : dtype == KLAUS_Q4 ? 4 : 2;
            memset(bytes, 0, row_bytes);
            for (size_t i = 0; i < row; i++)
                bytes[i * bits / 8] |=
                    (uint8_t)(klaus_random_int(random, 0, (int32_t)s->codebook_entries - 1) << (i * bits % 8));
        }
    if (s->codebook_dtype == KLAUS_F16)
        fill_halves(random, (uint16_t *)(void *)o->codebook.bytes, s->codebook_entries);
    else if (s->codebook_dtype == KLAUS_F32)
        fill_floats(random, VALUES_ORDINARY, (float *)(void *)o->codebook.bytes, s->codebook_entries);
    if (s->has_scale)
        fill_floats(random, VALUES_ORDINARY, (float *)(void *)o->scale.bytes, rows);
    fill_floats(random, VALUES_ORDINARY, (float *)(void *)o->bias.bytes, rows);
    o->weights.values = o->values.bytes;
    o->weights.row_bytes = row_bytes;
    o->weights.codebook = s->codebook_dtype != 0 ? o->codebook.bytes : NULL;
    o->weights.scale = s->has_scale ? (const float *)(const void *)o->scale.bytes : NULL;
    o->weights.bias = (const float *)(const void *)o->bias.bytes;
    return true;
}

static bool make_operands(operands *o, const klaus_shape *shape, klaus_random *random, int kind, klaus_place place) {
    memset(o, 0, sizeof *o);
    o->shape = *shape;
    for (int32_t n = 0; n < klaus_shape_inputs(shape); n++) {
        const size_t count = (size_t)klaus_shape_input_count(shape, n);
        if (!klaus_block_make(&o->input[n], count * 4, 4, place))
            return false;
        float *values = (float *)(void *)o->input[n].bytes;
        fill_floats(random, kind, values, count);
        if (kind == VALUES_NAN) {
            values[klaus_random_int(random, 0, (int32_t)count - 1)] = INFINITY;
            values[klaus_random_int(random, 0, (int32_t)count - 1)] = NAN;
        }
    }
    if (klaus_shape_weights_per_row(shape) > 0 && !make_weights(o, random, place))
        return false;
    o->out_count = (size_t)klaus_shape_output_count(shape);
    o->expected = malloc(o->out_count * sizeof(float));
    o->terms = malloc(o->out_count * sizeof(float));
    return o->expected != NULL && o->terms != NULL;
}

static void free_operands(operands *o) {
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        klaus_block_free(&o->input[n]);
    klaus_block_free(&o->values);
    klaus_block_free(&o->codebook);
    klaus_block_free(&o->scale);
    klaus_block_free(&o->bias);
    free(o->expected);
    free(o->terms);
}

static void make_absolute(klaus_block *block, size_t number_bytes) {
    for (size_t i = number_bytes - 1; i < block->size; i += number_bytes)
        block->bytes[i] &= 0x7f; /* the sign bit of a little-endian float or half */
}

/* Runs the oracle into ordinary memory. */
static bool run_oracle(const operands *o, const klaus_shape *shape, float *output) {
    const klaus_variant *oracle = klaus_dispatch_oracle(shape->op);
    klaus_call call = {.shape = shape, .output = output, .weights = &o->weights};
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        call.input[n] = o->input[n].bytes;
    call.scratch = malloc((size_t)oracle->scratch_bytes(shape, 1) + 1);
    if (call.scratch == NULL)
        return false;
    oracle->run(&call, 0, 0, 1);
    free(call.scratch);
    return true;
}

/* Fills o->expected and, for ops that sum, o->terms: the oracle on absolute values, without an activation. */
static bool expect(operands *o, klaus_check_rule rule) {
    if (!run_oracle(o, &o->shape, o->expected))
        return false;
    if (rule != KLAUS_CHECK_TERMS)
        return true;
    operands absolute = *o;
    bool made = true;
    klaus_block *const from[] = {&o->values, &o->codebook, &o->scale, &o->bias};
    klaus_block *const to[] = {&absolute.values, &absolute.codebook, &absolute.scale, &absolute.bias};
    const bool indices = o->shape.codebook_dtype != 0;
    const size_t number_bytes[] = {indices                              ? 0
                                   : o->shape.weight_dtype == KLAUS_F16 ? 2
                                                                        : 4,
                                   o->shape.codebook_dtype == KLAUS_F16 ? 2 : 4, 4, 4};
    for (int i = 0; i < 4; i++) {
        made = klaus_block_make(to[i], from[i]->size, 4, KLAUS_PLACE_FRONT) && made;
        if (!made || from[i]->size == 0)
            continue;
        memcpy(to[i]->bytes, from[i]->bytes, from[i]->size);
        if (number_bytes[i] != 0)
            make_absolute(to[i], number_bytes[i]);
    }
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++) {
        made = klaus_block_make(&absolute.input[n], o->input[n].size, 4, KLAUS_PLACE_FRONT) && made;
        if (!made || o->input[n].size == 0)
            continue;
        memcpy(absolute.input[n].bytes, o->input[n].bytes, o->input[n].size);
        make_absolute(&absolute.input[n], 4);
    }
    absolute.weights.values = absolute.values.bytes;
    absolute.weights.codebook = o->weights.codebook != NULL ? absolute.codebook.bytes : NULL;
    absolute.weights.scale = o->weights.scale != NULL ? (const float *)(const void *)absolute.scale.bytes : NULL;
    absolute.weights.bias = (const float *)(const void *)absolute.bias.bytes;
    klaus_shape linear = o->shape;
    linear.activation = KLAUS_LINEAR;
    made = made && run_oracle(&absolute, &linear, o->terms);
    absolute.expected = absolute.terms = NULL;
    free_operands(&absolute);
    return made;
}

/* ---- one variant on one case ---- */

typedef struct verdict {
    int32_t cases, failed;
    double worst_error, bound, worst_share;
    char message[360];
} verdict;

typedef struct attempt {
    const klaus_variant *variant;
    klaus_call call;
    int32_t parts;
    void *packed; /* not NULL: pack into it instead of running */
    const klaus_weights *weights;
} attempt;

static void do_attempt(void *data) {
    const attempt *a = data;
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
             "(%u), act %u, scale %d, addend %d]",
             klaus_op_name(s->op), (int)s->batch, (int)s->in_rows, (int)s->in_cols, (int)s->in_channels,
             (int)s->out_rows, (int)s->out_cols, (int)s->out_channels, (int)s->kernel_rows, (int)s->kernel_cols,
             (int)s->stride_rows, (int)s->stride_cols, (int)s->pad_top, (int)s->pad_left, (int)s->groups, (int)s->size,
             (unsigned)s->weight_dtype, (unsigned)s->codebook_dtype, (unsigned)s->codebook_entries,
             (unsigned)s->activation, (int)s->has_scale, (int)s->has_addend);
}

static void fail(verdict *v, const klaus_shape *shape, const char *what) {
    v->failed++;
    if (v->message[0] != '\0')
        return;
    char text[240];
    describe(shape, text, sizeof text);
    snprintf(v->message, sizeof v->message, "%.110s %s", what, text);
}

/* NULL if all outputs are within their bounds, else what is wrong (in `text`). */
static const char *compare(const klaus_variant *variant, const operands *o, const klaus_check_cases *cases,
                           const float *got, verdict *v, char *text, size_t text_bytes) {
    const double tolerance = cases->rule == KLAUS_CHECK_EXACT ? 0 : cases->tolerance(&o->shape);
    /* armv7's NEON takes denormals for zeros; each may meet a factor of about 1. */
    const double underflow = (double)FLT_MIN * (double)(klaus_shape_weights_per_row(&o->shape) + 16);
    const char *wrong = NULL;
    double largest = 0; /* for variants that mix neighbours; infinite where a NaN or an infinity is among them */
    for (size_t i = 0; variant->spreads && i < o->out_count; i++)
        largest = fmax(largest, isfinite(o->terms[i]) ? o->terms[i] : INFINITY);
    for (size_t i = 0; i < o->out_count; i++) {
        const double want = o->expected[i], have = got[i];
        if ((isnan(want) && isnan(have)) || want == have)
            continue;
        if (isinf(largest) && (isfinite(want) || !isfinite(have)))
            continue;
        const double size = variant->spreads ? largest : cases->rule == KLAUS_CHECK_TERMS ? o->terms[i] : fabs(want);
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
    return wrong;
}

static const char *check_parts(const klaus_variant *variant, const operands *o, const klaus_check_cases *cases,
                               klaus_place place, verdict *v, char *text, size_t text_bytes) {
    const size_t out_bytes = o->out_count * sizeof(float);
    const size_t packed_bytes = (size_t)variant->packed_bytes(&o->shape);
    klaus_weights weights = o->weights;
    klaus_block packed = {0}, output = {0}, scratch = {0};
    const char *wrong = NULL;
    float *whole = malloc(out_bytes);
    if (whole == NULL || !klaus_block_make(&packed, packed_bytes, KLAUS_ALIGNMENT, place)) {
        free(whole);
        return "no memory for the check";
    }
    attempt a = {.variant = variant, .weights = &weights};
    a.call.shape = &o->shape;
    a.call.weights = &weights;
    for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
        a.call.input[n] = o->input[n].size > 0 ? o->input[n].bytes : NULL;
    if (packed_bytes > 0) {
        a.packed = packed.bytes;
        const char *signal = klaus_guard_call(do_attempt, &a);
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
        if (!klaus_block_make(&output, out_bytes, 4, place) ||
            !klaus_block_make(&scratch, (size_t)variant->scratch_bytes(&o->shape, a.parts), KLAUS_ALIGNMENT, place)) {
            wrong = "no memory for the check";
            break;
        }
        memset(output.bytes, (int)(0x55 + run), out_bytes);
        memset(scratch.bytes, 0xff, scratch.size); /* NaNs: what is not written before it is read shows */
        a.call.output = output.bytes;
        a.call.scratch = scratch.bytes;
        const char *signal = klaus_guard_call(do_attempt, &a);
        if (signal != NULL) {
            snprintf(text, text_bytes, "stopped by %s in %d parts", signal, (int)a.parts);
            wrong = text;
        } else if (!klaus_block_is_whole(&output)) {
            wrong = "wrote outside its output";
        } else if (!klaus_block_is_whole(&scratch)) {
            wrong = "wrote outside its scratch memory";
        } else if (run == 0) {
            memcpy(whole, output.bytes, out_bytes);
            wrong = compare(variant, o, cases, whole, v, text, text_bytes);
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
    return wrong;
}

static void check_case(const klaus_variant *variant, const operands *o, const klaus_check_cases *cases,
                       klaus_place place, verdict *v) {
    char text[200];
    v->cases++;
    const char *wrong = check_parts(variant, o, cases, place, v, text, sizeof text);
    if (wrong != NULL)
        fail(v, &o->shape, wrong);
}

/* ---- timing ---- */

/* The fastest of three calls or more, until a tenth of a second has passed. False without memory or a fitting shape. */
static bool bench(const klaus_variant *variant, const klaus_check_cases *cases, uint64_t seed,
                  klaus_check_report *report) {
    klaus_shape shape;
    int32_t index = 0;
    do {
        memset(&shape, 0, sizeof shape);
        if (!cases->bench(index++, &shape))
            return false;
    } while (!variant->can(&shape));
    klaus_random random = {seed};
    operands o;
    klaus_block packed = {0}, output = {0}, scratch = {0};
    const bool made =
        make_operands(&o, &shape, &random, VALUES_ORDINARY, KLAUS_PLACE_FRONT) &&
        klaus_block_make(&packed, (size_t)variant->packed_bytes(&shape), KLAUS_ALIGNMENT, KLAUS_PLACE_FRONT) &&
        klaus_block_make(&output, o.out_count * sizeof(float), KLAUS_ALIGNMENT, KLAUS_PLACE_FRONT) &&
        klaus_block_make(&scratch, (size_t)variant->scratch_bytes(&shape, 1), KLAUS_ALIGNMENT, KLAUS_PLACE_FRONT);
    if (made) {
        attempt a = {.variant = variant, .weights = &o.weights, .parts = 1};
        a.call = (klaus_call){.shape = &shape,
                              .output = output.bytes,
                              .weights = &o.weights,
                              .packed = packed.bytes,
                              .scratch = scratch.bytes};
        for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
            a.call.input[n] = o.input[n].bytes;
        if (packed.size > 0)
            variant->pack(&shape, &o.weights, packed.bytes);
        const uint64_t start = klaus_os_now_ns();
        report->ns = UINT64_MAX;
        for (int32_t n = 0; n < 3 || klaus_os_now_ns() - start < 100000000u; n++) {
            const uint64_t before = klaus_os_now_ns();
            do_attempt(&a);
            const uint64_t took = klaus_os_now_ns() - before;
            report->ns = took < report->ns ? took : report->ns;
        }
        report->multiplies = (uint64_t)klaus_shape_multiplies(&shape);
    }
    klaus_block_free(&packed);
    klaus_block_free(&output);
    klaus_block_free(&scratch);
    free_operands(&o);
    return made;
}

/* ---- the run ---- */

static bool is_wanted(const klaus_variant *variant, const klaus_check_options *options) {
    if (options->isa != KLAUS_ISA_AUTO && variant->isa != options->isa)
        return false;
    return options->op == NULL || strcmp(options->op, klaus_op_name(variant->op)) == 0 ||
           strcmp(options->op, variant->name) == 0 ||
           (options->op[0] != '\0' && strstr(variant->name, options->op) != NULL);
}

static klaus_check_report report_on(klaus_check_kind kind, const klaus_variant *variant) {
    return (klaus_check_report){.kind = kind,
                                .variant = variant->name,
                                .op = klaus_op_name(variant->op),
                                .isa = klaus_isa_name(variant->isa),
                                .core = klaus_core_class_name(variant->core),
                                .available = klaus_dispatch_available(variant, klaus_cpu_here()),
                                .message = ""};
}

/* Checks the wanted variants of one op; false for want of memory. */
static bool check_op(const klaus_check_cases *cases, const klaus_check_options *options, const bool *wanted,
                     verdict *verdicts) {
    for (int32_t index = 0; index < cases->count; index++) {
        klaus_random random = {options->seed * 0x2545f4914f6cdd1du + cases->op * 1000003u + (uint64_t)index};
        klaus_shape shape;
        memset(&shape, 0, sizeof shape);
        shape.op = cases->op;
        shape.in_dtype = shape.out_dtype = KLAUS_F32;
        cases->shape(index, &random, &shape);
        const klaus_place place = index % 3 == 2 ? KLAUS_PLACE_FRONT : KLAUS_PLACE_BACK;
        int kind = index % 7 < 4 ? VALUES_ORDINARY : index % 7 - 3;
        if (kind == VALUES_NAN && !cases->nan_defined)
            kind = VALUES_ORDINARY;
        operands o;
        const bool made = make_operands(&o, &shape, &random, kind, place) && expect(&o, cases->rule);
        for (int32_t n = 0; made && n < KLAUS_MAX_INPUTS; n++)
            klaus_block_protect(&o.input[n]);
        for (int32_t i = 0; made && i < klaus_dispatch_count(); i++) {
            const klaus_variant *variant = klaus_dispatch_variant(i);
            if (wanted[i] && variant->op == cases->op && variant->can(&shape))
                check_case(variant, &o, cases, place, &verdicts[i]);
        }
        free_operands(&o);
        if (!made)
            return false;
    }
    return true;
}

static void check_name(int32_t index, verdict *v) {
    char name[96];
    klaus_dispatch_spell(index, name, sizeof name);
    if (strcmp(name, klaus_dispatch_variant(index)->name) == 0)
        return;
    v->failed++;
    snprintf(v->message, sizeof v->message, "its line in kernels.def spells %.90s", name);
}

int klaus_check_run(const klaus_check_options *options, klaus_check_sink sink, void *user) {
    const int32_t count = klaus_dispatch_count();
    verdict *verdicts = calloc((size_t)count, sizeof *verdicts);
    bool *wanted = calloc((size_t)count, sizeof *wanted);
    klaus_check_report summary = {.kind = KLAUS_CHECK_SUMMARY, .variant = "", .op = "", .isa = "", .core = ""};
    summary.message = "";
    bool any = false, memory = verdicts != NULL && wanted != NULL;
    for (int32_t i = 0; memory && i < count; i++) {
        const klaus_variant *variant = klaus_dispatch_variant(i);
        wanted[i] = is_wanted(variant, options);
        any = any || wanted[i];
        if (wanted[i] && options->list) {
            const klaus_check_report report = report_on(KLAUS_CHECK_VARIANT, variant);
            sink(user, &report);
        }
        wanted[i] = wanted[i] && klaus_dispatch_available(variant, klaus_cpu_here());
    }
    for (size_t op = 0; memory && !options->list && op < OP_COUNT; op++) {
        klaus_guard_begin();
        memory = check_op(all_cases[op], options, wanted, verdicts);
        klaus_guard_end();
        for (int32_t i = 0; memory && i < count; i++) {
            const klaus_variant *variant = klaus_dispatch_variant(i);
            if (!wanted[i] || variant->op != all_cases[op]->op)
                continue;
            verdict *v = &verdicts[i];
            check_name(i, v);
            if (v->cases == 0) {
                v->failed++;
                snprintf(v->message, sizeof v->message, "no case of the checker fits this variant");
            }
            klaus_check_report report = report_on(KLAUS_CHECK_RESULT, variant);
            report.cases = v->cases;
            report.failed = v->failed;
            report.ok = v->failed == 0;
            report.worst_error = v->worst_error;
            report.bound = v->bound;
            report.message = v->message;
            sink(user, &report);
            if (report.ok)
                summary.passed_variants++;
            else
                summary.failed_variants++;
            klaus_check_report timed = report_on(KLAUS_CHECK_BENCH, variant);
            if (options->bench && report.ok && bench(variant, all_cases[op], options->seed, &timed))
                sink(user, &timed);
        }
    }
    free(verdicts);
    free(wanted);
    if (!memory)
        return 5;
    if (!any)
        return 2;
    if (!options->list) {
        summary.ok = summary.failed_variants == 0;
        sink(user, &summary);
    }
    return summary.failed_variants == 0 ? 0 : 1;
}
