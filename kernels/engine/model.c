/* Opens packed models. Nothing of a file is believed: each field is checked before its first use, and what is used
 * later is the copy that was checked. */
#include "engine/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "engine/fail.h"
#include "engine/sections.h"
#include "engine/text.h"

#define NAME_BYTES 256

static const uint8_t *section_bytes(const klaus_model *model, const struct klaus_section *section) {
    return model->mapping.bytes + section->offset;
}

static klaus_status refuse_layer(const klaus_model *model, int32_t layer, klaus_error *error, const char *field,
                                 int64_t found, const char *wanted) {
    return klaus_fail(error, KLAUS_E_INPUT, "layer %" PRId32 " (%s): %s is %" PRId64 ", but must be %s; pack it again",
                      layer, (const char *)model->layers[layer].name, field, found, wanted);
}

static klaus_status refuse_network(klaus_error *error, const char *field, int64_t found, const char *wanted) {
    return klaus_fail(error, KLAUS_E_INPUT, "network: %s is %" PRId64 ", but must be %s; pack the model again", field,
                      found, wanted);
}

static bool dimension(int32_t value) {
    return value >= 1 && value <= KLAUS_MAX_DIMENSION;
}

/* ---- network ---- */

static klaus_status check_ccv(const klaus_model *model, klaus_error *error) {
    const struct klaus_network *network = &model->network;
    const klaus_extent picture = {network->picture_rows, network->picture_cols, network->channels};
    if (!dimension(picture.rows) || picture.rows < network->rows) {
        return refuse_network(error, "picture_rows", picture.rows, "at least the input's rows");
    }
    if (!dimension(picture.cols) || picture.cols < network->cols) {
        return refuse_network(error, "picture_cols", picture.cols, "at least the input's columns");
    }
    if (klaus_extent_elements(&picture) > KLAUS_MAX_ELEMENTS) {
        return refuse_network(error, "the picture's size", klaus_extent_elements(&picture), "at most 2^28 values");
    }
    return KLAUS_OK;
}

static klaus_status check_crop(const klaus_model *model, klaus_error *error) {
    const struct klaus_network *network = &model->network;
    if (network->crop_padding < 0 || network->crop_padding > KLAUS_MAX_DIMENSION) {
        return refuse_network(error, "crop_padding", network->crop_padding, "0..65536");
    }
    if (network->channel_order != KLAUS_RGB && network->channel_order != KLAUS_BGR) {
        return refuse_network(error, "channel_order", network->channel_order, "0 (RGB) or 1 (BGR)");
    }
    for (int32_t i = 0; i < 3; i++) {
        if (!isfinite(network->channel_mean[i]) || !isfinite(network->channel_scale[i])) {
            return refuse_network(error, "a channel's mean or scale, channel", i, "finite");
        }
    }
    return KLAUS_OK;
}

static klaus_status check_network(const klaus_model *model, klaus_error *error) {
    const struct klaus_network *network = &model->network;
    const klaus_extent input = {network->rows, network->cols, network->channels};
    if (!dimension(input.rows) || !dimension(input.cols) || !dimension(input.channels) ||
        klaus_extent_elements(&input) > KLAUS_MAX_ELEMENTS) {
        return klaus_fail(error, KLAUS_E_INPUT, "network: an input of %d x %d x %d is not supported", input.rows,
                          input.cols, input.channels);
    }
    if (!dimension(network->outputs)) {
        return refuse_network(error, "outputs", network->outputs, "1..65536");
    }
    if ((network->flags & ~(uint32_t)KLAUS_FLAG_SEEDED) != 0) {
        return refuse_network(error, "flags", network->flags, "a combination this version knows");
    }
    if (network->default_patches != 1 && network->default_patches != 10) {
        return refuse_network(error, "default_patches", network->default_patches, "1 or 10");
    }
    if (network->scan_layer < KLAUS_NO_LAYER || network->scan_layer >= model->layer_count - 1) {
        return refuse_network(error, "scan_layer", network->scan_layer, "-1 or a layer before the last");
    }
    for (size_t i = 0; i < sizeof(network->reserved) / sizeof(network->reserved[0]); i++) {
        if (network->reserved[i] != 0) {
            return refuse_network(error, "a reserved word", network->reserved[i], "0 in this version");
        }
    }
    if (network->formation > KLAUS_FORMATION_CROP) {
        return refuse_network(error, "formation", network->formation, "0, 1 or 2");
    }
    if (network->formation != KLAUS_FORMATION_TENSOR && input.channels != 3) {
        return refuse_network(error, "channels", input.channels, "3 where pictures are taken");
    }
    if (network->formation != KLAUS_FORMATION_CCV && network->scan_layer != KLAUS_NO_LAYER) {
        return refuse_network(error, "scan_layer", network->scan_layer, "-1 without ccv's picture formation");
    }
    if (network->default_patches == 10 && network->scan_layer == KLAUS_NO_LAYER) {
        return refuse_network(error, "default_patches", 10, "1 without a scan layer");
    }
    switch (network->formation) {
    case KLAUS_FORMATION_CCV:
        return check_ccv(model, error);
    case KLAUS_FORMATION_CROP:
        return check_crop(model, error);
    default:
        return KLAUS_OK;
    }
}

/* ---- layers ---- */

static int32_t wanted_inputs(uint32_t op) {
    return op == KLAUS_OP_ADD ? 2 : 1;
}

static bool takes_activation(uint32_t op) {
    return op == KLAUS_OP_CONV || op == KLAUS_OP_FULL_CONNECT || op == KLAUS_OP_ADD || op == KLAUS_OP_ACTIVATION;
}

static klaus_status check_window(const klaus_model *model, int32_t layer, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    if (!dimension(facts->kernel_rows) || !dimension(facts->kernel_cols)) {
        return refuse_layer(model, layer, error, "a kernel's side",
                            dimension(facts->kernel_rows) ? facts->kernel_cols : facts->kernel_rows, "1..65536");
    }
    if (!dimension(facts->stride_rows) || !dimension(facts->stride_cols)) {
        return refuse_layer(model, layer, error, "a stride",
                            dimension(facts->stride_rows) ? facts->stride_cols : facts->stride_rows, "1..65536");
    }
    const int32_t pads[4] = {facts->pad_top, facts->pad_bottom, facts->pad_left, facts->pad_right};
    for (int i = 0; i < 4; i++) {
        /* A window that lies in the padding alone would have no maximum and no average. */
        if (pads[i] < 0 || pads[i] >= (i < 2 ? facts->kernel_rows : facts->kernel_cols)) {
            return refuse_layer(model, layer, error, "a padding", pads[i], "0 or more and smaller than the kernel");
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
    if (!dimension(facts->rows) || !dimension(facts->cols) || !dimension(facts->channels)) {
        return klaus_fail(error, KLAUS_E_INPUT, "layer %d (%s): an output of %d x %d x %d is not supported", layer,
                          (const char *)facts->name, facts->rows, facts->cols, facts->channels);
    }
    for (size_t i = 0; i < sizeof(facts->reserved) / sizeof(facts->reserved[0]); i++) {
        if (facts->reserved[i] != 0) {
            return refuse_layer(model, layer, error, "a reserved word", facts->reserved[i], "0 in this version");
        }
    }
    if (op == KLAUS_OP_CONV || op == KLAUS_OP_LRN) {
        if (!dimension(facts->groups)) {
            return refuse_layer(model, layer, error, "its number of groups", facts->groups, "1..65536");
        }
        if (facts->channels % facts->groups != 0) {
            return refuse_layer(model, layer, error, "its number of groups", facts->groups,
                                "a divisor of its channels");
        }
    }
    if (op == KLAUS_OP_LRN) {
        if (!dimension(facts->size)) {
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
    *found = section_bytes(model, section);
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
    return status;
}

static klaus_status check_unweighted(const klaus_model *model, const klaus_section_index *index, int32_t layer,
                                     klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    if (facts->weight_dtype != 0 || facts->codebook_dtype != 0 || facts->codebook_entries != 0) {
        return refuse_layer(model, layer, error, "its weights' data type", facts->weight_dtype,
                            "0 for an operation without weights");
    }
    for (uint32_t kind = KLAUS_SECTION_WEIGHTS; kind <= KLAUS_SECTION_PACKED; kind++) {
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
    klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
    for (int32_t i = 0; i < facts->input_count; i++) {
        const struct klaus_network *network = &model->network;
        inputs[i] = facts->inputs[i] == KLAUS_NETWORK_INPUT
                        ? (klaus_extent){network->rows, network->cols, network->channels}
                        : model->data[facts->inputs[i]].nominal;
    }
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

static klaus_status read_layers(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
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
    memcpy(model->layers, section_bytes(model, section), count * sizeof(*model->layers));
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

/* ---- what belongs to the network ---- */

static klaus_status read_meta(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_META, KLAUS_NO_LAYER);
    if (section == NULL || section->bytes > KLAUS_MAX_META_BYTES) {
        return klaus_fail(error, KLAUS_E_INPUT, "the section with name and origin is missing or over 1 MiB");
    }
    const size_t length = (size_t)section->bytes;
    model->meta = malloc(length + 1);
    model->name = malloc(NAME_BYTES);
    if (model->meta == NULL || model->name == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for %zu bytes of name and origin", length);
    }
    memcpy(model->meta, section_bytes(model, section), length);
    model->meta[length] = '\0';
    if (!klaus_text_clean(model->meta, length, "\t\n\r") ||
        !klaus_text_json_object(model->meta, length, model->name, NAME_BYTES)) {
        return klaus_fail(error, KLAUS_E_INPUT, "name and origin are no JSON object; pack the model again");
    }
    if (model->name[0] == '\0' || !klaus_text_clean(model->name, strlen(model->name), "")) {
        return klaus_fail(error, KLAUS_E_INPUT, "the model has no name, or one with control characters");
    }
    return KLAUS_OK;
}

static klaus_status read_labels(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_LABELS, KLAUS_NO_LAYER);
    if (section == NULL) {
        return KLAUS_OK;
    }
    const int32_t outputs = model->network.outputs;
    if (section->bytes > KLAUS_MAX_LABEL_BYTES) {
        return klaus_fail(error, KLAUS_E_INPUT, "%" PRIu64 " bytes of labels are over 16 MiB", section->bytes);
    }
    const size_t length = (size_t)section->bytes;
    model->label_text = malloc(length + 1);
    model->labels = malloc((size_t)outputs * sizeof(*model->labels));
    if (model->label_text == NULL || model->labels == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for %zu bytes of labels", length);
    }
    memcpy(model->label_text, section_bytes(model, section), length);
    model->label_text[length] = '\0';
    if (!klaus_text_clean(model->label_text, length, "\t\n")) {
        return klaus_fail(error, KLAUS_E_INPUT, "the labels are not clean UTF-8; pack the model again");
    }
    int32_t count = 0;
    for (char *line = model->label_text; *line != '\0'; count++) {
        char *end = strchr(line, '\n');
        char *tab = strchr(line, '\t');
        if (end == NULL || tab == NULL || tab > end || tab == line || memchr(tab + 1, '\t', (size_t)(end - tab - 1))) {
            return klaus_fail(error, KLAUS_E_INPUT, "label %d is not 'id<TAB>name'; pack the model again", count);
        }
        if (count == outputs) {
            return klaus_fail(error, KLAUS_E_INPUT, "there are more labels than the %d outputs", outputs);
        }
        *end = '\0';
        model->labels[count] = tab + 1;
        line = end + 1;
    }
    if (count != outputs) {
        return klaus_fail(error, KLAUS_E_INPUT, "there are %d labels for %d outputs", count, outputs);
    }
    return KLAUS_OK;
}

static klaus_status read_mean(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_MEAN, KLAUS_NO_LAYER);
    const struct klaus_network *network = &model->network;
    const bool wanted = network->formation == KLAUS_FORMATION_CCV;
    if (wanted != (section != NULL)) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          wanted ? "the mean picture is missing; pack the model again"
                                 : "there is a mean picture that nothing uses");
    }
    if (!wanted) {
        return KLAUS_OK;
    }
    const klaus_extent picture = {network->picture_rows, network->picture_cols, network->channels};
    const uint64_t bytes = (uint64_t)klaus_extent_elements(&picture) * 4;
    if (section->bytes != bytes) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "the mean picture has %" PRIu64 " bytes, %d x %d x %d values have %" PRIu64, section->bytes,
                          picture.rows, picture.cols, picture.channels, bytes);
    }
    model->mean = (const float *)(const void *)section_bytes(model, section);
    return KLAUS_OK;
}

static klaus_status read_ranges(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_RANGES, KLAUS_NO_LAYER);
    if (section == NULL) {
        return KLAUS_OK;
    }
    const uint64_t bytes = ((uint64_t)model->layer_count + 1) * sizeof(struct klaus_range);
    if (section->bytes != bytes) {
        return klaus_fail(error, KLAUS_E_INPUT, "the activation ranges have %" PRIu64 " bytes instead of %" PRIu64,
                          section->bytes, bytes);
    }
    model->ranges = (const struct klaus_range *)(const void *)section_bytes(model, section);
    return KLAUS_OK;
}

const klaus_packed_data *klaus_model_packed(const klaus_model *model, int32_t layer, uint32_t layout) {
    for (int32_t i = 0; i < model->packed_count; i++) {
        if (model->packed[i].layer == layer && model->packed[i].layout == layout) {
            return &model->packed[i];
        }
    }
    return NULL;
}

static klaus_status read_packed(klaus_model *model, klaus_error *error) {
    for (int32_t i = 0; i < model->section_count; i++) {
        model->packed_count += model->sections[i].kind == KLAUS_SECTION_PACKED;
    }
    if (model->packed_count == 0) {
        return KLAUS_OK;
    }
    model->packed = calloc((size_t)model->packed_count, sizeof(*model->packed));
    if (model->packed == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a list of %d packed layers", model->packed_count);
    }
    klaus_packed_data *next = model->packed;
    for (int32_t i = 0; i < model->section_count; i++) {
        const struct klaus_section *section = &model->sections[i];
        if (section->kind != KLAUS_SECTION_PACKED) {
            continue;
        }
        if (klaus_model_packed(model, section->layer, section->layout) != NULL) {
            return klaus_fail(error, KLAUS_E_INPUT, "two packed sections of layer %d in layout %" PRIu32,
                              section->layer, section->layout);
        }
        *next++ = (klaus_packed_data){section->layer, section->layout, section_bytes(model, section), section->bytes};
    }
    return KLAUS_OK;
}

static klaus_status read_network(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_NETWORK, KLAUS_NO_LAYER);
    if (section == NULL || section->bytes != sizeof(model->network)) {
        return klaus_fail(error, KLAUS_E_INPUT, "the section of the network is missing or has another size");
    }
    memcpy(&model->network, section_bytes(model, section), sizeof(model->network));
    return check_network(model, error);
}

static klaus_status read_all(klaus_model *model, klaus_error *error) {
    klaus_status status = klaus_sections_read(model, error);
    if (status != KLAUS_OK) {
        return status;
    }
    klaus_section_index index = {NULL};
    status = klaus_sections_index(model, &index, error);
    if (status == KLAUS_OK) {
        status = read_network(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_meta(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_labels(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_mean(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_layers(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_ranges(model, &index, error);
    }
    if (status == KLAUS_OK) {
        status = read_packed(model, error);
    }
    free(index.of_kind);
    return status;
}

/* ---- public ---- */

static klaus_status open_mapping(klaus_mapping *mapping, bool owned, klaus_model **model, klaus_error *error) {
    klaus_model *opened = calloc(1, sizeof(*opened));
    if (opened == NULL) {
        if (owned) {
            klaus_os_unmap(mapping);
        }
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory to open a model");
    }
    opened->mapping = *mapping;
    opened->owns_mapping = owned;
    const klaus_status status = read_all(opened, error);
    if (status != KLAUS_OK) {
        klaus_close(opened);
        return status;
    }
    *model = opened;
    return KLAUS_OK;
}

klaus_status klaus_open(const char *path, klaus_model **model, klaus_error *error) {
    klaus_mapping mapping;
    *model = NULL;
    klaus_status status = klaus_os_map(path, &mapping, error);
    if (status != KLAUS_OK) {
        return status;
    }
    status = open_mapping(&mapping, true, model, error);
    if (status != KLAUS_OK) {
        klaus_fail_prefix(error, path);
    }
    return status;
}

klaus_status klaus_open_memory(const void *bytes, size_t size, klaus_model **model, klaus_error *error) {
    *model = NULL;
    if (bytes == NULL || (uintptr_t)bytes % KLAUS_ALIGNMENT != 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "a model in memory must be aligned to %d bytes", KLAUS_ALIGNMENT);
    }
    klaus_mapping mapping = {bytes, size};
    return open_mapping(&mapping, false, model, error);
}

void klaus_close(klaus_model *model) {
    if (model == NULL) {
        return;
    }
    free(model->sections);
    free(model->layers);
    free(model->data);
    free(model->codebooks);
    free(model->packed);
    free(model->meta);
    free(model->name);
    free(model->label_text);
    free((void *)model->labels);
    if (model->owns_mapping) {
        klaus_os_unmap(&model->mapping);
    }
    free(model);
}

klaus_status klaus_describe(const klaus_model *model, klaus_description *description) {
    const struct klaus_network *network = &model->network;
    *description = (klaus_description){
        .name = model->name,
        .meta = model->meta,
        .rows = network->rows,
        .cols = network->cols,
        .channels = network->channels,
        .outputs = network->outputs,
        .layer_count = model->layer_count,
        .patches = network->default_patches,
        .takes_pictures = network->formation != KLAUS_FORMATION_TENSOR,
        .seeded = (network->flags & KLAUS_FLAG_SEEDED) != 0,
        .file_bytes = model->mapping.size,
        .weight_count = model->weight_count,
    };
    return KLAUS_OK;
}

klaus_status klaus_describe_layer(const klaus_model *model, int32_t layer, klaus_layer_description *description) {
    if (layer < 0 || layer >= model->layer_count) {
        return KLAUS_E_INPUT;
    }
    const klaus_layer_data *data = &model->data[layer];
    *description = (klaus_layer_description){
        .name = (const char *)model->layers[layer].name,
        .op = klaus_op_name(model->layers[layer].op),
        .rows = data->nominal.rows,
        .cols = data->nominal.cols,
        .channels = data->nominal.channels,
        .multiplies = data->multiplies,
    };
    return KLAUS_OK;
}

const char *klaus_label(const klaus_model *model, int32_t id) {
    return model->labels != NULL && id >= 0 && id < model->network.outputs ? model->labels[id] : "";
}
