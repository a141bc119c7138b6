/* From a picture to the tensor that layer 0 reads: ccv's formation, and the central crop of other networks. The numpy
 * oracle of all this is klaus_runtime/images.py. */
#include <string.h>

#include "engine/fail.h"
#include "engine/picture.h"
#include "ops/resample/resample.h"

#define MAX_PIXELS (INT64_C(1) << 26)
/* ccv keeps the aspect: a thin picture would become a huge one. */
#define MAX_ASPECT 16

klaus_status klaus_picture_check(const klaus_session *session, const klaus_picture *picture, klaus_error *error) {
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

klaus_status klaus_tensor_need(klaus_buffer *buffer, int64_t rows, int64_t cols, klaus_error *error) {
    return klaus_buffer_need(buffer, (uint64_t)(rows * cols * KLAUS_COLOURS) * sizeof(float), error);
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
    *formed = (klaus_extent){(int32_t)new_rows, (int32_t)new_cols, KLAUS_COLOURS};
    if (shrinks && (formed->rows > picture->rows || formed->cols > picture->cols)) {
        return klaus_fail(error, KLAUS_E_INPUT, "a picture of %d x %d cannot be shrunk to %d x %d; crop it first",
                          picture->rows, picture->cols, formed->rows, formed->cols);
    }
    const klaus_status status = klaus_tensor_need(&session->formed, formed->rows, formed->cols, error);
    if (status != KLAUS_OK) {
        return status;
    }
    float *values = session->formed.bytes;
    if (shrinks) {
        return resampled(klaus_resample_area(picture->rgb, picture->rows, picture->cols, KLAUS_COLOURS, values,
                                             formed->rows, formed->cols),
                         error);
    }
    if (grows) {
        return resampled(klaus_resample_cubic_u8(picture->rgb, picture->rows, picture->cols, KLAUS_COLOURS, values,
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
        status = klaus_tensor_need(&session->mean, wanted->rows, wanted->cols, error);
        if (status == KLAUS_OK) {
            status = resampled(klaus_resample_cubic_f32(model->mean, rows, cols, KLAUS_COLOURS, session->mean.bytes,
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

klaus_extent klaus_fed_extent(const klaus_model *model, int32_t formed_rows, int32_t formed_cols) {
    const struct klaus_network *network = &model->network;
    int64_t stride_rows = 1;
    int64_t stride_cols = 1;
    scan_strides(model, &stride_rows, &stride_cols);
    return (klaus_extent){network->rows + (int32_t)((formed_rows - network->rows) / stride_rows * stride_rows),
                          network->cols + (int32_t)((formed_cols - network->cols) / stride_cols * stride_cols),
                          KLAUS_COLOURS};
}

klaus_status klaus_feed_ccv(klaus_session *session, const klaus_picture *picture, klaus_extent *fed,
                            klaus_error *error) {
    klaus_extent formed;
    klaus_status status = form_ccv(session, picture, &formed, error);
    if (status != KLAUS_OK) {
        return status;
    }
    *fed = klaus_fed_extent(session->model, formed.rows, formed.cols);
    const float *mean = NULL;
    status = mean_of(session, fed, &mean, error);
    if (status == KLAUS_OK) {
        status = klaus_tensor_need(&session->tensor, fed->rows, fed->cols, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const size_t row_values = (size_t)fed->cols * KLAUS_COLOURS;
    const size_t top = (size_t)(formed.rows - fed->rows) / 2;
    const size_t left = (size_t)(formed.cols - fed->cols) / 2;
    for (size_t row = 0; row < (size_t)fed->rows; row++) {
        const float *from =
            (const float *)session->formed.bytes + ((top + row) * (size_t)formed.cols + left) * KLAUS_COLOURS;
        float *to = (float *)session->tensor.bytes + row * row_values;
        for (size_t i = 0; i < row_values; i++) {
            to[i] = from[i] - mean[row * row_values + i];
        }
    }
    return KLAUS_OK;
}

/* rows x cols out of a larger tensor. */
void klaus_cut(const float *from, const klaus_extent *extent, int32_t top, int32_t left, int32_t rows, int32_t cols,
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
    const size_t row_bytes = (size_t)picture->cols * KLAUS_COLOURS;
    const uint8_t *corner = picture->rgb;
    int32_t rows = picture->rows;
    int32_t cols = picture->cols;
    if (crop) {
        const int64_t shorter = rows < cols ? rows : cols;
        const int64_t scaled = shorter * network->rows / ((int64_t)network->rows + network->crop_padding);
        const int32_t side = scaled < 1 ? 1 : (int32_t)scaled;
        /* The odd pixel goes to the top and left, as the source of these networks has it. */
        corner += (size_t)(rows - side + 1) / 2 * row_bytes + (size_t)(cols - side + 1) / 2 * KLAUS_COLOURS;
        rows = cols = side;
    }
    klaus_status status = klaus_tensor_need(&session->formed, network->rows, network->cols, error);
    if (status != KLAUS_OK) {
        return status;
    }
    float *formed = session->formed.bytes;
    if (rows == network->rows && cols == network->cols) {
        for (int32_t row = 0; row < rows; row++) {
            widen(corner + (size_t)row * row_bytes, (size_t)cols * KLAUS_COLOURS,
                  formed + (size_t)row * (size_t)cols * KLAUS_COLOURS);
        }
    } else {
        status = klaus_buffer_need(&session->narrowed, klaus_resample_bicubic_bytes(rows, KLAUS_COLOURS, network->cols),
                                   error);
        if (status == KLAUS_OK) {
            status = resampled(klaus_resample_bicubic(corner, row_bytes, rows, cols, KLAUS_COLOURS,
                                                      session->narrowed.bytes, formed, network->rows, network->cols),
                               error);
        }
    }
    if (status != KLAUS_OK) {
        return status;
    }
    const size_t pixels = (size_t)network->rows * (size_t)network->cols;
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < KLAUS_COLOURS; c++) {
            const size_t from = network->channel_order == KLAUS_BGR ? KLAUS_COLOURS - 1 - c : c;
            output[i * KLAUS_COLOURS + c] =
                (formed[i * KLAUS_COLOURS + from] - network->channel_mean[c]) * network->channel_scale[c];
        }
    }
    return KLAUS_OK;
}

klaus_status klaus_preprocess(klaus_session *session, const klaus_picture *picture, int32_t crop, float *output,
                              klaus_error *error) {
    const struct klaus_network *network = &session->model->network;
    klaus_status status = klaus_picture_check(session, picture, error);
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
    status = klaus_feed_ccv(session, picture, &fed, error);
    if (status == KLAUS_OK) {
        klaus_cut(session->tensor.bytes, &fed, (fed.rows - network->rows) / 2, (fed.cols - network->cols) / 2,
                  network->rows, network->cols, output);
    }
    return status;
}
