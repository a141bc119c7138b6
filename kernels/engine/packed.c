#include "engine/packed.h"

#include <stdlib.h>

#include "engine/fail.h"
#include "os/os.h"

static const klaus_packed_weights *held_weights(const klaus_session *session, const klaus_step *step) {
    for (const klaus_packed_weights *held = session->packed[step->first]; held != NULL; held = held->next) {
        if (held->variant->layout == step->variant->layout && held->size == step->packed_bytes) {
            return held;
        }
    }
    return NULL;
}

/* The file's own section in the layout of the step's kernel. Numbers of a file may be wrong, not more. */
static const void *in_file(const klaus_session *session, const klaus_step *step) {
    if (step->variant->follows) {
        return NULL;
    }
    const klaus_packed_data *section = klaus_model_packed(session->model, step->first, step->variant->layout);
    return section != NULL && section->size == step->packed_bytes ? section->bytes : NULL;
}

uint64_t klaus_packed_missing(const klaus_session *session, const klaus_step *step) {
    if (step->packed_bytes == 0 || held_weights(session, step) != NULL || in_file(session, step) != NULL) {
        return 0;
    }
    return step->packed_bytes;
}

klaus_status klaus_packed_find(klaus_session *session, klaus_step *step, klaus_error *error) {
    const klaus_model *model = session->model;
    if (step->packed_bytes == 0) {
        return KLAUS_OK;
    }
    const klaus_packed_weights *held = held_weights(session, step);
    step->packed = held != NULL ? held->memory.bytes : in_file(session, step);
    if (step->packed != NULL) {
        return KLAUS_OK;
    }
    klaus_packed_weights *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for the weights of layer %d", step->first);
    }
    const klaus_status status = klaus_buffer_need(&made->memory, step->packed_bytes, error);
    if (status != KLAUS_OK) {
        free(made);
        return status;
    }
    step->variant->pack(&step->shape, &model->data[step->first].weights, made->memory.bytes);
    klaus_model_leave(model, step->first);
    made->variant = step->variant;
    made->size = step->packed_bytes;
    made->next = session->packed[step->first];
    session->packed[step->first] = made;
    step->packed = made->memory.bytes;
    return KLAUS_OK;
}

uint64_t klaus_packed_bytes(const klaus_session *session) {
    uint64_t total = 0;
    for (int32_t layer = 0; layer < session->model->layer_count; layer++) {
        for (const klaus_packed_weights *held = session->packed[layer]; held != NULL; held = held->next) {
            total += held->memory.size;
        }
    }
    return total;
}

void klaus_packed_free(klaus_session *session) {
    for (int32_t layer = 0; session->packed != NULL && layer < session->model->layer_count; layer++) {
        for (klaus_packed_weights *held = session->packed[layer]; held != NULL;) {
            klaus_packed_weights *next = held->next;
            klaus_buffer_free(&held->memory);
            free(held);
            held = next;
        }
    }
    free(session->packed);
    session->packed = NULL;
}
