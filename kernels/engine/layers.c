/* The layers of a packed model: geometry, weights, codebooks, and what the ten patches ask of their order. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/checks.h"
#include "engine/fail.h"
#include "engine/text.h"

static klaus_status refuse_layer(const klaus_model *model, int32_t layer, klaus_error *error, const char *field,
                                 int64_t found, const char *wanted) {
    return klaus_fail(error, KLAUS_E_INPUT, "layer %" PRId32 " (%s): %s is %" PRId64 ", but must be %s; pack it again",
                      layer, (const char *)model->layers[layer].name, field, found, wanted);
}

static int32_t wanted_inputs(uint32_t op) {
    return op == KLAUS_OP_ADD ? 2 : 1;
}

static bool takes_activation(uint32_t op) {
    return op == KLAUS_OP_CONV || op == KLAUS_OP_FULL_CONNECT || op == KLAUS_OP_ADD || op == KLAUS_OP_ACTIVATION;
}

static klaus_status check_window(const klaus_model *model, int32_t layer, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    if (!klaus_is_dimension(facts->kernel_rows) || !klaus_is_dimension(facts->kernel_cols)) {
        return refuse_layer(model, layer, error, "a kernel's side",
                            klaus_is_dimension(facts->kernel_rows) ? facts->kernel_cols : facts->kernel_rows,
                            "1..65536");
    }
    if (!klaus_is_dimension(facts->stride_rows) || !klaus_is_dimension(facts->stride_cols)) {
        return refuse_layer(model, layer, error, "a stride",
                            klaus_is_dimension(facts->stride_rows) ? facts->stride_cols : facts->stride_rows,
                            "1..65536");
    }
    const int32_t pads[4] = {facts->pad_top, facts->pad_bottom, facts->pad_left, facts->pad_right};
    const bool conv = facts->op == KLAUS_OP_CONV;
    for (int i = 0; i < 4; i++) {
        /* A window that lies in the padding alone would have no maximum and no average; a convolution's sees zeros. */
        const int32_t kernel = i < 2 ? facts->kernel_rows : facts->kernel_cols;
        if (pads[i] < 0 || pads[i] > (conv ? kernel : kernel - 1)) {
            return refuse_layer(model, layer, error, "a padding", pads[i],
                                conv ? "0 or more and at most the kernel's size"
                                     : "0 or more and smaller than the kernel");
        }
    }
    return KLAUS_OK;
}

/* Everything about a layer that does not need its inputs' shapes. */
static klaus_status check_fields(const klaus_model *model, int32_t layer, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    const uint32_t op = facts->op;
    if (op < KLAUS_OP_CONV || op > KLAUS_OP_ACTIVATION) {
        return refuse_layer(model, layer, error, "its operation", op, "1..11");
    }
    if (facts->activation > (takes_activation(op) ? KLAUS_RELU6 : KLAUS_LINEAR)) {
        return refuse_layer(model, layer, error, "its activation", facts->activation,
                            takes_activation(op) ? "0, 1 or 2" : "0 for this operation");
    }
    if (op == KLAUS_OP_CONCAT ? facts->input_count < 1 || facts->input_count > KLAUS_MAX_INPUTS
                              : facts->input_count != wanted_inputs(op)) {
        return refuse_layer(model, layer, error, "the number of its inputs", facts->input_count,
                            op == KLAUS_OP_CONCAT ? "1..8"
                            : op == KLAUS_OP_ADD  ? "2"
                                                  : "1");
    }
    for (int32_t i = 0; i < facts->input_count; i++) {
        if (facts->inputs[i] < KLAUS_NETWORK_INPUT || facts->inputs[i] >= layer) {
            return refuse_layer(model, layer, error, "an input", facts->inputs[i], "-1 or an earlier layer");
        }
    }
    if (!klaus_is_dimension(facts->rows) || !klaus_is_dimension(facts->cols) || !klaus_is_dimension(facts->channels)) {
        return klaus_fail(error, KLAUS_E_INPUT, "layer %d (%s): an output of %d x %d x %d is not supported", layer,
                          (const char *)facts->name, facts->rows, facts->cols, facts->channels);
    }
    for (size_t i = 0; i < sizeof(facts->reserved) / sizeof(facts->reserved[0]); i++) {
        if (facts->reserved[i] != 0) {
            return refuse_layer(model, layer, error, "a reserved word", facts->reserved[i], "0 in this version");
        }
    }
    if (op == KLAUS_OP_CONV || op == KLAUS_OP_LRN) {
        if (!klaus_is_dimension(facts->groups)) {
            return refuse_layer(model, layer, error, "its number of groups", facts->groups, "1..65536");
        }
        if (facts->channels % facts->groups != 0) {
            return refuse_layer(model, layer, error, "its number of groups", facts->groups,
                                "a divisor of its channels");
        }
    }
    if (op == KLAUS_OP_LRN) {
        if (!klaus_is_dimension(facts->size)) {
            return refuse_layer(model, layer, error, "its window", facts->size, "1..65536");
        }
        if (!isfinite(facts->kappa) || !isfinite(facts->alpha) || !isfinite(facts->beta)) {
            return refuse_layer(model, layer, error, "the finiteness of kappa, alpha and beta", 0, "1");
        }
        if (facts->kappa <= 0 || facts->alpha < 0) {
            return refuse_layer(model, layer, error, "the sign of kappa or alpha", -1, "positive");
        }
    }
    if (op == KLAUS_OP_CONV || op == KLAUS_OP_MAX_POOL || op == KLAUS_OP_AVERAGE_POOL) {
        return check_window(model, layer, error);
    }
    return KLAUS_OK;
}

/* The section that must hold exactly `bytes` bytes of `dtype`. */
static klaus_status exact_section(const klaus_model *model, const klaus_section_index *index, uint32_t kind,
                                  const char *what, int32_t layer, uint32_t dtype, uint64_t bytes, const void **found,
                                  klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, kind, layer);
    if (section == NULL) {
        return klaus_fail(error, KLAUS_E_INPUT, "layer %d: the section with its %s is missing; pack it again", layer,
                          what);
    }
    if (section->dtype != dtype) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "layer %d: its %s have the data type %" PRIu32 ", not %" PRIu32 " as the layer says", layer,
                          what, section->dtype, dtype);
    }
    if (section->bytes != bytes) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "layer %d: its %s fill %" PRIu64 " bytes, but its shape asks for %" PRIu64, layer, what,
                          section->bytes, bytes);
    }
    *found = klaus_section_bytes(model, section);
    return KLAUS_OK;
}

static int32_t codebook_capacity(uint32_t dtype) {
    switch (dtype) {
    case KLAUS_Q2:
        return 4;
    case KLAUS_Q4:
        return 16;
    case KLAUS_Q8:
        return 256;
    default:
        return 0;
    }
}

static klaus_status find_codebook(klaus_model *model, const klaus_section_index *index, int32_t layer,
                                  klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    const int32_t capacity = codebook_capacity(facts->weight_dtype);
    if (capacity == 0) {
        if (facts->codebook_dtype != 0 || facts->codebook_entries != 0 ||
            klaus_sections_find(index, KLAUS_SECTION_CODEBOOK, layer) != NULL) {
            return refuse_layer(model, layer, error, "the size of its codebook", facts->codebook_entries,
                                "0 beside float weights");
        }
        return KLAUS_OK;
    }
    if (facts->codebook_dtype != KLAUS_F32 && facts->codebook_dtype != KLAUS_F16) {
        return refuse_layer(model, layer, error, "its codebook's data type", facts->codebook_dtype, "1 or 2");
    }
    if (facts->codebook_entries < 1 || facts->codebook_entries > (uint32_t)capacity) {
        return refuse_layer(model, layer, error, "the size of its codebook", facts->codebook_entries,
                            "1 or more and what its indices can name");
    }
    const size_t entry_bytes = facts->codebook_dtype == KLAUS_F32 ? 4 : 2;
    const void *found = NULL;
    const klaus_status status =
        exact_section(model, index, KLAUS_SECTION_CODEBOOK, "codebook entries", layer, facts->codebook_dtype,
                      facts->codebook_entries * entry_bytes, &found, error);
    if (status != KLAUS_OK) {
        return status;
    }
    /* An index beyond the last entry (only `verify` looks at every index) then reads a zero, not foreign memory. */
    char *padded = model->codebooks + (size_t)layer * KLAUS_MAX_CODEBOOK * sizeof(float);
    memcpy(padded, found, facts->codebook_entries * entry_bytes);
    model->data[layer].weights.codebook = padded;
    return KLAUS_OK;
}

static klaus_status find_weights(klaus_model *model, const klaus_section_index *index, int32_t layer,
                                 const klaus_extent *input, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    klaus_layer_data *data = &model->data[layer];
    if (facts->weight_dtype < KLAUS_F32 || facts->weight_dtype > KLAUS_Q2) {
        return refuse_layer(model, layer, error, "its weights' data type", facts->weight_dtype, "1..5");
    }
    const int64_t row = klaus_weight_row(model, layer, input);
    if (row < 1 || row > KLAUS_MAX_ROW || row > KLAUS_MAX_ELEMENTS / facts->channels) {
        return refuse_layer(model, layer, error, "the number of weights of one output", row, "smaller");
    }
    const size_t row_bytes = klaus_weight_row_bytes(facts->weight_dtype, row);
    const uint64_t outputs = (uint64_t)facts->channels;
    const void *found = NULL;
    data->weight_count = (uint64_t)row * outputs;
    data->weight_bytes = row_bytes * outputs;
    data->weights.row_bytes = row_bytes;
    klaus_status status = exact_section(model, index, KLAUS_SECTION_WEIGHTS, "weights", layer, facts->weight_dtype,
                                        data->weight_bytes, &data->weights.values, error);
    if (status == KLAUS_OK) {
        status = find_codebook(model, index, layer, error);
    }
    if (status == KLAUS_OK) {
        status =
            exact_section(model, index, KLAUS_SECTION_BIAS, "biases", layer, KLAUS_F32, outputs * 4, &found, error);
        data->weights.bias = found;
    }
    if (status == KLAUS_OK && klaus_sections_find(index, KLAUS_SECTION_SCALE, layer) != NULL) {
        status =
            exact_section(model, index, KLAUS_SECTION_SCALE, "scales", layer, KLAUS_F32, outputs * 4, &found, error);
        data->weights.scale = found;
    }
    if (status == KLAUS_OK && klaus_sections_find(index, KLAUS_SECTION_CORRECTION, layer) != NULL) {
        status = exact_section(model, index, KLAUS_SECTION_CORRECTION, "corrections for int8", layer, KLAUS_F32,
                               outputs * 4, &found, error);
        data->weights.correction = found;
    }
    return status;
}

static klaus_status check_unweighted(const klaus_model *model, const klaus_section_index *index, int32_t layer,
                                     klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    if (facts->weight_dtype != 0 || facts->codebook_dtype != 0 || facts->codebook_entries != 0) {
        return refuse_layer(model, layer, error, "its weights' data type", facts->weight_dtype,
                            "0 for an operation without weights");
    }
    for (uint32_t kind = KLAUS_SECTION_WEIGHTS; kind <= KLAUS_SECTION_CORRECTION; kind++) {
        if (kind != KLAUS_SECTION_RANGES && klaus_sections_find(index, kind, layer) != NULL) {
            return refuse_layer(model, layer, error, "a section of kind", kind, "absent: the operation has no weights");
        }
    }
    return KLAUS_OK;
}

static klaus_status check_layer(klaus_model *model, const klaus_section_index *index, int32_t layer,
                                klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    klaus_layer_data *data = &model->data[layer];
    const uint8_t *name_end = memchr(facts->name, '\0', sizeof(facts->name));
    if (name_end == NULL || !klaus_text_clean((const char *)facts->name, (size_t)(name_end - facts->name), "")) {
        return klaus_fail(error, KLAUS_E_INPUT, "layer %d: its name is not clean UTF-8 of at most 63 bytes", layer);
    }
    klaus_status status = check_fields(model, layer, error);
    if (status != KLAUS_OK) {
        return status;
    }
    klaus_extent inputs[KLAUS_MAX_INPUTS];
    klaus_nominal_inputs(model, layer, inputs);
    status = klaus_layer_extent(model, layer, inputs, &data->nominal, error);
    if (status != KLAUS_OK) {
        return status;
    }
    if (data->nominal.rows != facts->rows || data->nominal.cols != facts->cols ||
        data->nominal.channels != facts->channels) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "layer %d (%s): says its output is %d x %d x %d, but its inputs make it %d x %d x %d", layer,
                          (const char *)facts->name, facts->rows, facts->cols, facts->channels, data->nominal.rows,
                          data->nominal.cols, data->nominal.channels);
    }
    if (!klaus_op_has_weights(facts->op)) {
        return check_unweighted(model, index, layer, error);
    }
    status = find_weights(model, index, layer, &inputs[0], error);
    if (status == KLAUS_OK) {
        data->multiplies = data->weight_count * (uint64_t)data->nominal.rows * (uint64_t)data->nominal.cols;
    }
    return status;
}

/* ccv's patches are cut from the scan layer's output: pictures of all sizes pass the layers up to it, nothing bypasses
 * it, and behind it the full connects take the patches as one batch. */
static klaus_status check_scan(klaus_model *model, klaus_error *error) {
    const int32_t scan = model->network.scan_layer;
    model->tail = model->layer_count;
    if (scan == KLAUS_NO_LAYER) {
        return KLAUS_OK;
    }
    for (int32_t i = 0; i < model->layer_count; i++) {
        const struct klaus_layer *facts = &model->layers[i];
        for (int32_t k = 0; k < facts->input_count; k++) {
            if (i <= scan ? facts->inputs[k] != i - 1 : facts->inputs[k] < scan) {
                return refuse_layer(model, i, error, "its input", facts->inputs[k],
                                    i <= scan ? "the layer before it, up to the scan layer"
                                              : "the scan layer or one behind it");
            }
        }
        if (i <= scan && facts->op != KLAUS_OP_CONV && facts->op != KLAUS_OP_MAX_POOL &&
            facts->op != KLAUS_OP_AVERAGE_POOL && facts->op != KLAUS_OP_LRN && facts->op != KLAUS_OP_ACTIVATION) {
            return refuse_layer(model, i, error, "its operation", facts->op,
                                "conv, pool, LRN or activation up to the scan layer");
        }
    }
    int32_t start = model->layer_count;
    while (start - 1 > scan && model->layers[start - 1].inputs[0] == start - 2 &&
           (model->layers[start - 1].op == KLAUS_OP_FULL_CONNECT || model->layers[start - 1].op == KLAUS_OP_SOFTMAX ||
            model->layers[start - 1].op == KLAUS_OP_ACTIVATION)) {
        start--;
        if (model->layers[start].op == KLAUS_OP_FULL_CONNECT) {
            model->tail = start;
        }
    }
    return KLAUS_OK;
}

klaus_status klaus_read_layers(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_LAYERS, KLAUS_NO_LAYER);
    const size_t count = (size_t)model->layer_count;
    if (section == NULL || section->bytes != count * sizeof(struct klaus_layer)) {
        return klaus_fail(error, KLAUS_E_INPUT, "the section with %zu layers is missing or has another size", count);
    }
    model->layers = malloc(count * sizeof(*model->layers));
    model->data = calloc(count, sizeof(*model->data));
    model->codebooks = calloc(count, KLAUS_MAX_CODEBOOK * sizeof(float));
    if (model->layers == NULL || model->data == NULL || model->codebooks == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for %zu layers", count);
    }
    memcpy(model->layers, klaus_section_bytes(model, section), count * sizeof(*model->layers));
    for (int32_t i = 0; i < model->layer_count; i++) {
        const klaus_status status = check_layer(model, index, i, error);
        if (status != KLAUS_OK) {
            return status;
        }
        model->weight_count += model->data[i].weight_count;
    }
    const klaus_extent *last = &model->data[model->layer_count - 1].nominal;
    if (last->rows != 1 || last->cols != 1 || last->channels != model->network.outputs) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "the last layer gives %d x %d x %d values, but the network has %d outputs", last->rows,
                          last->cols, last->channels, model->network.outputs);
    }
    return check_scan(model, error);
}
