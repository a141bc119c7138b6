/* Layers -> steps: which kernel does what, which layers go together, where each output stands in memory. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"
#include "engine/session.h"
#include "ops/shape.h"

/* ---- packed weights ---- */

/* The weights of the step's layer in its variant's layout, if an earlier plan needed them; else NULL. */
static const void *held_weights(const klaus_session *session, const klaus_step *step) {
    for (klaus_packed_weights *held = session->packed[step->first]; held != NULL; held = held->next) {
        if (held->layout == step->variant->layout && held->size == step->packed_bytes) {
            return held->bytes;
        }
    }
    return NULL;
}

static klaus_status find_packed(klaus_session *session, klaus_step *step, klaus_error *error) {
    const klaus_model *model = session->model;
    const int32_t layer = step->first;
    const uint32_t layout = step->variant->layout;
    if (step->packed_bytes == 0) {
        return KLAUS_OK;
    }
    step->packed = held_weights(session, step);
    if (step->packed != NULL) {
        return KLAUS_OK;
    }
    klaus_packed_weights *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for the weights of layer %d", layer);
    }
    made->layout = layout;
    made->size = step->packed_bytes;
    const klaus_packed_data *section = klaus_model_packed(model, layer, layout);
    if (section != NULL && section->size == step->packed_bytes) {
        made->bytes = section->bytes;
    } else {
        const klaus_status status = klaus_buffer_need(&made->memory, step->packed_bytes, error);
        if (status != KLAUS_OK) {
            free(made);
            return status;
        }
        step->variant->pack(&step->shape, &model->data[layer].weights, made->memory.bytes);
        made->bytes = made->memory.bytes;
    }
    made->next = session->packed[layer];
    session->packed[layer] = made;
    step->packed = made->bytes;
    return KLAUS_OK;
}

/* ---- steps ---- */

typedef struct planner {
    klaus_session *session;
    const klaus_model *model;
    klaus_steps *steps;
    klaus_extent *extents; /* [1 + layers of the plan]: the plan's input first */
    int32_t *uses;         /* [layers]: how many layers of the plan read it */
    int32_t *reader;       /* [layers]: the last that reads it */
    bool *done;            /* [layers]: part of a step already */
} planner;

static klaus_extent *extent_of(const planner *plan, int32_t layer) {
    return &plan->extents[layer - plan->steps->request.first + 1];
}

/* The input of a plan that starts behind layer 0 is the output of the layer before it. */
static int32_t plan_input(const planner *plan) {
    return plan->steps->request.first - 1;
}

static klaus_status measure_layers(planner *plan, klaus_error *error) {
    const int32_t first = plan->steps->request.first;
    for (int32_t layer = first; layer < plan->steps->request.stop; layer++) {
        const struct klaus_layer *facts = &plan->model->layers[layer];
        klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
        for (int32_t i = 0; i < facts->input_count; i++) {
            const int32_t input = facts->inputs[i];
            if (input < plan_input(plan)) {
                return klaus_fail(error, KLAUS_E_INTERNAL, "layer %d reads layer %d from outside its plan", layer,
                                  input);
            }
            inputs[i] = *extent_of(plan, input);
            if (input >= first) {
                plan->uses[input - first]++;
                plan->reader[input - first] = layer;
            }
        }
        const klaus_status status = klaus_layer_extent(plan->model, layer, inputs, extent_of(plan, layer), error);
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
static void absorb(const planner *plan, klaus_step *step) {
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
            step->inputs[step->input_count++] = other;
        } else if (facts->op != KLAUS_OP_ACTIVATION) {
            return;
        }
        step->shape.activation = facts->activation;
        add_layer(step, reader);
    }
}

static klaus_status choose(const planner *plan, klaus_step *step, klaus_error *error) {
    const klaus_session *session = plan->session;
    const klaus_step alone = *step;
    if (session->options.fused) {
        absorb(plan, step);
    }
    step->variant = klaus_dispatch_choose(&step->shape, &session->dispatch);
    if (step->variant == NULL && step->layer_count > 1) {
        *step = alone;
        step->variant = klaus_dispatch_choose(&step->shape, &session->dispatch);
    }
    if (step->variant == NULL) {
        const struct klaus_layer *facts = &plan->model->layers[step->first];
        return klaus_fail(error, KLAUS_E_INPUT,
                          "layer %d (%s, %s): no kernel of this build does it; see `klaus-run check --list`",
                          step->first, (const char *)facts->name, klaus_op_name(facts->op));
    }
    step->packed_bytes = step->variant->packed_bytes(&step->shape);
    step->scratch_bytes = step->variant->scratch_bytes(&step->shape, klaus_pool_threads(session->pool));
    step->output_bytes = (uint64_t)klaus_shape_output_count(&step->shape) * sizeof(float);
    return KLAUS_OK;
}

static klaus_status make_steps(planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    const int32_t first = steps->request.first;
    for (int32_t layer = first; layer < steps->request.stop; layer++) {
        if (plan->done[layer - first]) {
            continue;
        }
        const struct klaus_layer *facts = &plan->model->layers[layer];
        klaus_step *step = &steps->steps[steps->step_count];
        klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
        step->first = layer;
        step->input_count = facts->input_count;
        for (int32_t i = 0; i < facts->input_count; i++) {
            step->inputs[i] = facts->inputs[i];
            inputs[i] = *extent_of(plan, facts->inputs[i]);
        }
        add_layer(step, layer);
        klaus_layer_shape(plan->model, layer, inputs, extent_of(plan, layer), steps->request.batch, &step->shape);
        const klaus_status status = choose(plan, step, error);
        if (status != KLAUS_OK) {
            return status;
        }
        for (int32_t i = 0; i < step->layer_count; i++) {
            plan->done[step->layers[i] - first] = true;
        }
        steps->step_of_layer[step->last - first] = steps->step_count++;
    }
    return KLAUS_OK;
}

/* ---- memory ---- */

static klaus_status plan_memory(planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    const int32_t first = steps->request.first;
    const size_t count = (size_t)steps->step_count;
    klaus_lifetime *lives = calloc(count, sizeof(*lives));
    const klaus_lifetime **placed = calloc(count, sizeof(*placed));
    if (lives == NULL || placed == NULL) {
        free(lives);
        free((void *)placed);
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a plan of %zu steps", count);
    }
    for (int32_t s = 0; s < steps->step_count; s++) {
        lives[s] = (klaus_lifetime){s, s, klaus_align_up(steps->steps[s].output_bytes), 0};
        for (int32_t i = 0; i < steps->steps[s].input_count; i++) {
            const int32_t input = steps->steps[s].inputs[i];
            if (input >= first) {
                lives[steps->step_of_layer[input - first]].last_read = s;
            }
        }
    }
    /* The last output is the caller's memory. */
    const int32_t last = steps->step_of_layer[steps->request.stop - 1 - first];
    lives[last].bytes = 0;
    const uint64_t arena = klaus_memory_place(lives, steps->step_count, placed);
    for (int32_t i = 0; i < steps->step_count; i++) {
        steps->steps[lives[i].step].output_offset = lives[i].offset;
    }
    free(lives);
    free((void *)placed);
    uint64_t total = arena;
    for (int32_t s = 0; s < steps->step_count; s++) {
        const klaus_step *step = &steps->steps[s];
        const klaus_packed_data *section = klaus_model_packed(plan->model, step->first, step->variant->layout);
        if (held_weights(plan->session, step) == NULL && (section == NULL || section->size != step->packed_bytes)) {
            total += step->packed_bytes;
        }
        steps->scratch_bytes = step->scratch_bytes > steps->scratch_bytes ? step->scratch_bytes : steps->scratch_bytes;
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

static klaus_status pack_all(planner *plan, klaus_error *error) {
    klaus_steps *steps = plan->steps;
    for (int32_t s = 0; s < steps->step_count; s++) {
        klaus_step *step = &steps->steps[s];
        const klaus_status status = find_packed(plan->session, step, error);
        if (status != KLAUS_OK) {
            return status;
        }
    }
    return KLAUS_OK;
}

void klaus_steps_free(klaus_steps *steps) {
    if (steps != NULL) {
        free(steps->steps);
        free(steps->step_of_layer);
        free(steps);
    }
}

klaus_status klaus_steps_make(klaus_session *session, const klaus_plan_request *request, klaus_steps **made,
                              klaus_error *error) {
    const size_t layers = (size_t)(request->stop - request->first);
    planner plan = {.session = session, .model = session->model};
    *made = NULL;
    plan.steps = calloc(1, sizeof(*plan.steps));
    plan.extents = calloc(layers + 1, sizeof(*plan.extents));
    plan.uses = calloc(layers, sizeof(*plan.uses));
    plan.reader = calloc(layers, sizeof(*plan.reader));
    plan.done = calloc(layers, sizeof(*plan.done));
    klaus_status status = KLAUS_OK;
    if (plan.steps != NULL) {
        plan.steps->steps = calloc(layers, sizeof(*plan.steps->steps));
        plan.steps->step_of_layer = malloc(layers * sizeof(*plan.steps->step_of_layer));
    }
    if (plan.steps == NULL || plan.extents == NULL || plan.uses == NULL || plan.reader == NULL || plan.done == NULL ||
        plan.steps->steps == NULL || plan.steps->step_of_layer == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for a plan of %zu layers", layers);
    }
    if (status == KLAUS_OK) {
        memset(plan.steps->step_of_layer, 0xff, layers * sizeof(*plan.steps->step_of_layer));
        plan.steps->request = *request;
        plan.extents[0] = request->input;
        status = measure_layers(&plan, error);
    }
    if (status == KLAUS_OK) {
        plan.steps->output = plan.extents[layers];
        status = make_steps(&plan, error);
    }
    if (status == KLAUS_OK) {
        status = plan_memory(&plan, error);
    }
    if (status == KLAUS_OK) {
        status = pack_all(&plan, error);
    }
    free(plan.extents);
    free(plan.uses);
    free(plan.reader);
    free(plan.done);
    if (status != KLAUS_OK) {
        klaus_steps_free(plan.steps);
        return status;
    }
    *made = plan.steps;
    return KLAUS_OK;
}

/* ---- shown ---- */

klaus_status klaus_plan(const klaus_session *session, klaus_text_sink sink, void *user) {
    const klaus_steps *steps = session->whole;
    for (int32_t s = 0; s < steps->step_count; s++) {
        const klaus_step *step = &steps->steps[s];
        char layers[64];
        size_t used = 0;
        for (int32_t i = 0; i < step->layer_count; i++) {
            used += (size_t)snprintf(layers + used, sizeof(layers) - used, "%s%d", i > 0 ? "," : "", step->layers[i]);
        }
        char line[640];
        snprintf(line, sizeof(line),
                 "{\"record\":\"step\",\"index\":%d,\"layers\":[%s],\"op\":\"%s\",\"variant\":\"%s\",\"isa\":\"%s\","
                 "\"layout\":%" PRIu32 ",\"rows\":%d,\"cols\":%d,\"channels\":%d,\"packed_bytes\":%" PRIu64
                 ",\"packed_in_file\":%s,\"scratch_bytes\":%" PRIu64 ",\"output_bytes\":%" PRIu64
                 ",\"output_offset\":%" PRIu64 "}",
                 s, layers, klaus_op_name(step->shape.op), step->variant->name, klaus_isa_name(step->variant->isa),
                 step->variant->layout, step->shape.out_rows, step->shape.out_cols, step->shape.out_channels,
                 step->packed_bytes,
                 step->packed != NULL && (const uint8_t *)step->packed >= session->model->mapping.bytes &&
                         (const uint8_t *)step->packed < session->model->mapping.bytes + session->model->mapping.size
                     ? "true"
                     : "false",
                 step->scratch_bytes, step->output_bytes, step->output_offset);
        sink(user, line);
    }
    return KLAUS_OK;
}
