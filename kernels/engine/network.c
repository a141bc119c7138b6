/* What a packed model says about its network as a whole: the input, and how pictures become it. */
#include <inttypes.h>
#include <math.h>

#include "engine/checks.h"
#include "engine/fail.h"

static klaus_status refuse_network(klaus_error *error, const char *field, int64_t found, const char *wanted) {
    return klaus_fail(error, KLAUS_E_INPUT, "network: %s is %" PRId64 ", but must be %s; pack the model again", field,
                      found, wanted);
}

static klaus_status check_ccv(const klaus_model *model, klaus_error *error) {
    const struct klaus_network *network = &model->network;
    const klaus_extent picture = {network->picture_rows, network->picture_cols, network->channels};
    if (!klaus_is_dimension(picture.rows) || picture.rows < network->rows) {
        return refuse_network(error, "picture_rows", picture.rows, "at least the input's rows");
    }
    if (!klaus_is_dimension(picture.cols) || picture.cols < network->cols) {
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

klaus_status klaus_check_network(const klaus_model *model, klaus_error *error) {
    const struct klaus_network *network = &model->network;
    const klaus_extent input = {network->rows, network->cols, network->channels};
    if (!klaus_is_dimension(input.rows) || !klaus_is_dimension(input.cols) || !klaus_is_dimension(input.channels) ||
        klaus_extent_elements(&input) > KLAUS_MAX_ELEMENTS) {
        return klaus_fail(error, KLAUS_E_INPUT, "network: an input of %d x %d x %d is not supported", input.rows,
                          input.cols, input.channels);
    }
    if (!klaus_is_dimension(network->outputs)) {
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
