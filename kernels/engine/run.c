/* Sessions: opened, run, asked, closed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bands.h"
#include "engine/fail.h"
#include "engine/packed.h"
#include "engine/session.h"
#include "ops/elements.h"
#include "ops/shape.h"
#include "os/os.h"

/* Tags of klaus_os_mark: what ran since the mark before was no layer; was the layers that end with number n. */
#define MARK_NO_LAYER 999
#define MARK_LAYER 1000

/* ---- steps ---- */

typedef struct phase_work {
    const klaus_variant *variant;
    const klaus_call *call;
    int32_t phase;
} phase_work;

static void run_part(const void *context, int32_t part, int32_t parts) {
    const phase_work *work = context;
    work->variant->run(work->call, work->phase, part, parts);
}

static void run_variant(klaus_pool *pool, const klaus_variant *variant, const klaus_call *call) {
    for (int32_t phase = 0; phase < variant->phases; phase++) {
        const phase_work work = {variant, call, phase};
        klaus_pool_run(pool, run_part, &work);
    }
}

/* Instructions up to now; 0 unless they are counted. */
static uint64_t executed(const klaus_session *session) {
    klaus_executed counted = {0, 0};
    if (session->counters != NULL) {
        klaus_os_executed(session->counters, &counted);
    }
    return counted.instructions;
}

/* Shows a step's output to the sink, as float32; false if it wants no more. */
static bool show(klaus_session *session, const klaus_step *step, const void *output, klaus_layer_sink sink,
                 void *user) {
    const klaus_shape *shape = &step->shape;
    const float *values = output;
    if (shape->out_dtype != KLAUS_F32) {
        klaus_elements_read(output, shape->out_dtype, &shape->out_quantization, klaus_shape_output_count(shape),
                            session->shown.bytes);
        values = session->shown.bytes;
    }
    return sink(user, step->last, values, shape->out_rows, shape->out_cols, shape->out_channels) == 0;
}

/* What a run of steps works with. */
typedef struct work {
    klaus_session *session;
    const klaus_steps *steps;
    const void *input;
    void *output;
} work;

/* Where step `number` has its output; KLAUS_PLAN_INPUT: what the caller gave. */
static char *place_of(const work *run, int32_t number) {
    if (number == KLAUS_PLAN_INPUT) {
        return (char *)(uintptr_t)run->input;
    }
    if (number == run->steps->step_count - 1) {
        return run->output;
    }
    return (char *)run->session->arena.bytes + (size_t)run->steps->steps[number].output_offset;
}

/* The layer that a step's time counts for: a cast's is the one that it is made for, the next that is none, or the last.
 */
static int32_t counted_layer(const klaus_steps *steps, int32_t number) {
    while (steps->steps[number].layer_count == 0 && number < steps->step_count - 1) {
        number++;
    }
    return steps->steps[number].last;
}

static void call_step(const work *run, int32_t number, klaus_call *call) {
    klaus_session *session = run->session;
    const klaus_step *step = &run->steps->steps[number];
    const bool cast = step->layer_count == 0;
    const bool last = number == run->steps->step_count - 1;
    const int32_t layer = counted_layer(run->steps, number);
    call->packed = step->packed;
    call->scratch = session->scratch.bytes;
    if (!cast && session->model->data[step->first].weights.values != NULL) {
        call->weights = &session->model->data[step->first].weights;
    }
    const uint64_t before = executed(session);
    const uint64_t started = klaus_os_now_ns();
    run_variant(session->pool, step->variant, call);
    session->layer_ns[layer] += klaus_os_now_ns() - started;
    if (session->layer_instructions != NULL) {
        session->layer_instructions[layer] += executed(session) - before;
    }
    if (session->watching) {
        const uint64_t bytes = klaus_os_anonymous_bytes();
        session->anonymous_bytes = bytes > session->anonymous_bytes ? bytes : session->anonymous_bytes;
    }
    if (session->options.mark && (!cast || last)) {
        klaus_os_mark(MARK_LAYER + layer);
    }
}

/* All steps of the chain that begins with step `first`, band by band. */
static void run_chain(const work *run, int32_t first) {
    const klaus_step *steps = &run->steps->steps[first];
    klaus_bands bands;
    memset(&bands, 0, sizeof(bands));
    while (klaus_bands_next(steps, &bands)) {
        for (int32_t k = 0; k < steps->chain; k++) {
            const int32_t begin = bands.begin[k];
            const uint64_t row_bytes = klaus_row_bytes(&steps[k]);
            char *output = place_of(run, first + k);
            if (bands.drop[k] > 0) { /* what the band before left for this one */
                const int32_t kept = begin - bands.base[k];
                memmove(output, output + (size_t)(row_bytes * (uint64_t)bands.drop[k]),
                        (size_t)(row_bytes * (uint64_t)kept));
            }
            if (begin == bands.done[k]) {
                continue;
            }
            int32_t first_row = 0;
            const klaus_shape shape = klaus_band_shape(&steps[k], begin, bands.done[k], &first_row);
            const uint64_t in_row_bytes = (uint64_t)shape.in_cols * (uint64_t)shape.in_channels *
                                          klaus_dtype_bytes(klaus_shape_input_dtype(&shape, 0));
            klaus_call call = {.shape = &shape};
            first_row -= k > 0 ? bands.base[k - 1] : 0;
            call.input[0] = place_of(run, steps[k].inputs[0]) + (size_t)(in_row_bytes * (uint64_t)first_row);
            if (steps[k].input_count > 1) { /* an addend is a whole map */
                call.input[1] = place_of(run, steps[k].inputs[1]) + (size_t)(row_bytes * (uint64_t)begin);
            }
            call.output = output + (size_t)(row_bytes * (uint64_t)(begin - bands.base[k]));
            call_step(run, first + k, &call);
        }
    }
}

bool klaus_steps_run(klaus_session *session, const klaus_steps *steps, const float *input, float *output,
                     klaus_layer_sink sink, void *user) {
    const work run = {session, steps, input, output};
    if (session->options.mark) {
        klaus_os_mark(MARK_NO_LAYER);
    }
    for (int32_t s = 0; s < steps->step_count; s += steps->steps[s].chain) {
        const klaus_step *step = &steps->steps[s];
        if (step->chain > 1) { /* never where a sink wants to see all layers */
            run_chain(&run, s);
            continue;
        }
        klaus_call call = {.shape = &step->shape, .output = place_of(&run, s)};
        for (int32_t i = 0; i < step->input_count; i++) {
            call.input[i] = place_of(&run, step->inputs[i]);
        }
        call_step(&run, s, &call);
        if (sink != NULL && step->layer_count > 0 && !show(session, step, call.output, sink, user)) {
            return false;
        }
    }
    return true;
}

klaus_status klaus_finish_rows(const klaus_session *session, float *values, int32_t rows, klaus_error *error) {
    const klaus_model *model = session->model;
    const int32_t outputs = model->network.outputs;
    const size_t count = (size_t)rows * (size_t)outputs;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) {
            return klaus_fail(error, KLAUS_E_CHECK,
                              "the network answers with numbers that are infinite or not a number; run `verify`");
        }
    }
    if (model->layers[model->layer_count - 1].op == KLAUS_OP_SOFTMAX) {
        return KLAUS_OK;
    }
    const klaus_shape shape = {.op = KLAUS_OP_SOFTMAX,
                               .batch = rows,
                               .in_rows = 1,
                               .in_cols = 1,
                               .in_channels = outputs,
                               .out_rows = 1,
                               .out_cols = 1,
                               .out_channels = outputs,
                               .input_count = 1,
                               .in_dtype = KLAUS_F32,
                               .out_dtype = KLAUS_F32};
    const klaus_variant *variant = klaus_dispatch_choose(&shape, &session->dispatch);
    if (variant == NULL || variant->scratch_bytes(&shape, 1) != 0 || variant->packed_bytes(&shape) != 0) {
        return klaus_fail(error, KLAUS_E_INTERNAL, "no softmax in this build; see `klaus-run check --list`");
    }
    const klaus_call call = {.shape = &shape, .input = {values}, .output = values};
    for (int32_t phase = 0; phase < variant->phases; phase++) {
        variant->run(&call, phase, 0, 1); /* too little work to wake threads for */
    }
    return KLAUS_OK;
}

/* ---- sessions ---- */

void klaus_default_options(klaus_options *options) {
    *options = (klaus_options){.threads = 1,
                               .isa = KLAUS_ISA_AUTO,
                               .precision = KLAUS_FP32,
                               .memory = KLAUS_MEMORY_DEFAULT,
                               .fused = 1,
                               .variant = NULL,
                               .mark = 0,
                               .watch = 0};
}

static klaus_status check_options(const klaus_model *model, const klaus_options *options, klaus_error *error) {
    if (options->isa < KLAUS_ISA_AUTO || options->isa > KLAUS_ISA_NEON_I8MM) {
        return klaus_fail(error, KLAUS_E_INPUT, "there is no instruction set number %d", (int)options->isa);
    }
    if (!klaus_cpu_has(klaus_cpu_here(), options->isa)) {
        return klaus_fail(error, KLAUS_E_INPUT, "this CPU has no %s; `klaus-run info` lists what it has",
                          klaus_isa_name(options->isa));
    }
    if (options->precision < KLAUS_FP32 || options->precision > KLAUS_INT8) {
        return klaus_fail(error, KLAUS_E_INPUT, "there is no precision number %d", (int)options->precision);
    }
    const klaus_isa highest = options->isa != KLAUS_ISA_AUTO ? options->isa : KLAUS_ISA_NEON_I8MM;
    if (options->precision == KLAUS_FP16 &&
        (highest < KLAUS_ISA_NEON_FP16 || !klaus_cpu_has(klaus_cpu_here(), KLAUS_ISA_NEON_FP16))) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "precision fp16 needs neon_fp16, which %s; use fp32, or int8 with a calibrated model",
                          highest < KLAUS_ISA_NEON_FP16 ? "the options exclude" : "this CPU does not have");
    }
    bool measured = model->ranges != NULL;
    for (int32_t i = 0; measured && i <= model->layer_count; i++) {
        measured = model->ranges[i].method != 0;
    }
    if (options->precision == KLAUS_INT8 && !measured) {
        return klaus_fail(
            error, KLAUS_E_INPUT,
            "model %s has no activation range of every layer, which int8 needs; `klaus calibrate SOURCE --images DIR` "
            "measures them, or use fp32",
            model->name);
    }
    if (options->memory < KLAUS_MEMORY_DEFAULT || options->memory > KLAUS_MEMORY_LEAN) {
        return klaus_fail(error, KLAUS_E_INPUT, "there is no memory mode number %d", (int)options->memory);
    }
    if (options->variant != NULL && klaus_dispatch_find(options->variant) == NULL) {
        return klaus_fail(error, KLAUS_E_INPUT, "no kernel variant is called %.80s; `klaus-run check --list` names all",
                          options->variant);
    }
    return KLAUS_OK;
}

klaus_status klaus_session_open(const klaus_model *model, const klaus_options *options, klaus_session **session,
                                klaus_error *error) {
    *session = NULL;
    klaus_status status = check_options(model, options, error);
    if (status != KLAUS_OK) {
        return status;
    }
    klaus_session *opened = calloc(1, sizeof(*opened));
    if (opened == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a session");
    }
    opened->model = model;
    opened->options = *options;
    opened->watching = options->watch != 0;
    opened->options.variant = NULL;
    if (options->variant != NULL) { /* the table's own copy of the name outlives the caller's */
        opened->options.variant = klaus_dispatch_find(options->variant)->name;
    }
    opened->dispatch =
        (klaus_dispatch_options){options->isa, opened->options.variant, NULL, options->memory == KLAUS_MEMORY_LEAN};
    opened->packed = calloc((size_t)model->layer_count, sizeof(*opened->packed));
    opened->layer_ns = calloc((size_t)model->layer_count, sizeof(*opened->layer_ns));
    if (opened->packed == NULL || opened->layer_ns == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for a session of %d layers", model->layer_count);
    }
    if (status == KLAUS_OK) {
        status = klaus_pool_open(options->threads, &opened->pool, error);
    }
    if (status == KLAUS_OK) {
        status =
            klaus_buffer_need(&opened->logits, (uint64_t)model->network.outputs * KLAUS_PATCHES * sizeof(float), error);
    }
    if (status == KLAUS_OK) {
        const klaus_plan_request request = {
            0, model->layer_count, {model->network.rows, model->network.cols, model->network.channels}, 1};
        status = klaus_steps_make(opened, &request, &opened->whole, error);
    }
    if (status != KLAUS_OK) {
        klaus_session_close(opened);
        return status;
    }
    *session = opened;
    return KLAUS_OK;
}

void klaus_session_close(klaus_session *session) {
    if (session == NULL) {
        return;
    }
    klaus_pool_close(session->pool);
    klaus_packed_free(session);
    free(session->layer_ns);
    klaus_steps_free(session->whole);
    klaus_steps_free(session->patch);
    klaus_steps_free(session->tail);
    for (int32_t i = 0; i < KLAUS_SCAN_PLANS; i++) {
        klaus_steps_free(session->scan[i]);
    }
    klaus_buffer *const buffers[] = {&session->arena,    &session->scratch, &session->logits, &session->formed,
                                     &session->narrowed, &session->tensor,  &session->mean,   &session->map,
                                     &session->slices,   &session->rows,    &session->shown};
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        klaus_buffer_free(buffers[i]);
    }
    free(session);
}

static void forget_times(klaus_session *session) {
    memset(session->layer_ns, 0, (size_t)session->model->layer_count * sizeof(*session->layer_ns));
}

klaus_status klaus_run(klaus_session *session, const float *input, float *logits, float *probabilities,
                       klaus_error *error) {
    const size_t bytes = (size_t)session->model->network.outputs * sizeof(float);
    float *values = session->logits.bytes;
    forget_times(session);
    klaus_steps_run(session, session->whole, input, values, NULL, NULL);
    session->watching = false;
    if (logits != NULL) {
        memcpy(logits, values, bytes);
    }
    if (probabilities == NULL) {
        return KLAUS_OK;
    }
    const klaus_status status = klaus_finish_rows(session, values, 1, error);
    if (status == KLAUS_OK) {
        memcpy(probabilities, values, bytes);
    }
    return status;
}

klaus_status klaus_run_layers(klaus_session *session, const float *input, klaus_layer_sink sink, void *user,
                              klaus_error *error) {
    if (session->options.fused) {
        return klaus_fail(error, KLAUS_E_INPUT, "layers can be shown by a session opened with fused = 0 only");
    }
    uint64_t most = 0;
    for (int32_t s = 0; s < session->whole->step_count; s++) {
        const uint64_t count = (uint64_t)klaus_shape_output_count(&session->whole->steps[s].shape);
        most = count > most ? count : most;
    }
    const klaus_status status = klaus_buffer_need(&session->shown, most * sizeof(float), error);
    if (status != KLAUS_OK) {
        return status;
    }
    forget_times(session);
    if (!klaus_steps_run(session, session->whole, input, session->logits.bytes, sink, user)) {
        return klaus_fail(error, KLAUS_E_INPUT, "the run was stopped by the receiver of its layers");
    }
    return KLAUS_OK;
}

klaus_status klaus_layer_times(const klaus_session *session, uint64_t *ns, int32_t layer_count) {
    if (layer_count != session->model->layer_count) {
        return KLAUS_E_INPUT;
    }
    memcpy(ns, session->layer_ns, (size_t)layer_count * sizeof(*ns));
    return KLAUS_OK;
}

uint64_t klaus_session_bytes(const klaus_session *session) {
    const klaus_buffer *const buffers[] = {&session->arena,    &session->scratch, &session->logits, &session->formed,
                                           &session->narrowed, &session->tensor,  &session->mean,   &session->map,
                                           &session->slices,   &session->rows,    &session->shown};
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        total += buffers[i]->size;
    }
    return total + klaus_packed_bytes(session);
}

uint64_t klaus_anonymous_bytes(const klaus_session *session) {
    return session->anonymous_bytes;
}

int32_t klaus_top(const float *probabilities, int32_t count, klaus_class *classes, int32_t k) {
    int32_t written = 0;
    for (; written < k; written++) {
        const klaus_class *last = written > 0 ? &classes[written - 1] : NULL;
        int32_t best = -1;
        for (int32_t id = 0; id < count; id++) {
            const float value = probabilities[id];
            const bool left = last == NULL || value < last->probability ||
                              (value == last->probability && id > last->id); /* not taken yet */
            if (left && (best < 0 || value > probabilities[best])) {
                best = id;
            }
        }
        if (best < 0) {
            break;
        }
        classes[written] = (klaus_class){best, probabilities[best]};
    }
    return written;
}
