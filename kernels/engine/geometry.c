/* Shapes: what a layer makes of inputs of a given extent. Used when a model is opened, and again for every other size
 * that it is run at. */
#include <string.h>

#include "dispatch.h"
#include "engine/fail.h"
#include "engine/model.h"

int64_t klaus_extent_elements(const klaus_extent *extent) {
    return (int64_t)extent->rows * extent->cols * extent->channels;
}

bool klaus_op_has_weights(uint32_t op) {
    return op == KLAUS_OP_CONV || op == KLAUS_OP_FULL_CONNECT;
}

int64_t klaus_weight_row(const klaus_model *model, int32_t layer, const klaus_extent *input) {
    const struct klaus_layer *facts = &model->layers[layer];
    if (facts->op == KLAUS_OP_FULL_CONNECT) {
        return klaus_extent_elements(input);
    }
    return (int64_t)facts->kernel_rows * facts->kernel_cols * (input->channels / facts->groups);
}

size_t klaus_weight_row_bytes(uint32_t dtype, int64_t count) {
    const size_t weights = (size_t)count;
    switch (dtype) {
    case KLAUS_F32:
        return weights * 4;
    case KLAUS_F16:
        return weights * 2;
    case KLAUS_Q4:
        return (weights + 1) / 2;
    case KLAUS_Q2:
        return (weights + 3) / 4;
    default:
        return weights;
    }
}

static klaus_status refuse(const klaus_model *model, int32_t layer, klaus_error *error, const char *reason) {
    const struct klaus_layer *facts = &model->layers[layer];
    return klaus_fail(error, KLAUS_E_INPUT, "layer %d (%s, %s): %s", layer, (const char *)facts->name,
                      klaus_op_name(facts->op), reason);
}

/* Positions of a window along one direction; 0 where the window does not fit. */
static int32_t window_positions(int32_t input, int32_t kernel, int32_t stride, int32_t before, int32_t after) {
    const int64_t room = (int64_t)input + before + after - kernel;
    return room < 0 ? 0 : (int32_t)(room / stride + 1);
}

klaus_status klaus_layer_extent(const klaus_model *model, int32_t layer, const klaus_extent *inputs,
                                klaus_extent *output, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    *output = inputs[0];
    switch (facts->op) {
    case KLAUS_OP_CONV:
        if (inputs[0].channels % facts->groups != 0) {
            return refuse(model, layer, error, "its groups do not divide the input channels");
        }
        output->channels = facts->channels;
        __attribute__((fallthrough));
    case KLAUS_OP_MAX_POOL:
    case KLAUS_OP_AVERAGE_POOL:
        output->rows =
            window_positions(inputs[0].rows, facts->kernel_rows, facts->stride_rows, facts->pad_top, facts->pad_bottom);
        output->cols =
            window_positions(inputs[0].cols, facts->kernel_cols, facts->stride_cols, facts->pad_left, facts->pad_right);
        if (output->rows < 1 || output->cols < 1) {
            return refuse(model, layer, error, "its window is larger than its padded input");
        }
        break;
    case KLAUS_OP_FULL_CONNECT:
        output->rows = output->cols = 1;
        output->channels = facts->channels;
        break;
    case KLAUS_OP_GLOBAL_POOL:
        output->rows = output->cols = 1;
        break;
    case KLAUS_OP_LRN:
        if (inputs[0].channels % facts->groups != 0) {
            return refuse(model, layer, error, "its groups do not divide the input channels");
        }
        break;
    case KLAUS_OP_ADD:
        if (memcmp(&inputs[0], &inputs[1], sizeof(inputs[0])) != 0) {
            return refuse(model, layer, error, "its two inputs differ in shape");
        }
        break;
    case KLAUS_OP_CONCAT: {
        int64_t channels = 0;
        for (int32_t i = 0; i < facts->input_count; i++) {
            if (inputs[i].rows != inputs[0].rows || inputs[i].cols != inputs[0].cols) {
                return refuse(model, layer, error, "its inputs differ in rows or columns");
            }
            channels += inputs[i].channels;
        }
        if (channels > KLAUS_MAX_DIMENSION) {
            return refuse(model, layer, error, "it has too many channels");
        }
        output->channels = (int32_t)channels;
        break;
    }
    case KLAUS_OP_SLICE:
        if (facts->begin < 0 || (int64_t)facts->begin + facts->channels > inputs[0].channels) {
            return refuse(model, layer, error, "it takes channels that its input does not have");
        }
        output->channels = facts->channels;
        break;
    default: /* softmax, activation */
        break;
    }
    if (output->rows > KLAUS_MAX_DIMENSION || output->cols > KLAUS_MAX_DIMENSION ||
        klaus_extent_elements(output) > KLAUS_MAX_ELEMENTS) {
        return refuse(model, layer, error, "its output is larger than any that is supported");
    }
    return KLAUS_OK;
}

void klaus_nominal_inputs(const klaus_model *model, int32_t layer, klaus_extent inputs[KLAUS_MAX_INPUTS]) {
    const struct klaus_layer *facts = &model->layers[layer];
    const struct klaus_network *network = &model->network;
    memset(inputs, 0, KLAUS_MAX_INPUTS * sizeof(*inputs));
    for (int32_t i = 0; i < facts->input_count; i++) {
        inputs[i] = facts->inputs[i] == KLAUS_NETWORK_INPUT
                        ? (klaus_extent){network->rows, network->cols, network->channels}
                        : model->data[facts->inputs[i]].nominal;
    }
}

void klaus_layer_shape(const klaus_model *model, int32_t layer, const klaus_extent *inputs, const klaus_extent *output,
                       int32_t batch, klaus_shape *shape) {
    const struct klaus_layer *facts = &model->layers[layer];
    memset(shape, 0, sizeof(*shape));
    shape->op = facts->op;
    shape->activation = facts->activation;
    shape->batch = 1;
    shape->in_rows = inputs[0].rows;
    shape->in_cols = inputs[0].cols;
    shape->in_channels = inputs[0].channels;
    shape->out_rows = output->rows;
    shape->out_cols = output->cols;
    shape->out_channels = output->channels;
    shape->input_count = facts->input_count;
    shape->in_dtype = shape->out_dtype = KLAUS_F32;
    switch (facts->op) {
    case KLAUS_OP_CONV:
        shape->groups = facts->groups;
        __attribute__((fallthrough));
    case KLAUS_OP_MAX_POOL:
    case KLAUS_OP_AVERAGE_POOL:
        shape->kernel_rows = facts->kernel_rows;
        shape->kernel_cols = facts->kernel_cols;
        shape->stride_rows = facts->stride_rows;
        shape->stride_cols = facts->stride_cols;
        shape->pad_top = facts->pad_top;
        shape->pad_left = facts->pad_left;
        break;
    case KLAUS_OP_LRN:
        shape->groups = facts->groups;
        shape->size = facts->size;
        shape->kappa = facts->kappa;
        shape->alpha = facts->alpha;
        shape->beta = facts->beta;
        break;
    case KLAUS_OP_SLICE:
        shape->begin = facts->begin;
        break;
    case KLAUS_OP_CONCAT:
        for (int32_t i = 0; i < facts->input_count; i++) {
            shape->input_channels[i] = inputs[i].channels;
        }
        break;
    case KLAUS_OP_FULL_CONNECT:
    case KLAUS_OP_SOFTMAX:
        shape->batch = batch;
        break;
    default: /* element by element: a batch is so many rows */
        shape->in_rows *= batch;
        shape->out_rows *= batch;
        break;
    }
    if (klaus_op_has_weights(facts->op)) {
        shape->weight_dtype = facts->weight_dtype;
        shape->codebook_dtype = facts->codebook_dtype;
        shape->codebook_entries = facts->codebook_entries;
        shape->has_scale = model->data[layer].weights.scale != NULL;
    }
}
