/* The table of sections of a packed model: read, checked, sorted, looked up. */
#ifndef KLAUS_ENGINE_SECTIONS_H
#define KLAUS_ENGINE_SECTIONS_H
#include "engine/model.h"

/* Checks the header of model->mapping and fills model->header, layer_count, sections (sorted by offset), section_count:
 * every section lies inside the file, aligned, overlapping none, of a known kind, for a layer that there is. */
klaus_status klaus_sections_read(klaus_model *model, klaus_error *error);

static inline const uint8_t *klaus_section_bytes(const klaus_model *model, const struct klaus_section *section) {
    return model->mapping.bytes + section->offset;
}

/* The one section of a kind (and layer); NULL where there is none. `index` must come from klaus_sections_index. */
typedef struct klaus_section_index {
    const struct klaus_section **of_kind; /* [layer + 1][kind], first of each */
} klaus_section_index;

/* Refuses a second section of one kind and layer (packed: and layout). Release with free(index->of_kind). */
klaus_status klaus_sections_index(const klaus_model *model, klaus_section_index *index, klaus_error *error);
const struct klaus_section *klaus_sections_find(const klaus_section_index *index, uint32_t kind, int32_t layer);

#endif
