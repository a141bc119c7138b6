/* The checker's loop: op by op, case by case, variant by variant. Each case's operands are made once, so that every
 * variant sees the same; each variant runs whole and in 2, 3 and 5 parts. */
#include "check/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/cases.h"
#include "check/guard.h"
#include "check/operands.h"
#include "check/trial.h"
#include "dispatch.h"
#include "ops/shape.h"
#include "os/os.h"

static const klaus_check_cases *const all_cases[] = {
    &klaus_check_conv,        &klaus_check_full_connect, &klaus_check_max_pool,   &klaus_check_average_pool,
    &klaus_check_global_pool, &klaus_check_lrn,          &klaus_check_add,        &klaus_check_concat,
    &klaus_check_slice,       &klaus_check_softmax,      &klaus_check_activation, &klaus_check_cast,
};
#define OP_COUNT (sizeof all_cases / sizeof all_cases[0])

/* Activations of `dtype`; every fourth convolution and full connect of half or int8 ones gives float32, as the last
 * layer of a network does; every fourth convolution of halves with a picture's channels takes float32, as the first
 * does. Casts go to and fro. */
static void set_dtypes(klaus_shape *shape, uint32_t dtype, int32_t index) {
    shape->in_dtype = shape->out_dtype = dtype;
    if (shape->op == KLAUS_OP_CAST && index % 2 == 0)
        shape->in_dtype = KLAUS_F32;
    else if (shape->op == KLAUS_OP_CAST ||
             ((shape->op == KLAUS_OP_CONV || shape->op == KLAUS_OP_FULL_CONNECT) && index % 4 == 3))
        shape->out_dtype = KLAUS_F32;
    if (shape->op == KLAUS_OP_CONV && dtype == KLAUS_F16 && shape->in_channels < 4 && index % 4 == 0)
        shape->in_dtype = KLAUS_F32;
}

/* ---- timing ---- */

/* The fastest of three calls or more, until a tenth of a second has passed. False without memory or a fitting shape. */
static bool bench(const klaus_variant *variant, uint32_t dtype, const klaus_check_cases *cases, uint64_t seed,
                  klaus_check_report *report) {
    klaus_shape shape;
    int32_t index = 0;
    do {
        memset(&shape, 0, sizeof shape);
        if (!cases->bench(index++, &shape))
            return false;
        set_dtypes(&shape, dtype, 0);
    } while (!variant->can(&shape));
    klaus_random random = {seed};
    klaus_operands o;
    klaus_block packed = {0}, output = {0}, scratch = {0};
    const bool made =
        klaus_operands_make(&o, &shape, &random, KLAUS_VALUES_ORDINARY, KLAUS_PLACE_FRONT) &&
        klaus_block_make(&packed, (size_t)variant->packed_bytes(&shape), KLAUS_ALIGNMENT, KLAUS_PLACE_FRONT) &&
        klaus_block_make(&output, o.out_count * klaus_dtype_bytes(shape.out_dtype), KLAUS_ALIGNMENT,
                         KLAUS_PLACE_FRONT) &&
        klaus_block_make(&scratch, (size_t)variant->scratch_bytes(&shape, 1), KLAUS_ALIGNMENT, KLAUS_PLACE_FRONT);
    if (made) {
        klaus_attempt a = {.variant = variant, .weights = &o.weights, .parts = 1};
        a.call = (klaus_call){.shape = &o.shape,
                              .output = output.bytes,
                              .weights = &o.weights,
                              .packed = packed.bytes,
                              .scratch = scratch.bytes};
        for (int32_t n = 0; n < KLAUS_MAX_INPUTS; n++)
            a.call.input[n] = o.input[n].bytes;
        if (packed.size > 0)
            variant->pack(&o.shape, &o.weights, packed.bytes);
        const uint64_t start = klaus_os_now_ns();
        report->ns = UINT64_MAX;
        for (int32_t n = 0; n < 3 || klaus_os_now_ns() - start < 100000000u; n++) {
            const uint64_t before = klaus_os_now_ns();
            klaus_attempt_do(&a);
            const uint64_t took = klaus_os_now_ns() - before;
            report->ns = took < report->ns ? took : report->ns;
        }
        report->multiplies = (uint64_t)klaus_shape_multiplies(&shape);
    }
    klaus_block_free(&packed);
    klaus_block_free(&output);
    klaus_block_free(&scratch);
    klaus_operands_free(&o);
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

/* Checks the wanted variants of one op with activations of `dtype`; false for want of memory. */
static bool check_op(const klaus_check_cases *cases, uint32_t dtype, const klaus_check_options *options,
                     const bool *wanted, klaus_verdict *verdicts) {
    for (int32_t index = 0; index < cases->count; index++) {
        klaus_random random = {options->seed * 0x2545f4914f6cdd1du + cases->op * 1000003u + (uint64_t)index};
        klaus_shape shape;
        memset(&shape, 0, sizeof shape);
        shape.op = cases->op;
        cases->shape(index, &random, &shape);
        set_dtypes(&shape, dtype, index);
        const klaus_place place = index % 3 == 2 ? KLAUS_PLACE_FRONT : KLAUS_PLACE_BACK;
        klaus_values kind = index % 7 < 4 ? KLAUS_VALUES_ORDINARY : (klaus_values)(index % 7 - 3);
        if (kind == KLAUS_VALUES_NAN && (!cases->nan_defined || dtype == KLAUS_I8))
            kind = KLAUS_VALUES_ORDINARY;
        klaus_operands o;
        const bool made =
            klaus_operands_make(&o, &shape, &random, kind, place) && klaus_operands_expect(&o, cases->rule);
        for (int32_t n = 0; made && n < KLAUS_MAX_INPUTS; n++)
            klaus_block_protect(&o.input[n]);
        for (int32_t i = 0; made && i < klaus_dispatch_count(); i++) {
            const klaus_variant *variant = klaus_dispatch_variant(i);
            if (wanted[i] && klaus_dispatch_dtype(i) == dtype && variant->op == cases->op && variant->can(&o.shape))
                klaus_trial(variant, &o, cases, place, &verdicts[i]);
        }
        klaus_operands_free(&o);
        if (!made)
            return false;
    }
    return true;
}

/* Whether any wanted variant of the op has activations of `dtype`: making operands takes longer than checking them. */
static bool has_dtype(uint32_t op, uint32_t dtype, const bool *wanted) {
    for (int32_t i = 0; i < klaus_dispatch_count(); i++)
        if (wanted[i] && klaus_dispatch_variant(i)->op == op && klaus_dispatch_dtype(i) == dtype)
            return true;
    return false;
}

static void check_name(int32_t index, klaus_verdict *v) {
    char name[96];
    klaus_dispatch_spell(index, name, sizeof name);
    if (strcmp(name, klaus_dispatch_variant(index)->name) == 0)
        return;
    v->failed++;
    snprintf(v->message, sizeof v->message, "its line in kernels.def spells %.90s", name);
}

int klaus_check_run(const klaus_check_options *options, klaus_check_sink sink, void *user) {
    const int32_t count = klaus_dispatch_count();
    klaus_verdict *verdicts = calloc((size_t)count, sizeof *verdicts);
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
        static const uint32_t dtypes[] = {KLAUS_F32, KLAUS_F16, KLAUS_I8};
        klaus_guard_begin();
        for (size_t n = 0; memory && n < sizeof dtypes / sizeof dtypes[0]; n++)
            if (has_dtype(all_cases[op]->op, dtypes[n], wanted))
                memory = check_op(all_cases[op], dtypes[n], options, wanted, verdicts);
        klaus_guard_end();
        for (int32_t i = 0; memory && i < count; i++) {
            const klaus_variant *variant = klaus_dispatch_variant(i);
            if (!wanted[i] || variant->op != all_cases[op]->op)
                continue;
            klaus_verdict *v = &verdicts[i];
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
            if (options->bench && report.ok &&
                bench(variant, klaus_dispatch_dtype(i), all_cases[op], options->seed, &timed))
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
