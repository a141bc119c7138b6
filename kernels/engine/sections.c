#include "engine/sections.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"

#define KIND_COUNT (KLAUS_SECTION_CORRECTION + 1)

static const char MAGIC[8] = {'K', 'L', 'A', 'U', 'S', 'P', 'M', 0x1a};

static bool is_layer_kind(uint32_t kind) {
    return (kind >= KLAUS_SECTION_WEIGHTS && kind <= KLAUS_SECTION_BIAS) || kind == KLAUS_SECTION_PACKED ||
           kind == KLAUS_SECTION_CORRECTION;
}

/* Bytes of one number; 0 for what is no array of numbers of that kind. */
static bool dtype_fits(uint32_t kind, uint32_t dtype) {
    switch (kind) {
    case KLAUS_SECTION_WEIGHTS:
        return dtype >= KLAUS_F32 && dtype <= KLAUS_Q2;
    case KLAUS_SECTION_CODEBOOK:
        return dtype == KLAUS_F32 || dtype == KLAUS_F16;
    case KLAUS_SECTION_MEAN:
    case KLAUS_SECTION_SCALE:
    case KLAUS_SECTION_BIAS:
    case KLAUS_SECTION_CORRECTION:
        return dtype == KLAUS_F32;
    case KLAUS_SECTION_PACKED:
        return dtype <= KLAUS_I8;
    default:
        return dtype == 0;
    }
}

/* Heap sort: no recursion, and no worst case that a hostile file could ask for. */
static void sort_by_offset(struct klaus_section *sections, size_t count) {
    for (size_t start = count / 2, end = count; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            end--;
            const struct klaus_section last = sections[end];
            sections[end] = sections[0];
            sections[0] = last;
        }
        for (size_t at = start;;) {
            size_t child = 2 * at + 1;
            if (child >= end) {
                break;
            }
            child += child + 1 < end && sections[child].offset < sections[child + 1].offset;
            if (sections[at].offset >= sections[child].offset) {
                break;
            }
            const struct klaus_section swapped = sections[at];
            sections[at] = sections[child];
            sections[child] = swapped;
            at = child;
        }
    }
}

static klaus_status read_header(klaus_model *model, klaus_error *error) {
    const size_t size = model->mapping.size;
    struct klaus_file_header *header = &model->header;
    if (size < sizeof(*header)) {
        return klaus_fail(error, KLAUS_E_INPUT, "%zu bytes are too few for a packed model; copy the file again", size);
    }
    memcpy(header, model->mapping.bytes, sizeof(*header));
    if (memcmp(header->magic, MAGIC, sizeof(MAGIC)) != 0) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "is no packed model: it does not start with KLAUSPM; make one with `klaus pack`");
    }
    if (header->version != KLAUS_FORMAT_VERSION || header->header_bytes != sizeof(*header)) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "format version %" PRIu32 " (header of %" PRIu32
                          " bytes), but version %d is read here; pack the model again with `klaus pack`",
                          header->version, header->header_bytes, KLAUS_FORMAT_VERSION);
    }
    if (header->file_bytes != size) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "the header says %" PRIu64 " bytes, the file has %zu: it was cut or changed; copy it again",
                          header->file_bytes, size);
    }
    if (header->layer_count < 1 || header->layer_count > KLAUS_MAX_LAYERS) {
        return klaus_fail(error, KLAUS_E_INPUT, "%" PRIu32 " layers, but 1 to %d are supported", header->layer_count,
                          KLAUS_MAX_LAYERS);
    }
    if (header->section_count < 1 || header->section_count > KLAUS_MAX_SECTIONS ||
        header->section_count > (size - sizeof(*header)) / sizeof(struct klaus_section)) {
        return klaus_fail(error, KLAUS_E_INPUT, "a table of %" PRIu32 " sections does not fit a file of %zu bytes",
                          header->section_count, size);
    }
    model->layer_count = (int32_t)header->layer_count;
    model->section_count = (int32_t)header->section_count;
    return KLAUS_OK;
}

static klaus_status check_section(const klaus_model *model, const struct klaus_section *section, klaus_error *error) {
    const uint64_t size = model->mapping.size;
    const uint64_t table_end =
        sizeof(struct klaus_file_header) + (uint64_t)model->section_count * sizeof(struct klaus_section);
    if (section->kind < KLAUS_SECTION_NETWORK || section->kind > KLAUS_SECTION_CORRECTION) {
        return klaus_fail(error, KLAUS_E_INPUT, "a section of the unknown kind %" PRIu32, section->kind);
    }
    if (is_layer_kind(section->kind) ? section->layer < 0 || section->layer >= model->layer_count
                                     : section->layer != KLAUS_NO_LAYER) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "a section of kind %" PRIu32 " belongs to layer %" PRId32 ", which cannot be", section->kind,
                          section->layer);
    }
    if ((section->kind == KLAUS_SECTION_PACKED) == (section->layout == KLAUS_CANONICAL_LAYOUT)) {
        return klaus_fail(error, KLAUS_E_INPUT, "a section of kind %" PRIu32 " has the layout %" PRIu32, section->kind,
                          section->layout);
    }
    if (!dtype_fits(section->kind, section->dtype)) {
        return klaus_fail(error, KLAUS_E_INPUT, "a section of kind %" PRIu32 " has the data type %" PRIu32,
                          section->kind, section->dtype);
    }
    if (section->offset % KLAUS_ALIGNMENT != 0 || section->offset < table_end || section->offset > size ||
        section->bytes < 1 || section->bytes > size - section->offset) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "a section of kind %" PRIu32 " at %" PRIu64 ", %" PRIu64
                          " bytes, is misplaced in a file of %" PRIu64 " bytes",
                          section->kind, section->offset, section->bytes, size);
    }
    return KLAUS_OK;
}

klaus_status klaus_sections_read(klaus_model *model, klaus_error *error) {
    klaus_status status = read_header(model, error);
    if (status != KLAUS_OK) {
        return status;
    }
    const size_t count = (size_t)model->section_count;
    model->sections = malloc(count * sizeof(*model->sections));
    if (model->sections == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a table of %zu sections", count);
    }
    memcpy(model->sections, model->mapping.bytes + sizeof(struct klaus_file_header), count * sizeof(*model->sections));
    for (size_t i = 0; i < count && status == KLAUS_OK; i++) {
        status = check_section(model, &model->sections[i], error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    sort_by_offset(model->sections, count);
    for (size_t i = 1; i < count; i++) {
        const struct klaus_section *before = &model->sections[i - 1];
        if (model->sections[i].offset < before->offset + before->bytes) {
            return klaus_fail(error, KLAUS_E_INPUT, "two sections overlap at byte %" PRIu64, model->sections[i].offset);
        }
    }
    return KLAUS_OK;
}

klaus_status klaus_sections_index(const klaus_model *model, klaus_section_index *index, klaus_error *error) {
    const size_t slots = ((size_t)model->layer_count + 1) * KIND_COUNT;
    index->of_kind = calloc(slots, sizeof(*index->of_kind));
    if (index->of_kind == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for an index of %d sections", model->section_count);
    }
    for (int32_t i = 0; i < model->section_count; i++) {
        const struct klaus_section *section = &model->sections[i];
        const struct klaus_section **slot = &index->of_kind[(size_t)(section->layer + 1) * KIND_COUNT + section->kind];
        if (section->kind != KLAUS_SECTION_PACKED && *slot != NULL) {
            return klaus_fail(error, KLAUS_E_INPUT, "two sections of kind %" PRIu32 " for layer %" PRId32,
                              section->kind, section->layer);
        }
        *slot = section;
    }
    return KLAUS_OK;
}

const struct klaus_section *klaus_sections_find(const klaus_section_index *index, uint32_t kind, int32_t layer) {
    return index->of_kind[(size_t)(layer + 1) * KIND_COUNT + kind];
}
