#include "check/check.h"

#include "engine/fail.h"
#include "program/command.h"
#include "program/sink.h"

static void sink_variant(const klaus_check_report *report) {
    sink_begin("variant");
    sink_text("variant", report->variant);
    sink_text("op", report->op);
    sink_text("isa", report->isa);
    sink_text("core", report->core);
    sink_bool("available", report->available);
    sink_end();
}

static void sink_result(const klaus_check_report *report) {
    sink_begin("check");
    sink_text("variant", report->variant);
    sink_text("op", report->op);
    sink_text("isa", report->isa);
    sink_int("cases", report->cases);
    sink_int("failed", report->failed);
    sink_number("worst_error", report->worst_error);
    sink_number("bound", report->bound);
    sink_bool("ok", report->ok);
    sink_text("message", report->message);
    sink_end();
}

static void sink_bench(const klaus_check_report *report) {
    sink_begin("check_bench");
    sink_text("variant", report->variant);
    sink_uint("ns", report->ns);
    sink_uint("multiplies", report->multiplies);
    sink_end();
}

static void sink_summary(const klaus_check_report *report) {
    sink_begin("summary");
    sink_int("passed", report->passed_variants);
    sink_int("failed", report->failed_variants);
    sink_end();
}

static void sink_report(void *user, const klaus_check_report *report) {
    (void)user;
    switch (report->kind) {
    case KLAUS_CHECK_VARIANT:
        sink_variant(report);
        break;
    case KLAUS_CHECK_RESULT:
        sink_result(report);
        break;
    case KLAUS_CHECK_BENCH:
        sink_bench(report);
        break;
    case KLAUS_CHECK_SUMMARY:
        sink_summary(report);
        break;
    }
}

klaus_status command_check(int argc, char **argv, klaus_error *error) {
    const char *op = NULL;
    int32_t isa = KLAUS_ISA_AUTO;
    int64_t seed = 1;
    bool bench = false;
    bool list = false;
    const argument table[] = {
        {"--op", ARGUMENT_TEXT, &op, 0, 0, NULL, false},
        {"--isa", ARGUMENT_CHOICE, &isa, 0, 0, isa_words, false},
        {"--seed", ARGUMENT_NUMBER, &seed, 0, INT64_MAX, NULL, false},
        {"--bench", ARGUMENT_FLAG, &bench, 0, 0, NULL, false},
        {"--list", ARGUMENT_FLAG, &list, 0, 0, NULL, false},
    };
    operands rest;
    klaus_status status = arguments_read(table, 5, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const klaus_check_options options = {op, (klaus_isa)isa, (uint64_t)seed, bench, list};
    switch (klaus_check_run(&options, sink_report, NULL)) {
    case 0:
        return KLAUS_OK;
    case 1:
        return klaus_fail(error, KLAUS_E_CHECK, "a kernel differs from its reference; its record says where");
    case 2:
        return klaus_fail(error, KLAUS_E_INPUT, "no kernel that this CPU can run is named so; see --list");
    default:
        return klaus_fail(error, KLAUS_E_INTERNAL, "the checker found no memory");
    }
}
