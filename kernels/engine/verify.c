/* Reads every byte of a packed model: what opening leaves out because it would cost time and memory. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "engine/fail.h"
#include "engine/memory.h"
#include "engine/model.h"
#include "engine/picture.h"
#include "engine/sha256.h"

/* An index of the first number that is not finite, or `count`. Works on the bits, so it needs no float16 support. */
static uint64_t first_not_finite(const void *values, uint32_t dtype, uint64_t count) {
    if (dtype == KLAUS_F32) {
        const uint32_t *bits = values;
        for (uint64_t i = 0; i < count; i++) {
            if ((bits[i] & 0x7f800000u) == 0x7f800000u) {
                return i;
            }
        }
    } else if (dtype == KLAUS_F16) {
        const uint16_t *bits = values;
        for (uint64_t i = 0; i < count; i++) {
            if ((bits[i] & 0x7c00u) == 0x7c00u) {
                return i;
            }
        }
    }
    return count;
}

static klaus_status check_finite(const void *values, uint32_t dtype, uint64_t count, int32_t layer, const char *what,
                                 klaus_error *error) {
    const uint64_t at = first_not_finite(values, dtype, count);
    if (at < count) {
        return klaus_fail(error, KLAUS_E_CHECK, "layer %d: number %" PRIu64 " of its %s is not finite", layer, at,
                          what);
    }
    return KLAUS_OK;
}

/* Each index must name an entry, and each entry that is named must be finite. */
static klaus_status check_indices(const klaus_model *model, int32_t layer, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    const klaus_layer_data *data = &model->data[layer];
    const uint32_t per_byte = facts->weight_dtype == KLAUS_Q8 ? 1 : facts->weight_dtype == KLAUS_Q4 ? 2 : 4;
    const uint32_t bits = 8 / per_byte;
    const uint64_t row = data->weight_count / (uint64_t)facts->channels;
    bool used[KLAUS_MAX_CODEBOOK] = {false};
    for (int32_t output = 0; output < facts->channels; output++) {
        const uint8_t *bytes = (const uint8_t *)data->weights.values + (size_t)output * data->weights.row_bytes;
        for (uint64_t i = 0; i < row; i++) {
            const uint32_t index = (uint32_t)bytes[i / per_byte] >> (i % per_byte * bits) & ((1u << bits) - 1);
            if (index >= facts->codebook_entries) {
                return klaus_fail(error, KLAUS_E_CHECK,
                                  "layer %d: weight %" PRIu64 " of output %d has index %" PRIu32
                                  ", but the codebook has %" PRIu32 " entries",
                                  layer, i, output, index, facts->codebook_entries);
            }
            used[index] = true;
        }
    }
    const size_t entry_bytes = facts->codebook_dtype == KLAUS_F32 ? 4 : 2;
    for (uint32_t i = 0; i < facts->codebook_entries; i++) {
        const char *entry = (const char *)data->weights.codebook + i * entry_bytes;
        if (used[i] && first_not_finite(entry, facts->codebook_dtype, 1) == 0) {
            return klaus_fail(error, KLAUS_E_CHECK, "layer %d: entry %" PRIu32 " of its codebook is not finite", layer,
                              i);
        }
    }
    return KLAUS_OK;
}

static klaus_status check_layer_numbers(const klaus_model *model, int32_t layer, klaus_error *error) {
    const struct klaus_layer *facts = &model->layers[layer];
    const klaus_layer_data *data = &model->data[layer];
    const uint64_t outputs = (uint64_t)facts->channels;
    klaus_status status = facts->weight_dtype >= KLAUS_Q8 ? check_indices(model, layer, error)
                                                          : check_finite(data->weights.values, facts->weight_dtype,
                                                                         data->weight_count, layer, "weights", error);
    if (status == KLAUS_OK) {
        status = check_finite(data->weights.bias, KLAUS_F32, outputs, layer, "biases", error);
    }
    if (status == KLAUS_OK && data->weights.scale != NULL) {
        status = check_finite(data->weights.scale, KLAUS_F32, outputs, layer, "scales", error);
    }
    if (status == KLAUS_OK && data->weights.correction != NULL) {
        status = check_finite(data->weights.correction, KLAUS_F32, outputs, layer, "corrections for int8", error);
    }
    return status;
}

static klaus_status check_digest(const klaus_model *model, klaus_error *error) {
    const size_t header_bytes = sizeof(model->header);
    klaus_sha256 hash;
    uint8_t digest[KLAUS_SHA256_BYTES];
    klaus_sha256_begin(&hash);
    klaus_sha256_add(&hash, model->mapping.bytes + header_bytes, model->mapping.size - header_bytes);
    klaus_sha256_end(&hash, digest);
    if (memcmp(digest, model->header.digest, sizeof(digest)) != 0) {
        char found[KLAUS_SHA256_HEX_BYTES];
        char wanted[KLAUS_SHA256_HEX_BYTES];
        klaus_sha256_hex(digest, found);
        klaus_sha256_hex(model->header.digest, wanted);
        return klaus_fail(error, KLAUS_E_CHECK,
                          "its SHA-256 is %.16s..., its header says %.16s...; copy or pack it again", found, wanted);
    }
    return KLAUS_OK;
}

/* All bytes that belong to no section are zero. */
static klaus_status check_gaps(const klaus_model *model, klaus_error *error) {
    uint64_t at = sizeof(model->header) + (uint64_t)model->section_count * sizeof(struct klaus_section);
    for (int32_t i = 0; i <= model->section_count; i++) {
        const uint64_t end = i < model->section_count ? model->sections[i].offset : model->mapping.size;
        for (; at < end; at++) {
            if (model->mapping.bytes[at] != 0) {
                return klaus_fail(error, KLAUS_E_CHECK, "byte %" PRIu64 " belongs to no section and is not zero", at);
            }
        }
        if (i < model->section_count) {
            at = end + model->sections[i].bytes;
        }
    }
    return KLAUS_OK;
}

/* Kinds of activations that a kernel may take and give. */
static const uint32_t dtype_pairs[][2] = {{KLAUS_F32, KLAUS_F32}, {KLAUS_F16, KLAUS_F16}, {KLAUS_F32, KLAUS_F16},
                                          {KLAUS_F16, KLAUS_F32}, {KLAUS_I8, KLAUS_I8},   {KLAUS_F32, KLAUS_I8},
                                          {KLAUS_I8, KLAUS_F32}};
#define DTYPE_PAIRS (sizeof(dtype_pairs) / sizeof(dtype_pairs[0]))

/* Sizes of all that the layers up to the scan layer put out for ten patches' picture, the picture itself first. */
static klaus_status scan_extents(const klaus_model *model, klaus_extent **made, klaus_error *error) {
    const int32_t count = model->network.scan_layer + 1;
    klaus_extent *extents = calloc((size_t)count + 1, sizeof(*extents));
    *made = extents;
    if (extents == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for the sizes of %d layers", count);
    }
    if (count == 0) { /* no patches, and perhaps no pictures */
        return KLAUS_OK;
    }
    extents[0] = klaus_fed_extent(model, model->network.picture_rows, model->network.picture_cols);
    klaus_status status = KLAUS_OK;
    for (int32_t i = 0; i < count && status == KLAUS_OK; i++) {
        klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
        for (int32_t k = 0; k < model->layers[i].input_count; k++) {
            inputs[k] = extents[model->layers[i].inputs[k] + 1];
        }
        status = klaus_layer_extent(model, i, inputs, &extents[i + 1], error);
    }
    return status;
}

/* The shape of a layer's call: with `scan`, as scan_extents() gave it, for ten patches; they are cut to the nominal
 * size behind the scan layer. */
static klaus_shape shape_of(const klaus_model *model, int32_t layer, const klaus_extent *scan) {
    klaus_extent inputs[KLAUS_MAX_INPUTS] = {{0, 0, 0}};
    klaus_extent output = model->data[layer].nominal;
    klaus_shape shape;
    klaus_nominal_inputs(model, layer, inputs);
    if (scan != NULL && layer <= model->network.scan_layer) {
        for (int32_t k = 0; k < model->layers[layer].input_count; k++) {
            inputs[k] = scan[model->layers[layer].inputs[k] + 1];
        }
        output = scan[layer + 1];
    }
    klaus_layer_shape(model, layer, inputs, &output, scan != NULL ? KLAUS_PATCHES : 1, &shape);
    return shape;
}

/* The kernel of this CPU that makes a packed section of its layer, and the shape for which it does, or NULL; `known`:
 * whether any kernel here makes this layout of anything. */
static const klaus_variant *find_maker(const klaus_model *model, const klaus_packed_data *packed,
                                       const klaus_extent *scan, klaus_shape *shape, bool *known) {
    *known = false;
    for (int32_t i = 0; i < klaus_dispatch_count(); i++) {
        const klaus_variant *variant = klaus_dispatch_variant(i);
        if (variant->layout != packed->layout || !klaus_dispatch_available(variant, klaus_cpu_here())) {
            continue;
        }
        *known = true;
        for (int32_t patches = 0; patches < 2; patches++) {
            *shape = shape_of(model, packed->layer, patches != 0 ? scan : NULL);
            for (size_t k = 0; k < DTYPE_PAIRS && variant->op == shape->op; k++) {
                shape->in_dtype = dtype_pairs[k][0];
                shape->out_dtype = dtype_pairs[k][1];
                if (variant->can(shape) && variant->packed_bytes(shape) == packed->size) {
                    return variant;
                }
            }
        }
    }
    return NULL;
}

/* A session takes packed sections as they are, so they must be what packing the canonical weights gives. Layouts that
 * no kernel here makes are left alone, as sessions leave them. */
static klaus_status check_packed(const klaus_model *model, int32_t *unchecked, klaus_error *error) {
    klaus_buffer again = {NULL, NULL, 0};
    klaus_extent *scan = NULL;
    klaus_status status = model->packed_count > 0 ? scan_extents(model, &scan, error) : KLAUS_OK;
    for (int32_t i = 0; i < model->packed_count && status == KLAUS_OK; i++) {
        const klaus_packed_data *packed = &model->packed[i];
        klaus_shape shape;
        bool known = false;
        const klaus_variant *maker = find_maker(model, packed, scan, &shape, &known);
        if (!known) {
            *unchecked += 1;
            continue;
        }
        if (maker == NULL) {
            status = klaus_fail(error, KLAUS_E_CHECK,
                                "layer %d: its packed weights, %" PRIu64 " bytes in layout %" PRIu32
                                ", are none that a kernel makes of it; pack the model again",
                                packed->layer, packed->size, packed->layout);
            break;
        }
        status = klaus_buffer_need(&again, packed->size, error);
        if (status == KLAUS_OK) {
            maker->pack(&shape, &model->data[packed->layer].weights, again.bytes);
            if (memcmp(again.bytes, packed->bytes, (size_t)packed->size) != 0) {
                status = klaus_fail(error, KLAUS_E_CHECK,
                                    "layer %d: its packed weights in layout %" PRIu32
                                    " are not those of its canonical weights; pack the model again",
                                    packed->layer, packed->layout);
            }
        }
    }
    klaus_buffer_free(&again);
    free(scan);
    return status;
}

klaus_status klaus_verify(const klaus_model *model, int32_t *unchecked, klaus_error *error) {
    int32_t unknown = 0;
    klaus_status status = check_digest(model, error);
    if (status == KLAUS_OK) {
        status = check_gaps(model, error);
    }
    if (status == KLAUS_OK && model->mean != NULL) {
        const uint64_t count = (uint64_t)model->network.picture_rows * (uint64_t)model->network.picture_cols *
                               (uint64_t)model->network.channels;
        status = check_finite(model->mean, KLAUS_F32, count, KLAUS_NO_LAYER, "mean picture", error);
    }
    for (int32_t i = 0; i < model->layer_count && status == KLAUS_OK; i++) {
        if (klaus_op_has_weights(model->layers[i].op)) {
            status = check_layer_numbers(model, i, error);
        }
    }
    if (status == KLAUS_OK) {
        status = check_packed(model, &unknown, error);
    }
    if (unchecked != NULL) {
        *unchecked = unknown;
    }
    return status;
}
