#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"
#include "engine/model.h"
#include "engine/session.h"
#include "os/os.h"
#include "program/command.h"
#include "program/sink.h"
#include "program/whole_file.h"

#define FIRST_MARK 10

typedef struct bench {
    session_arguments session;
    const char *input_path, *logits_path;
    int64_t runs, warmup, patches;
    bool profile;
    opened net;
    float *input;    /* one pass */
    uint8_t *pixels; /* ten patches */
    uint64_t random; /* state of next_random */
    klaus_picture picture;
    float *logits, *probabilities;
    uint64_t *layer_ns, *layer_total_ns;
    klaus_counters counters;
    bool counted; /* every measured pass so far */
    uint64_t *layer_instructions;
} bench;

static const char *job_name(const bench *job) {
    return job->patches == 10 ? "10-patch" : "pass";
}

/* xorshift64* (Vigna 2014): the same numbers on every device. */
static uint32_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * UINT64_C(0x2545f4914f6cdd1d) >> 32);
}

static void draw_tensor(bench *job) {
    const klaus_description *net = &job->net.net;
    const size_t count = (size_t)net->rows * (size_t)net->cols * (size_t)net->channels;
    /* ccv's networks read differences of 0..255, the others about -1..1. */
    const float range = job->net.model->network.formation == KLAUS_FORMATION_CCV ? 128.0f : 1.0f;
    for (size_t i = 0; i < count; i++) {
        job->input[i] = ((float)(next_random(&job->random) >> 8) / 8388608.0f - 1.0f) * range;
    }
}

/* Of the size that pictures are brought to: the job then holds no resampling but the mean's. */
static void draw_picture(bench *job) {
    const size_t count = (size_t)job->picture.rows * (size_t)job->picture.cols * 3;
    for (size_t i = 0; i < count; i++) {
        job->pixels[i] = (uint8_t)(next_random(&job->random) >> 24);
    }
}

static klaus_status make_picture(bench *job, klaus_error *error) {
    const struct klaus_network *network = &job->net.model->network;
    const size_t count = (size_t)network->picture_rows * (size_t)network->picture_cols * 3;
    job->pixels = malloc(count);
    if (job->pixels == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a picture of %zu bytes", count);
    }
    job->picture = (klaus_picture){job->pixels, network->picture_rows, network->picture_cols};
    draw_picture(job);
    return KLAUS_OK;
}

static klaus_status make_tensor(bench *job, klaus_error *error) {
    const klaus_description *net = &job->net.net;
    const size_t count = (size_t)net->rows * (size_t)net->cols * (size_t)net->channels;
    job->input = malloc(count * sizeof(*job->input));
    if (job->input == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for an input of %zu values", count);
    }
    draw_tensor(job);
    return KLAUS_OK;
}

/* What is counted must not depend on the input, and a pass must not find its answer where the last one left it. */
static void draw_again(bench *job) {
    if (job->pixels != NULL) {
        draw_picture(job);
    } else if (job->input_path == NULL) {
        draw_tensor(job);
    }
}

static klaus_status prepare(bench *job, klaus_error *error) {
    const klaus_description *net = &job->net.net;
    const size_t outputs = (size_t)net->outputs;
    const size_t layers = (size_t)net->layer_count;
    job->logits = malloc(outputs * sizeof(*job->logits));
    job->probabilities = malloc(outputs * sizeof(*job->probabilities));
    job->layer_ns = malloc(layers * sizeof(*job->layer_ns));
    job->layer_total_ns = calloc(layers, sizeof(*job->layer_total_ns));
    job->layer_instructions = calloc(layers, sizeof(*job->layer_instructions));
    if (job->logits == NULL || job->probabilities == NULL || job->layer_ns == NULL || job->layer_total_ns == NULL ||
        job->layer_instructions == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for %zu results", outputs);
    }
    if (job->patches == 10) {
        if (job->net.model->network.scan_layer == KLAUS_NO_LAYER) {
            return klaus_fail(error, KLAUS_E_INPUT, "model %s does not cut patches; --patches 10 needs one that does",
                              net->name);
        }
        return make_picture(job, error);
    }
    return job->input_path == NULL ? make_tensor(job, error) : read_tensor(job->input_path, net, &job->input, error);
}

static klaus_status one_pass(bench *job, klaus_timing *timing, klaus_error *error) {
    if (job->patches == 10) {
        return klaus_classify(job->net.session, &job->picture, 10, 1, job->probabilities, timing, error);
    }
    *timing = (klaus_timing){0, 0};
    return klaus_run(job->net.session, job->input, job->logits, job->probabilities, error);
}

/* What the system's counters say of one pass; false where they say nothing. */
static bool executed_since(const klaus_counters *counters, bool known, klaus_executed before, klaus_executed *pass) {
    klaus_executed after;
    if (!known || !klaus_os_executed(counters, &after) || after.instructions <= before.instructions) {
        return false;
    }
    pass->instructions = after.instructions - before.instructions;
    pass->cycles = before.cycles > 0 && after.cycles > before.cycles ? after.cycles - before.cycles : 0;
    return true;
}

static void sink_pass(const bench *job, int64_t index, uint64_t ns, const klaus_timing *timing,
                      const klaus_executed *executed) {
    sink_begin("pass");
    sink_int("index", index);
    sink_bool("warmup", index < job->warmup);
    sink_text("job", job_name(job));
    sink_uint("ns", ns);
    sink_uint("preprocess_ns", timing->preprocess_ns);
    if (executed->instructions > 0) {
        sink_uint("instructions", executed->instructions);
    }
    if (executed->cycles > 0) {
        sink_uint("cycles", executed->cycles);
    }
    sink_end();
}

static klaus_status run_passes(bench *job, klaus_error *error) {
    const int32_t layers = job->net.net.layer_count;
    for (int64_t index = 0; index < job->warmup + job->runs; index++) {
        const bool warmup = index < job->warmup;
        klaus_timing timing;
        if (job->session.mark) {
            if (index > 0) {
                draw_again(job);
            }
            klaus_os_mark((int32_t)(FIRST_MARK + 2 * index));
        }
        if (job->profile && !warmup && job->counted) {
            job->net.session->counters = &job->counters;
            job->net.session->layer_instructions = job->layer_instructions;
        }
        klaus_executed before, executed = {0, 0};
        const bool known = klaus_os_executed(&job->counters, &before);
        const uint64_t started = klaus_os_now_ns();
        const klaus_status status = one_pass(job, &timing, error);
        const uint64_t ns = klaus_os_now_ns() - started;
        if (!executed_since(&job->counters, known, before, &executed)) {
            job->counted = false;
        }
        if (job->session.mark) {
            klaus_os_mark((int32_t)(FIRST_MARK + 1 + 2 * index));
        }
        if (status != KLAUS_OK) {
            return status;
        }
        sink_pass(job, index, ns, &timing, &executed);
        if (!sink_works()) {
            break;
        }
        klaus_layer_times(job->net.session, job->layer_ns, layers);
        for (int32_t layer = 0; !warmup && layer < layers; layer++) {
            job->layer_total_ns[layer] += job->layer_ns[layer];
        }
    }
    return KLAUS_OK;
}

static void sink_profile(const bench *job) {
    for (int32_t layer = 0; layer < job->net.net.layer_count; layer++) {
        klaus_layer_description facts;
        klaus_describe_layer(job->net.model, layer, &facts);
        sink_begin("layer");
        sink_int("index", layer);
        sink_text("name", facts.name);
        sink_text("op", facts.op);
        sink_uint("ns", job->layer_total_ns[layer] / (uint64_t)job->runs);
        sink_uint("multiplies", facts.multiplies);
        if (job->counted) {
            sink_uint("instructions", job->layer_instructions[layer] / (uint64_t)job->runs);
        }
        sink_end();
    }
}

static void sink_results(const bench *job) {
    klaus_memory_figures memory;
    klaus_os_memory(&memory);
    sink_begin("memory");
    sink_uint("peak_resident_bytes", memory.peak_resident_bytes);
    sink_uint("resident_bytes", memory.resident_bytes);
    sink_uint("session_bytes", klaus_session_bytes(job->net.session));
    if (job->session.watch) {
        sink_uint("anonymous_bytes", klaus_anonymous_bytes(job->net.session));
    }
    sink_end();
    sink_begin("bench");
    sink_text("model", job->net.net.name);
    sink_int("runs", job->runs);
    sink_int("warmup", job->warmup);
    sink_int("threads", job->session.threads);
    sink_text("isa", isa_words[job->session.isa]);
    sink_text("precision", precision_words[job->session.precision]);
    sink_text("job", job_name(job));
    sink_bool("fused", !job->session.unfused);
    sink_bool("seeded", job->net.net.seeded != 0);
    if (job->counted) {
        sink_text("counter", klaus_os_counters_name());
    }
    sink_top(job->net.model, job->probabilities, job->net.net.outputs, 5);
    sink_end();
}

static klaus_status run_bench(bench *job, klaus_error *error) {
    sink_begin("load");
    sink_uint("open_ns", job->net.open_ns);
    sink_uint("session_ns", job->net.session_ns);
    sink_uint("file_bytes", job->net.net.file_bytes);
    sink_uint("session_bytes", klaus_session_bytes(job->net.session));
    sink_end();
    klaus_status status = run_passes(job, error);
    if (status == KLAUS_OK && job->logits_path != NULL) {
        status = write_floats(job->logits_path, job->logits, (uint64_t)job->net.net.outputs, error);
    }
    if (status == KLAUS_OK) {
        if (job->profile) {
            sink_profile(job);
        }
        sink_results(job);
    }
    return status;
}

klaus_status command_bench(int argc, char **argv, klaus_error *error) {
    bench job = {
        .session = SESSION_ARGUMENTS_DEFAULT, .runs = 10, .warmup = 1, .patches = 1, .random = 1, .counted = true};
    argument table[SESSION_ARGUMENT_COUNT + 8] = {
        {"--input", ARGUMENT_TEXT, &job.input_path, 0, 0, NULL, false},
        {"--logits", ARGUMENT_TEXT, &job.logits_path, 0, 0, NULL, false},
        {"--runs", ARGUMENT_NUMBER, &job.runs, 1, 1000000, NULL, false},
        {"--warmup", ARGUMENT_NUMBER, &job.warmup, 0, 1000000, NULL, false},
        {"--patches", ARGUMENT_NUMBER, &job.patches, 1, 10, NULL, false},
        {"--profile", ARGUMENT_FLAG, &job.profile, 0, 0, NULL, false},
        {"--mark", ARGUMENT_FLAG, &job.session.mark, 0, 0, NULL, false},
        {"--layer-memory", ARGUMENT_FLAG, &job.session.watch, 0, 0, NULL, false},
    };
    session_arguments_describe(&job.session, true, table + 8);
    operands rest;
    klaus_status status = arguments_read(table, SESSION_ARGUMENT_COUNT + 8, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    if (status == KLAUS_OK && job.patches != 1 && job.patches != 10) {
        status = klaus_fail(error, KLAUS_E_INPUT, "--patches: %" PRId64 " is neither 1 nor 10", job.patches);
    }
    if (status == KLAUS_OK && job.patches == 10 && (job.input_path != NULL || job.logits_path != NULL)) {
        status = klaus_fail(error, KLAUS_E_INPUT, "--input and --logits belong to one pass, not to --patches 10");
    }
    if (status != KLAUS_OK) {
        return status;
    }
    klaus_os_count(&job.counters); /* before the session starts its threads */
    status = open_session(&job.session, &job.net, error);
    if (status != KLAUS_OK) {
        klaus_os_count_end(&job.counters);
        return status;
    }
    status = prepare(&job, error);
    if (status == KLAUS_OK) {
        status = run_bench(&job, error);
    }
    free(job.input);
    free(job.pixels);
    free(job.logits);
    free(job.probabilities);
    free(job.layer_ns);
    free(job.layer_total_ns);
    free(job.layer_instructions);
    klaus_os_count_end(&job.counters);
    close_session(&job.net);
    return status;
}
