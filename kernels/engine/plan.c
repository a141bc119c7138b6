/* Layers -> steps: which kernel does what, which layers go together, where each output stands in memory. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bands.h"
#include "engine/fail.h"
#include "engine/packed.h"
#include "engine/plan.h"
#include "ops/shape.h"

/* ---- steps ---- */

static klaus_status measure_layers(klaus_planner *plan, klaus_error *error) {
    const int32_t first = plan->steps->request.first;
    for (int32_t layer = first; layer < plan->steps->request.stop; layer++) {
        const struct klaus_layer *facts = &plan->model->layers[layer];
        klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
        for (int32_t i = 0; i < facts->input_count; i++) {
            const int32_t input = facts->inputs[i];
            if (input < klaus_plan_input(plan)) {
                return klaus_fail(error, KLAUS_E_INTERNAL, "layer %d reads layer %d from outside its plan", layer,
                                  input);
            }
            inputs[i] = *klaus_plan_extent(plan, input);
            if (input >= first) {
                plan->uses[input - first]++;
                plan->reader[input - first] = layer;
            }
        }
        const klaus_status status =
            klaus_layer_extent(plan->model, layer, inputs, klaus_plan_extent(plan, layer), error);
        if (status != KLAUS_OK) {
            return status;
        }
        if (facts->op == KLAUS_OP_FULL_CONNECT && klaus_weight_row(plan->model, layer, inputs) * facts->channels !=
                                                      (int64_t)plan->model->data[layer].weight_count) {
            return klaus_fail(error, KLAUS_E_INPUT, "layer %d (%s) does not fit an input of %d x %d", layer,
                              (const char *)facts->name, plan->steps->request.input.rows,
                              plan->steps->request.input.cols);
        }
    }
    return KLAUS_OK;
}

static void add_layer(klaus_step *step, int32_t layer) {
    step->layers[step->layer_count++] = layer;
    step->last = layer;
}

/* Extends a step by the addition and the activation that follow it, where nothing else reads what lies between. */
static void absorb(const klaus_planner *plan, klaus_step *step, int32_t *layers) {
    const int32_t first = plan->steps->request.first;
    while (step->layer_count < 3 && step->shape.activation == KLAUS_LINEAR && plan->uses[step->last - first] == 1) {
        const int32_t reader = plan->reader[step->last - first];
        const struct klaus_layer *facts = &plan->model->layers[reader];
        if (facts->op == KLAUS_OP_ADD && step->shape.op == KLAUS_OP_CONV && !step->shape.has_addend) {
            const int32_t other = facts->inputs[0] == step->last ? facts->inputs[1] : facts->inputs[0];
            if (other > step->first) {
                return; /* not computed yet when this step runs */
            }
            step->shape.has_addend = true;
            layers[step->input_count++] = other;
        } else if (facts->op != KLAUS_OP_ACTIVATION) {
            return;
        }
        step->shape.activation = facts->activation;
        add_layer(step, reader);
    }
}

klaus_step *klaus_plan_next(klaus_planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    if (steps->step_count == plan->room) {
        klaus_step *grown = realloc(steps->steps, 2 * (size_t)plan->room * sizeof(*grown));
        if (grown == NULL) {
            klaus_fail(error, KLAUS_E_MEMORY, "no memory for a plan of %d steps", 2 * plan->room);
            return NULL;
        }
        memset(grown + plan->room, 0, (size_t)plan->room * sizeof(*grown));
        steps->steps = grown;
        plan->room *= 2;
    }
    return &steps->steps[steps->step_count];
}

void klaus_plan_size(const klaus_planner *plan, klaus_step *step) {
    step->packed_bytes = step->variant->packed_bytes(&step->shape);
    step->scratch_bytes = step->variant->scratch_bytes(&step->shape, klaus_pool_threads(plan->session->pool));
    step->output_bytes = (uint64_t)klaus_shape_output_count(&step->shape) * klaus_dtype_bytes(step->shape.out_dtype);
}

static klaus_status choose(klaus_planner *plan, klaus_step *step, int32_t *layers, klaus_error *error) {
    const klaus_session *session = plan->session;
    const klaus_step alone = *step;
    if (session->options.fused) {
        absorb(plan, step, layers);
    }
    if (!klaus_plan_kernel(plan, step, layers) && step->layer_count > 1) {
        *step = alone;
        klaus_plan_kernel(plan, step, layers);
    }
    if (step->variant == NULL) {
        const struct klaus_layer *facts = &plan->model->layers[step->first];
        return klaus_fail(error, KLAUS_E_INPUT,
                          "layer %d (%s, %s): no kernel of this build does it; see `klaus-run check --list`",
                          step->first, (const char *)facts->name, klaus_op_name(facts->op));
    }
    klaus_plan_size(plan, step);
    return KLAUS_OK;
}

/* The step that begins with `layer`, behind the casts that it needs. */
static klaus_status make_step(klaus_planner *plan, int32_t layer, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    const int32_t first = steps->request.first;
    const struct klaus_layer *facts = &plan->model->layers[layer];
    klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
    int32_t layers[KLAUS_MAX_INPUTS] = {0};
    klaus_step made = {.first = layer, .input_count = facts->input_count};
    for (int32_t i = 0; i < facts->input_count; i++) {
        layers[i] = facts->inputs[i];
        inputs[i] = *klaus_plan_extent(plan, facts->inputs[i]);
    }
    add_layer(&made, layer);
    klaus_layer_shape(plan->model, layer, inputs, klaus_plan_extent(plan, layer), steps->request.batch, &made.shape);
    klaus_status status = choose(plan, &made, layers, error);
    for (int32_t i = 0; i < made.input_count && status == KLAUS_OK; i++) {
        const uint32_t dtype = klaus_shape_input_dtype(&made.shape, i);
        status = klaus_plan_need(plan, layers[i], dtype, &made.inputs[i], error);
    }
    klaus_step *step = status == KLAUS_OK ? klaus_plan_next(plan, error) : NULL;
    if (step == NULL) {
        return status == KLAUS_OK ? KLAUS_E_MEMORY : status;
    }
    *step = made;
    for (int32_t i = 0; i < step->layer_count; i++) {
        plan->done[step->layers[i] - first] = true;
    }
    klaus_plan_tensor(plan, step->last)->step[klaus_plan_dtype_index(step->shape.out_dtype)] = steps->step_count++;
    return KLAUS_OK;
}

/* Counts layers whose output leads nowhere as done: fused plans leave them out. */
static void leave_out(klaus_planner *plan) {
    const int32_t first = plan->steps->request.first;
    const int32_t last = plan->steps->request.stop - 1;
    for (int32_t layer = first; layer < last; layer++) {
        plan->done[layer - first] = true;
    }
    for (int32_t layer = last; layer >= first; layer--) {
        const struct klaus_layer *facts = &plan->model->layers[layer];
        for (int32_t i = 0; !plan->done[layer - first] && i < facts->input_count; i++) {
            if (facts->inputs[i] >= first) {
                plan->done[facts->inputs[i] - first] = false;
            }
        }
    }
}

static klaus_status make_steps(klaus_planner *plan, klaus_error *error) {
    const klaus_plan_request *request = &plan->steps->request;
    if (plan->session->options.fused) {
        leave_out(plan);
    }
    for (int32_t layer = request->first; layer < request->stop; layer++) {
        const klaus_status status = plan->done[layer - request->first] ? KLAUS_OK : make_step(plan, layer, error);
        if (status != KLAUS_OK) {
            return status;
        }
    }
    /* The caller gets the last step's output, so it must be the last layer's in float32. */
    const int32_t last = request->stop - 1;
    int32_t found = 0;
    klaus_status status = klaus_plan_need(plan, last, KLAUS_F32, &found, error);
    if (status == KLAUS_OK && found != plan->steps->step_count - 1) {
        status = klaus_fail(error, KLAUS_E_INTERNAL, "layer %d is not the last one computed", last);
    }
    return status;
}

/* ---- memory ---- */

/* The step whose output step `number` may overwrite with its own, as nothing reads it later; else KLAUS_PLAN_NONE. */
static int32_t in_place_of(const klaus_steps *steps, const klaus_lifetime *lives, int32_t number) {
    const klaus_step *step = &steps->steps[number];
    for (int32_t i = 0; i < step->input_count && step->chain == 1; i++) { /* in a chain others read it, too */
        const int32_t from = step->inputs[i];
        bool twice =
            false; /* a convolution's addend may be its own input, of which it needs more than is in one place */
        for (int32_t k = 0; k < step->input_count; k++) {
            twice = twice || (k != i && step->inputs[k] == from);
        }
        if (from != KLAUS_PLAN_INPUT && !twice && klaus_shape_in_place(&step->shape, i) &&
            lives[from].last_read == number && steps->steps[from].output_bytes == step->output_bytes) {
            return from;
        }
    }
    return KLAUS_PLAN_NONE;
}

static klaus_status plan_memory(klaus_planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    const size_t count = (size_t)steps->step_count;
    klaus_lifetime *lives = calloc(count, sizeof(*lives));
    const klaus_lifetime **placed = calloc(count, sizeof(*placed));
    if (lives == NULL || placed == NULL) {
        free(lives);
        free((void *)placed);
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a plan of %zu steps", count);
    }
    for (int32_t s = 0; s < steps->step_count; s++) {
        lives[s] = (klaus_lifetime){s, s, s, klaus_align_up(steps->steps[s].output_bytes), 0};
        for (int32_t i = 0; i < steps->steps[s].input_count; i++) {
            if (steps->steps[s].inputs[i] != KLAUS_PLAN_INPUT) {
                lives[steps->steps[s].inputs[i]].last_read = s;
            }
        }
    }
    lives[steps->step_count - 1].bytes = 0; /* it is the caller's memory */
    for (int32_t s = 0; s < steps->step_count - 1; s++) {
        steps->steps[s].in_place = in_place_of(steps, lives, s);
        if (steps->steps[s].in_place != KLAUS_PLAN_NONE) {
            int32_t root = steps->steps[s].in_place;
            while (steps->steps[root].in_place != KLAUS_PLAN_NONE) {
                root = steps->steps[root].in_place;
            }
            lives[root].last_read = lives[s].last_read;
            lives[s].bytes = 0;
        }
    }
    steps->steps[steps->step_count - 1].in_place = KLAUS_PLAN_NONE;
    /* A chain's steps run by turns: all that they read and write is needed from its beginning to its end. */
    for (int32_t first = 0; first < steps->step_count; first += steps->steps[first].chain) {
        const int32_t last = first + steps->steps[first].chain - 1;
        for (int32_t s = 0; s <= last; s++) {
            if (lives[s].last_read >= first && lives[s].last_read < last) {
                lives[s].last_read = last;
            }
            if (s > first) {
                lives[s].begin = first;
            }
        }
    }
    const uint64_t arena = klaus_memory_place(lives, steps->step_count, placed);
    for (int32_t i = 0; i < steps->step_count; i++) {
        steps->steps[lives[i].step].output_offset = lives[i].offset;
    }
    for (int32_t s = 0; s < steps->step_count; s++) {
        const int32_t before = steps->steps[s].in_place;
        if (before != KLAUS_PLAN_NONE) {
            steps->steps[s].output_offset = steps->steps[before].output_offset;
        }
    }
    free(lives);
    free((void *)placed);
    uint64_t total = arena;
    for (int32_t s = 0; s < steps->step_count; s++) {
        const klaus_step *step = &steps->steps[s];
        steps->scratch_bytes = step->scratch_bytes > steps->scratch_bytes ? step->scratch_bytes : steps->scratch_bytes;
        total += klaus_packed_missing(plan->session, step);
    }
    klaus_status status = klaus_memory_available(total + steps->scratch_bytes, error);
    if (status == KLAUS_OK) {
        status = klaus_buffer_need(&plan->session->arena, arena, error);
    }
    if (status == KLAUS_OK) {
        status = klaus_buffer_need(&plan->session->scratch, steps->scratch_bytes, error);
    }
    return status;
}

static klaus_status pack_all(klaus_planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    for (int32_t s = 0; s < steps->step_count; s++) {
        klaus_step *step = &steps->steps[s];
        const klaus_status status = klaus_packed_find(plan->session, step, error);
        if (status != KLAUS_OK) {
            return status;
        }
    }
    return KLAUS_OK;
}

void klaus_steps_free(klaus_steps *steps) {
    if (steps != NULL) {
        free(steps->steps);
        free(steps);
    }
}

klaus_status klaus_steps_make(klaus_session *session, const klaus_plan_request *request, klaus_steps **made,
                              klaus_error *error) {
    const size_t layers = (size_t)(request->stop - request->first);
    klaus_planner plan = {.session = session, .model = session->model};
    *made = NULL;
    plan.steps = calloc(1, sizeof(*plan.steps));
    plan.extents = calloc(layers + 1, sizeof(*plan.extents));
    plan.uses = calloc(layers, sizeof(*plan.uses));
    plan.reader = calloc(layers, sizeof(*plan.reader));
    plan.done = calloc(layers, sizeof(*plan.done));
    plan.tensors = calloc(layers + 1, sizeof(*plan.tensors));
    plan.room = (int32_t)layers + 2; /* a cast at either end */
    klaus_status status = KLAUS_OK;
    if (plan.steps != NULL) {
        plan.steps->steps = calloc((size_t)plan.room, sizeof(*plan.steps->steps));
    }
    if (plan.steps == NULL || plan.extents == NULL || plan.uses == NULL || plan.reader == NULL || plan.done == NULL ||
        plan.tensors == NULL || plan.steps->steps == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for a plan of %zu layers", layers);
    }
    if (status == KLAUS_OK) {
        for (size_t i = 0; i <= layers; i++) {
            for (int32_t dtype = 0; dtype < KLAUS_PLAN_DTYPES; dtype++) {
                plan.tensors[i].step[dtype] = KLAUS_PLAN_NOWHERE;
            }
        }
        plan.tensors[0].step[klaus_plan_dtype_index(KLAUS_F32)] = KLAUS_PLAN_INPUT;
        plan.steps->request = *request;
        plan.extents[0] = request->input;
        status = measure_layers(&plan, error);
    }
    if (status == KLAUS_OK) {
        plan.steps->output = plan.extents[layers];
        status = make_steps(&plan, error);
    }
    if (status == KLAUS_OK) {
        klaus_bands_plan(session, plan.steps);
        status = plan_memory(&plan, error);
    }
    if (status == KLAUS_OK) {
        status = pack_all(&plan, error);
    }
    free(plan.extents);
    free(plan.uses);
    free(plan.reader);
    free(plan.done);
    free(plan.tensors);
    if (status != KLAUS_OK) {
        klaus_steps_free(plan.steps);
        return status;
    }
    *made = plan.steps;
    return KLAUS_OK;
}

/* ---- shown ---- */

static const char *const dtype_words[KLAUS_PLAN_DTYPES] = {"f32", "f16", "i8"};

klaus_status klaus_plan(const klaus_session *session, klaus_text_sink sink, void *user) {
    const klaus_steps *steps = session->whole;
    for (int32_t s = 0; s < steps->step_count; s++) {
        const klaus_step *step = &steps->steps[s];
        char layers[64] = ""; /* a cast has none */
        size_t used = 0;
        for (int32_t i = 0; i < step->layer_count; i++) {
            used += (size_t)snprintf(layers + used, sizeof(layers) - used, "%s%d", i > 0 ? "," : "", step->layers[i]);
        }
        char line[640];
        snprintf(line, sizeof(line),
                 "{\"record\":\"step\",\"index\":%d,\"layers\":[%s],\"op\":\"%s\",\"variant\":\"%s\",\"isa\":\"%s\","
                 "\"dtypes\":[\"%s\",\"%s\"],\"layout\":%" PRIu32
                 ",\"rows\":%d,\"cols\":%d,\"channels\":%d,\"packed_bytes\":%" PRIu64
                 ",\"packed_in_file\":%s,\"scratch_bytes\":%" PRIu64 ",\"output_bytes\":%" PRIu64
                 ",\"output_offset\":%" PRIu64 ",\"in_place\":%s,\"band_rows\":%d,\"held_rows\":%d}",
                 s, layers, klaus_op_name(step->shape.op), step->variant->name, klaus_isa_name(step->variant->isa),
                 dtype_words[klaus_plan_dtype_index(step->shape.in_dtype)],
                 dtype_words[klaus_plan_dtype_index(step->shape.out_dtype)], step->variant->layout,
                 step->shape.out_rows, step->shape.out_cols, step->shape.out_channels, step->packed_bytes,
                 step->packed != NULL && (const uint8_t *)step->packed >= session->model->mapping.bytes &&
                         (const uint8_t *)step->packed < session->model->mapping.bytes + session->model->mapping.size
                     ? "true"
                     : "false",
                 step->scratch_bytes, step->output_bytes, step->output_offset,
                 step->in_place != KLAUS_PLAN_NONE ? "true" : "false", step->band_rows, step->held_rows);
        sink(user, line);
    }
    return KLAUS_OK;
}
