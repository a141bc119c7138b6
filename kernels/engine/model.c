/* Opens packed models. Nothing of a file is believed: each field is checked before its first use, and what is used
 * later is the copy that was checked. */
#include "engine/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "engine/checks.h"
#include "engine/fail.h"
#include "engine/text.h"

#define NAME_BYTES 256

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
    memcpy(model->meta, klaus_section_bytes(model, section), length);
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
    memcpy(model->label_text, klaus_section_bytes(model, section), length);
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
    model->mean = (const float *)(const void *)klaus_section_bytes(model, section);
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
    model->ranges = malloc((size_t)bytes);
    if (model->ranges == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for the ranges of %d layers", model->layer_count);
    }
    memcpy(model->ranges, klaus_section_bytes(model, section), (size_t)bytes);
    for (int32_t i = 0; i <= model->layer_count; i++) { /* int8 scales are made of them */
        const struct klaus_range *range = &model->ranges[i];
        if (range->method > 2 ||
            (range->method != 0 && !(isfinite(range->low) && isfinite(range->high) && range->low <= range->high))) {
            return klaus_fail(error, KLAUS_E_INPUT, "the activation range of layer %d is not one; calibrate it again",
                              i - 1);
        }
    }
    return KLAUS_OK;
}

/* The order of model->packed: by layer, then by layout. */
static int by_layer_and_layout(const void *one, const void *other) {
    const klaus_packed_data *a = one;
    const klaus_packed_data *b = other;
    return a->layer != b->layer ? (a->layer < b->layer ? -1 : 1) : (a->layout > b->layout) - (a->layout < b->layout);
}

const klaus_packed_data *klaus_model_packed(const klaus_model *model, int32_t layer, uint32_t layout) {
    if (model->packed_count == 0) {
        return NULL;
    }
    const klaus_packed_data wanted = {.layer = layer, .layout = layout};
    return bsearch(&wanted, model->packed, (size_t)model->packed_count, sizeof(wanted), by_layer_and_layout);
}

void klaus_model_leave(const klaus_model *model, int32_t layer) {
    const klaus_layer_data *data = &model->data[layer];
    if (model->owns_mapping && data->weights.values != NULL) { /* nobody else's memory is touched */
        const size_t offset = (size_t)((const uint8_t *)data->weights.values - model->mapping.bytes);
        klaus_os_drop(&model->mapping, offset, (size_t)data->weight_bytes);
    }
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
        *next++ =
            (klaus_packed_data){section->layer, section->layout, klaus_section_bytes(model, section), section->bytes};
    }
    qsort(model->packed, (size_t)model->packed_count, sizeof(*model->packed), by_layer_and_layout);
    for (int32_t i = 1; i < model->packed_count; i++) {
        if (by_layer_and_layout(&model->packed[i - 1], &model->packed[i]) == 0) {
            return klaus_fail(error, KLAUS_E_INPUT, "two packed sections of layer %d in layout %" PRIu32,
                              model->packed[i].layer, model->packed[i].layout);
        }
    }
    return KLAUS_OK;
}

static klaus_status read_network(klaus_model *model, const klaus_section_index *index, klaus_error *error) {
    const struct klaus_section *section = klaus_sections_find(index, KLAUS_SECTION_NETWORK, KLAUS_NO_LAYER);
    if (section == NULL || section->bytes != sizeof(model->network)) {
        return klaus_fail(error, KLAUS_E_INPUT, "the section of the network is missing or has another size");
    }
    memcpy(&model->network, klaus_section_bytes(model, section), sizeof(model->network));
    return klaus_check_network(model, error);
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
        status = klaus_read_layers(model, &index, error);
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
    free(model->ranges);
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
