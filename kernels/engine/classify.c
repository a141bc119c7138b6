/* From a picture to classes: formation, patches, averaging. Semantics of ccv: docs of its format and the numpy oracle
 * klaus_runtime/images.py, forward.py. */
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"
#include "engine/session.h"
#include "ops/resample/resample.h"
#include "os/os.h"

#define MAX_PIXELS (INT64_C(1) << 26)
/* ccv keeps the aspect: a thin picture would become a huge one. */
#define MAX_ASPECT 16
#define COLOURS 3
#define VIEW_PATCHES (KLAUS_PATCHES / 2) /* four corners and the middle, of the picture and of its mirror image */

static klaus_status check_picture(const klaus_session *session, const klaus_picture *picture, klaus_error *error) {
    if (session->model->network.formation == KLAUS_FORMATION_TENSOR) {
        return klaus_fail(error, KLAUS_E_INPUT, "model %s takes tensors, not pictures", session->model->name);
    }
    if (picture->rgb == NULL || picture->rows < 1 || picture->cols < 1 || picture->rows > KLAUS_RESAMPLE_SIDE ||
        picture->cols > KLAUS_RESAMPLE_SIDE || (int64_t)picture->rows * picture->cols > MAX_PIXELS) {
        return klaus_fail(error, KLAUS_E_INPUT, "a picture of %d x %d; 1 x 1 to 65536 a side and 2^26 pixels can be",
                          picture->rows, picture->cols);
    }
    return KLAUS_OK;
}

static klaus_status tensor_need(klaus_buffer *buffer, int64_t rows, int64_t cols, klaus_error *error) {
    return klaus_buffer_need(buffer, (uint64_t)(rows * cols * COLOURS) * sizeof(float), error);
}

static klaus_status resampled(klaus_status status, klaus_error *error) {
    return status == KLAUS_OK ? status : klaus_fail(error, status, "the picture cannot be brought to the size needed");
}

static void widen(const uint8_t *bytes, size_t count, float *values) {
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)bytes[i];
    }
}

/* ---- ccv ---- */

/* ccv's input formation into session->formed. */
static klaus_status form_ccv(klaus_session *session, const klaus_picture *picture, klaus_extent *formed,
                             klaus_error *error) {
    const int32_t rows = session->model->network.picture_rows;
    const int32_t cols = session->model->network.picture_cols;
    const bool shrinks = picture->rows > rows && picture->cols > cols;
    const bool grows = picture->rows < rows || picture->cols < cols;
    double new_rows = picture->rows;
    double new_cols = picture->cols;
    if (shrinks || grows) {
        /* float32 quotients of the exact products, as ccv has them; targets that are no squares lose the aspect */
        new_rows = (double)((float)((int64_t)picture->rows * rows) / (float)picture->cols) + 0.5;
        new_cols = (double)((float)((int64_t)picture->cols * cols) / (float)picture->rows) + 0.5;
        new_rows = new_rows < rows ? rows : new_rows;
        new_cols = new_cols < cols ? cols : new_cols;
    }
    if (new_rows > KLAUS_RESAMPLE_SIDE || new_cols > KLAUS_RESAMPLE_SIDE ||
        (int64_t)new_rows * (int64_t)new_cols > MAX_ASPECT * (int64_t)rows * cols) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "a picture of %d x %d would become %.0f x %.0f: too thin, crop it first", picture->rows,
                          picture->cols, new_rows, new_cols);
    }
    *formed = (klaus_extent){(int32_t)new_rows, (int32_t)new_cols, COLOURS};
    if (shrinks && (formed->rows > picture->rows || formed->cols > picture->cols)) {
        return klaus_fail(error, KLAUS_E_INPUT, "a picture of %d x %d cannot be shrunk to %d x %d; crop it first",
                          picture->rows, picture->cols, formed->rows, formed->cols);
    }
    const klaus_status status = tensor_need(&session->formed, formed->rows, formed->cols, error);
    if (status != KLAUS_OK) {
        return status;
    }
    float *values = session->formed.bytes;
    if (shrinks) {
        return resampled(klaus_resample_area(picture->rgb, picture->rows, picture->cols, COLOURS, values, formed->rows,
                                             formed->cols),
                         error);
    }
    if (grows) {
        return resampled(klaus_resample_cubic_u8(picture->rgb, picture->rows, picture->cols, COLOURS, values,
                                                 formed->rows, formed->cols),
                         error);
    }
    widen(picture->rgb, (size_t)klaus_extent_elements(formed), values);
    return KLAUS_OK;
}

/* The mean picture of rows x cols: the model's own, or session->mean. */
static klaus_status mean_of(klaus_session *session, const klaus_extent *wanted, const float **mean,
                            klaus_error *error) {
    const klaus_model *model = session->model;
    const int32_t rows = model->network.picture_rows;
    const int32_t cols = model->network.picture_cols;
    if (wanted->rows == rows && wanted->cols == cols) {
        *mean = model->mean;
        return KLAUS_OK;
    }
    klaus_status status = KLAUS_OK;
    if (memcmp(wanted, &session->mean_extent, sizeof(*wanted)) != 0) {
        session->mean_extent = (klaus_extent){0, 0, 0};
        status = tensor_need(&session->mean, wanted->rows, wanted->cols, error);
        if (status == KLAUS_OK) {
            status = resampled(klaus_resample_cubic_f32(model->mean, rows, cols, COLOURS, session->mean.bytes,
                                                        wanted->rows, wanted->cols),
                               error);
        }
        if (status == KLAUS_OK) {
            session->mean_extent = *wanted;
        }
    }
    *mean = session->mean.bytes;
    return status;
}

/* Product of the strides of the layers that run on the whole picture; 1 without a scan layer. */
static void scan_strides(const klaus_model *model, int64_t *rows, int64_t *cols) {
    *rows = *cols = 1;
    for (int32_t i = 0; i <= model->network.scan_layer; i++) {
        const struct klaus_layer *facts = &model->layers[i];
        if (facts->op == KLAUS_OP_CONV || facts->op == KLAUS_OP_MAX_POOL || facts->op == KLAUS_OP_AVERAGE_POOL) {
            /* Beyond the largest picture a product of strides cuts the same crop. */
            *rows = *rows * facts->stride_rows > KLAUS_MAX_DIMENSION ? KLAUS_MAX_DIMENSION : *rows * facts->stride_rows;
            *cols = *cols * facts->stride_cols > KLAUS_MAX_DIMENSION ? KLAUS_MAX_DIMENSION : *cols * facts->stride_cols;
        }
    }
}

/* Formed, cropped to whole strides, the mean subtracted: session->tensor, `fed` says how large. */
static klaus_status feed_ccv(klaus_session *session, const klaus_picture *picture, klaus_extent *fed,
                             klaus_error *error) {
    const struct klaus_network *network = &session->model->network;
    klaus_extent formed;
    klaus_status status = form_ccv(session, picture, &formed, error);
    if (status != KLAUS_OK) {
        return status;
    }
    int64_t stride_rows = 1;
    int64_t stride_cols = 1;
    scan_strides(session->model, &stride_rows, &stride_cols);
    fed->rows = network->rows + (int32_t)((formed.rows - network->rows) / stride_rows * stride_rows);
    fed->cols = network->cols + (int32_t)((formed.cols - network->cols) / stride_cols * stride_cols);
    fed->channels = COLOURS;
    const float *mean = NULL;
    status = mean_of(session, fed, &mean, error);
    if (status == KLAUS_OK) {
        status = tensor_need(&session->tensor, fed->rows, fed->cols, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const size_t row_values = (size_t)fed->cols * COLOURS;
    const size_t top = (size_t)(formed.rows - fed->rows) / 2;
    const size_t left = (size_t)(formed.cols - fed->cols) / 2;
    for (size_t row = 0; row < (size_t)fed->rows; row++) {
        const float *from = (const float *)session->formed.bytes + ((top + row) * (size_t)formed.cols + left) * COLOURS;
        float *to = (float *)session->tensor.bytes + row * row_values;
        for (size_t i = 0; i < row_values; i++) {
            to[i] = from[i] - mean[row * row_values + i];
        }
    }
    return KLAUS_OK;
}

/* rows x cols out of a larger tensor. */
static void cut(const float *from, const klaus_extent *extent, int32_t top, int32_t left, int32_t rows, int32_t cols,
                float *to) {
    const size_t channels = (size_t)extent->channels;
    const size_t row_values = (size_t)cols * channels;
    for (size_t row = 0; row < (size_t)rows; row++) {
        memcpy(to + row * row_values, from + (((size_t)top + row) * (size_t)extent->cols + (size_t)left) * channels,
               row_values * sizeof(float));
    }
}

/* ---- crop networks ---- */

static klaus_status form_crop(klaus_session *session, const klaus_picture *picture, int32_t crop, float *output,
                              klaus_error *error) {
    const struct klaus_network *network = &session->model->network;
    const size_t row_bytes = (size_t)picture->cols * COLOURS;
    const uint8_t *corner = picture->rgb;
    int32_t rows = picture->rows;
    int32_t cols = picture->cols;
    if (crop) {
        const int64_t shorter = rows < cols ? rows : cols;
        const int64_t scaled = shorter * network->rows / ((int64_t)network->rows + network->crop_padding);
        const int32_t side = scaled < 1 ? 1 : (int32_t)scaled;
        /* The odd pixel goes to the top and left, as the source of these networks has it. */
        corner += (size_t)(rows - side + 1) / 2 * row_bytes + (size_t)(cols - side + 1) / 2 * COLOURS;
        rows = cols = side;
    }
    klaus_status status = tensor_need(&session->formed, network->rows, network->cols, error);
    if (status != KLAUS_OK) {
        return status;
    }
    float *formed = session->formed.bytes;
    if (rows == network->rows && cols == network->cols) {
        for (int32_t row = 0; row < rows; row++) {
            widen(corner + (size_t)row * row_bytes, (size_t)cols * COLOURS,
                  formed + (size_t)row * (size_t)cols * COLOURS);
        }
    } else {
        status = resampled(
            klaus_resample_bicubic(corner, row_bytes, rows, cols, COLOURS, formed, network->rows, network->cols),
            error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const size_t pixels = (size_t)network->rows * (size_t)network->cols;
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < COLOURS; c++) {
            const size_t from = network->channel_order == KLAUS_BGR ? COLOURS - 1 - c : c;
            output[i * COLOURS + c] =
                (formed[i * COLOURS + from] - network->channel_mean[c]) * network->channel_scale[c];
        }
    }
    return KLAUS_OK;
}

klaus_status klaus_preprocess(klaus_session *session, const klaus_picture *picture, int32_t crop, float *output,
                              klaus_error *error) {
    const struct klaus_network *network = &session->model->network;
    klaus_status status = check_picture(session, picture, error);
    if (status != KLAUS_OK) {
        return status;
    }
    if (network->formation == KLAUS_FORMATION_CROP) {
        return form_crop(session, picture, crop, output, error);
    }
    if (!crop) {
        return klaus_fail(error, KLAUS_E_INPUT, "model %s always crops its pictures; ask for a centre crop",
                          session->model->name);
    }
    klaus_extent fed;
    status = feed_ccv(session, picture, &fed, error);
    if (status == KLAUS_OK) {
        cut(session->tensor.bytes, &fed, (fed.rows - network->rows) / 2, (fed.cols - network->cols) / 2, network->rows,
            network->cols, output);
    }
    return status;
}

/* ---- ten patches ---- */

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

static void mirror(float *tensor, const klaus_extent *extent) {
    for (int32_t row = 0; row < extent->rows; row++) {
        float *left = tensor + (size_t)row * (size_t)extent->cols * COLOURS;
        float *right = left + ((size_t)extent->cols - 1) * COLOURS;
        for (; left < right; left += COLOURS, right -= COLOURS) {
            for (int32_t c = 0; c < COLOURS; c++) {
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
        cut(session->map.bytes, map, corners[i][0], corners[i][1], nominal->rows, nominal->cols, patch);
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
    klaus_status status = check_picture(session, picture, error);
    klaus_extent fed = {network->rows, network->cols, network->channels};
    if (status == KLAUS_OK && patches == KLAUS_PATCHES) {
        status = feed_ccv(session, picture, &fed, error);
    } else if (status == KLAUS_OK) {
        /* ccv's way leaves the whole crop in session->tensor, so the patch needs a place of its own. */
        status = tensor_need(&session->slices, network->rows, network->cols, error);
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
