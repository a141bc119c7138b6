#include "program/command.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/fail.h"
#include "engine/threads.h"
#include "os/os.h"
#include "program/sink.h"

const char *const isa_words[] = {"auto", "ref", "neon", "neon_fp16", "neon_dotprod", "neon_i8mm", NULL};
const char *const precision_words[] = {"fp32", "fp16", "int8", NULL};
const char *const memory_words[] = {"default", "lean", NULL};

void session_arguments_describe(session_arguments *values, bool model_required, argument *table) {
    const argument rows[SESSION_ARGUMENT_COUNT] = {
        {"--model", ARGUMENT_TEXT, &values->model, 0, 0, NULL, model_required},
        {"--threads", ARGUMENT_NUMBER, &values->threads, 1, KLAUS_MAX_THREADS, NULL, false},
        {"--isa", ARGUMENT_CHOICE, &values->isa, 0, 0, isa_words, false},
        {"--precision", ARGUMENT_CHOICE, &values->precision, 0, 0, precision_words, false},
        {"--memory", ARGUMENT_CHOICE, &values->memory, 0, 0, memory_words, false},
        {"--variant", ARGUMENT_TEXT, &values->variant, 0, 0, NULL, false},
        {"--unfused", ARGUMENT_FLAG, &values->unfused, 0, 0, NULL, false},
    };
    memcpy(table, rows, sizeof(rows));
}

klaus_status open_session(const session_arguments *arguments, opened *result, klaus_error *error) {
    memset(result, 0, sizeof(*result));
    klaus_options options;
    klaus_default_options(&options);
    options.threads = (int32_t)arguments->threads;
    options.isa = (klaus_isa)arguments->isa;
    options.precision = (klaus_precision)arguments->precision;
    options.memory = (klaus_memory)arguments->memory;
    options.fused = !arguments->unfused;
    options.variant = arguments->variant;
    options.mark = arguments->mark;
    options.watch = arguments->watch;
    const uint64_t started = klaus_os_now_ns();
    klaus_status status = klaus_open(arguments->model, &result->model, error);
    const uint64_t mapped = klaus_os_now_ns();
    if (status == KLAUS_OK) {
        klaus_describe(result->model, &result->net);
        status = klaus_session_open(result->model, &options, &result->session, error);
    }
    result->open_ns = mapped - started;
    result->session_ns = klaus_os_now_ns() - mapped;
    if (status != KLAUS_OK) {
        close_session(result);
    }
    return status;
}

void close_session(opened *result) {
    klaus_session_close(result->session);
    klaus_close(result->model);
    result->session = NULL;
    result->model = NULL;
}

klaus_status no_operands(const operands *rest, klaus_error *error) {
    if (rest->count != 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "'%.80s' was not expected; `klaus-run help` shows what is",
                          rest->texts[0]);
    }
    return KLAUS_OK;
}

klaus_status read_tensor(const char *path, const klaus_description *net, float **values, klaus_error *error) {
    const uint64_t count = (uint64_t)net->rows * (uint64_t)net->cols * (uint64_t)net->channels;
    klaus_mapping file;
    *values = NULL;
    klaus_status status = klaus_os_map(path, &file, error);
    if (status != KLAUS_OK) {
        return status;
    }
    if (file.size != count * sizeof(float)) {
        status =
            klaus_fail(error, KLAUS_E_INPUT, "%.200s: has %zu bytes, but an input of %d x %d x %d float32 has %" PRIu64,
                       path, file.size, net->rows, net->cols, net->channels, count * sizeof(float));
    } else if ((*values = malloc(file.size)) == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for an input of %zu bytes", file.size);
    } else {
        memcpy(*values, file.bytes, file.size);
        for (uint64_t i = 0; i < count && status == KLAUS_OK; i++) {
            if (!isfinite((*values)[i])) {
                status =
                    klaus_fail(error, KLAUS_E_INPUT, "%.200s: value %" PRIu64 " is infinite or not a number", path, i);
            }
        }
    }
    klaus_os_unmap(&file);
    if (status != KLAUS_OK) {
        free(*values);
        *values = NULL;
    }
    return status;
}

void sink_top(const klaus_model *model, const float *probabilities, int32_t outputs, int32_t k) {
    klaus_class classes[MAX_TOP];
    const int32_t found = klaus_top(probabilities, outputs, classes, k < MAX_TOP ? k : MAX_TOP);
    sink_open_array("top");
    for (int32_t i = 0; i < found; i++) {
        sink_open_object(NULL);
        sink_int("id", classes[i].id);
        sink_text("label", klaus_label(model, classes[i].id));
        sink_number("probability", (double)classes[i].probability);
        sink_close_object();
    }
    sink_close_array();
}
