/* From a picture to classes: one patch or ccv's ten, averaged. The numpy oracle of this is klaus_runtime/forward.py. */
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"
#include "engine/picture.h"
#include "os/os.h"

#define VIEW_PATCHES (KLAUS_PATCHES / 2) /* four corners and the middle, of the picture and of its mirror image */

/* A plan for the layers up to the scan layer on a picture of this size: one that is kept, or a new one. */
static klaus_status scan_steps(klaus_session *session, const klaus_extent *input, klaus_steps **steps,
                               klaus_error *error) {
    for (int32_t i = 0; i < KLAUS_SCAN_PLANS; i++) {
        if (session->scan[i] != NULL && memcmp(&session->scan[i]->request.input, input, sizeof(*input)) == 0) {
            *steps = session->scan[i];
            return KLAUS_OK;
        }
    }
    const klaus_plan_request request = {0, session->model->network.scan_layer + 1, *input, 1};
    const klaus_status status = klaus_steps_make(session, &request, steps, error);
    if (status == KLAUS_OK) {
        klaus_steps **slot = &session->scan[session->next_scan];
        session->next_scan = (session->next_scan + 1) % KLAUS_SCAN_PLANS;
        klaus_steps_free(*slot);
        *slot = *steps;
    }
    return status;
}

/* The layers behind the scan layer: `patch` up to the tail, one patch at a time; `tail`, all patches at once. */
static klaus_status patch_steps(klaus_session *session, klaus_error *error) {
    const klaus_model *model = session->model;
    const int32_t scan = model->network.scan_layer;
    klaus_status status = KLAUS_OK;
    if (session->patch == NULL && scan + 1 < model->tail) {
        const klaus_plan_request request = {scan + 1, model->tail, model->data[scan].nominal, 1};
        status = klaus_steps_make(session, &request, &session->patch, error);
    }
    if (status == KLAUS_OK && session->tail == NULL && model->tail < model->layer_count) {
        const klaus_plan_request request = {model->tail, model->layer_count, model->data[model->tail - 1].nominal,
                                            KLAUS_PATCHES};
        status = klaus_steps_make(session, &request, &session->tail, error);
    }
    return status;
}

klaus_status klaus_plan_patches(klaus_session *session, klaus_error *error) {
    const struct klaus_network *network = &session->model->network;
    if (network->scan_layer == KLAUS_NO_LAYER) {
        return KLAUS_OK;
    }
    const klaus_extent fed = klaus_fed_extent(session->model, network->picture_rows, network->picture_cols);
    klaus_steps *scan = NULL;
    const klaus_status status = scan_steps(session, &fed, &scan, error);
    return status == KLAUS_OK ? patch_steps(session, error) : status;
}

static void mirror(float *tensor, const klaus_extent *extent) {
    for (int32_t row = 0; row < extent->rows; row++) {
        float *left = tensor + (size_t)row * (size_t)extent->cols * KLAUS_COLOURS;
        float *right = left + ((size_t)extent->cols - 1) * KLAUS_COLOURS;
        for (; left < right; left += KLAUS_COLOURS, right -= KLAUS_COLOURS) {
            for (int32_t c = 0; c < KLAUS_COLOURS; c++) {
                const float swapped = left[c];
                left[c] = right[c];
                right[c] = swapped;
            }
        }
    }
}

/* Runs session->tensor through the scan layers and its five patches up to the tail: five rows of the batch. */
static void run_view(klaus_session *session, const klaus_steps *scan, float *rows) {
    const klaus_extent *map = &scan->output;
    const klaus_extent *nominal = &session->model->data[session->model->network.scan_layer].nominal;
    const size_t row_values = (size_t)klaus_extent_elements(&session->model->data[session->model->tail - 1].nominal);
    const int32_t bottom = map->rows - nominal->rows;
    const int32_t right = map->cols - nominal->cols;
    const int32_t corners[VIEW_PATCHES][2] = {
        {0, 0}, {0, right}, {bottom / 2, right / 2}, {bottom, 0}, {bottom, right}};
    klaus_steps_run(session, scan, session->tensor.bytes, session->map.bytes, NULL, NULL);
    for (int32_t i = 0; i < VIEW_PATCHES; i++) {
        float *row = rows + (size_t)i * row_values;
        float *patch = session->patch == NULL ? row : session->slices.bytes;
        klaus_cut(session->map.bytes, map, corners[i][0], corners[i][1], nominal->rows, nominal->cols, patch);
        if (session->patch != NULL) {
            klaus_steps_run(session, session->patch, patch, row, NULL, NULL);
        }
    }
}

/* Ten rows of the last layer's output into session->logits. */
static klaus_status run_patches(klaus_session *session, const klaus_extent *fed, klaus_error *error) {
    const klaus_model *model = session->model;
    const klaus_extent *nominal = &model->data[model->network.scan_layer].nominal;
    const int64_t row_values = klaus_extent_elements(&model->data[model->tail - 1].nominal);
    klaus_steps *scan = NULL;
    klaus_status status = scan_steps(session, fed, &scan, error);
    if (status == KLAUS_OK) {
        status = patch_steps(session, error);
    }
    if (status == KLAUS_OK && (scan->output.rows < nominal->rows || scan->output.cols < nominal->cols)) {
        status = klaus_fail(error, KLAUS_E_INTERNAL, "the scan of a larger picture gave a smaller map");
    }
    if (status == KLAUS_OK) {
        status =
            klaus_buffer_need(&session->map, (uint64_t)klaus_extent_elements(&scan->output) * sizeof(float), error);
    }
    if (status == KLAUS_OK) {
        status = klaus_buffer_need(&session->slices, (uint64_t)klaus_extent_elements(nominal) * sizeof(float), error);
    }
    if (status == KLAUS_OK && session->tail != NULL) {
        status = klaus_buffer_need(&session->rows, (uint64_t)row_values * KLAUS_PATCHES * sizeof(float), error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    float *rows = session->tail != NULL ? session->rows.bytes : session->logits.bytes;
    run_view(session, scan, rows);
    mirror(session->tensor.bytes, fed);
    run_view(session, scan, rows + (size_t)row_values * VIEW_PATCHES);
    if (session->tail != NULL) {
        klaus_steps_run(session, session->tail, rows, session->logits.bytes, NULL, NULL);
    }
    return KLAUS_OK;
}

static void average_rows(const float *values, int32_t outputs, int32_t rows, float *probabilities) {
    for (int32_t id = 0; id < outputs; id++) {
        double sum = 0;
        for (int32_t row = 0; row < rows; row++) {
            sum += (double)values[(size_t)row * (size_t)outputs + (size_t)id];
        }
        probabilities[id] = (float)(sum / rows);
    }
}

klaus_status klaus_classify(klaus_session *session, const klaus_picture *picture, int32_t patches, int32_t crop,
                            float *probabilities, klaus_timing *timing, klaus_error *error) {
    const klaus_model *model = session->model;
    const struct klaus_network *network = &model->network;
    if (patches != 1 && patches != KLAUS_PATCHES) {
        return klaus_fail(error, KLAUS_E_INPUT, "%d patches were asked for; 1 and 10 can be", patches);
    }
    if (patches == KLAUS_PATCHES && network->scan_layer == KLAUS_NO_LAYER) {
        return klaus_fail(error, KLAUS_E_INPUT, "model %s does not cut patches; classify with 1 patch", model->name);
    }
    if (patches == KLAUS_PATCHES && !crop) {
        return klaus_fail(error, KLAUS_E_INPUT, "10 patches are cut from middle and corners: they need a centre crop");
    }
    const uint64_t started = klaus_os_now_ns();
    klaus_status status = klaus_picture_check(session, picture, error);
    klaus_extent fed = {network->rows, network->cols, network->channels};
    if (status == KLAUS_OK && patches == KLAUS_PATCHES) {
        status = klaus_feed_ccv(session, picture, &fed, error);
    } else if (status == KLAUS_OK) {
        /* ccv's way leaves the whole crop in session->tensor, so the patch needs a place of its own. */
        status = klaus_tensor_need(&session->slices, network->rows, network->cols, error);
        if (status == KLAUS_OK) {
            status = klaus_preprocess(session, picture, crop, session->slices.bytes, error);
        }
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const uint64_t formed = klaus_os_now_ns();
    memset(session->layer_ns, 0, (size_t)model->layer_count * sizeof(*session->layer_ns));
    if (patches == KLAUS_PATCHES) {
        status = run_patches(session, &fed, error);
    } else {
        klaus_steps_run(session, session->whole, session->slices.bytes, session->logits.bytes, NULL, NULL);
    }
    session->watching = false;
    if (status == KLAUS_OK) {
        status = klaus_finish_rows(session, session->logits.bytes, patches, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    average_rows(session->logits.bytes, network->outputs, patches, probabilities);
    if (timing != NULL) {
        *timing = (klaus_timing){.preprocess_ns = formed - started, .forward_ns = klaus_os_now_ns() - formed};
    }
    return KLAUS_OK;
}
