/* A packed model written anew, with weights in the layouts of a session's kernels. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"
#include "engine/packed.h"
#include "engine/session.h"
#include "engine/sha256.h"

/* A file under way: its table, and what each section holds. */
typedef struct file {
    struct klaus_file_header header;
    struct klaus_section *table;
    const void **contents;
    int32_t count;
} file;

/* Adds a section; where it stands is not known yet. */
static void add(file *made, const struct klaus_section *section, const void *content) {
    made->table[made->count] = *section;
    made->contents[made->count++] = content;
}

/* Whether a file of this session's gets these weights: it has one section of each layer and layout. */
static bool is_new(const klaus_session *session, int32_t layer, const klaus_packed_weights *held) {
    const uint32_t layout = held->variant->layout;
    for (const klaus_packed_weights *before = session->packed[layer]; before != held; before = before->next) {
        if (before->variant->layout == layout) {
            return false;
        }
    }
    return !held->variant->follows && klaus_model_packed(session->model, layer, layout) == NULL;
}

/* How many sections the session adds; with `made`, all that the model has and then these are put into it. */
static int32_t collect(const klaus_session *session, file *made) {
    const klaus_model *model = session->model;
    int32_t added = 0;
    for (int32_t i = 0; made != NULL && i < model->section_count; i++) {
        add(made, &model->sections[i], model->mapping.bytes + model->sections[i].offset);
    }
    for (int32_t layer = 0; layer < model->layer_count; layer++) {
        for (const klaus_packed_weights *held = session->packed[layer]; held != NULL; held = held->next) {
            if (!is_new(session, layer, held)) {
                continue;
            }
            added++;
            if (made != NULL) {
                const struct klaus_section section = {
                    .kind = KLAUS_SECTION_PACKED, .layer = layer, .layout = held->variant->layout, .bytes = held->size};
                add(made, &section, held->memory.bytes);
            }
        }
    }
    return added;
}

static void place(const klaus_model *model, file *made) {
    uint64_t end = sizeof(made->header) + (uint64_t)made->count * sizeof(*made->table);
    for (int32_t i = 0; i < made->count; i++) {
        made->table[i].offset = klaus_align_up(end);
        end = made->table[i].offset + made->table[i].bytes;
    }
    made->header = model->header;
    made->header.section_count = (uint32_t)made->count;
    made->header.file_bytes = end;
}

/* Everything behind the header, in order. */
static bool put_body(const file *made, klaus_byte_sink sink, void *user) {
    static const uint8_t zeros[KLAUS_ALIGNMENT];
    const size_t table_bytes = (size_t)made->count * sizeof(*made->table);
    uint64_t at = sizeof(made->header) + table_bytes;
    bool more = sink(user, made->table, table_bytes) == 0;
    for (int32_t i = 0; more && i < made->count; i++) {
        const struct klaus_section *section = &made->table[i];
        more = (section->offset == at || sink(user, zeros, (size_t)(section->offset - at)) == 0) &&
               sink(user, made->contents[i], (size_t)section->bytes) == 0;
        at = section->offset + section->bytes;
    }
    return more;
}

static int32_t hash_more(void *user, const void *bytes, size_t size) {
    klaus_sha256_add(user, bytes, size);
    return 0;
}

klaus_status klaus_write_packed(klaus_session *session, klaus_byte_sink sink, void *user, int32_t *sections,
                                klaus_error *error) {
    const klaus_model *model = session->model;
    klaus_status status = klaus_plan_patches(session, error);
    if (status != KLAUS_OK) {
        return status;
    }
    file made = {.count = 0};
    const int32_t added = collect(session, NULL);
    const size_t room = (size_t)model->section_count + (size_t)added;
    if (room > KLAUS_MAX_SECTIONS) {
        return klaus_fail(error, KLAUS_E_INPUT,
                          "%zu sections are more than a packed model can have, %d; pack it anew, with fewer layouts",
                          room, KLAUS_MAX_SECTIONS);
    }
    made.table = calloc(room, sizeof(*made.table));
    made.contents = calloc(room, sizeof(*made.contents));
    if (made.table == NULL || made.contents == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for a table of %zu sections", room);
    } else {
        klaus_sha256 hash;
        collect(session, &made);
        place(model, &made);
        klaus_sha256_begin(&hash);
        put_body(&made, hash_more, &hash);
        klaus_sha256_end(&hash, made.header.digest);
        if (sink(user, &made.header, sizeof(made.header)) != 0 || !put_body(&made, sink, user)) {
            status = klaus_fail(error, KLAUS_E_INPUT, "the packed model was not taken whole");
        }
        if (sections != NULL) {
            *sections = added;
        }
    }
    free(made.table);
    free((void *)made.contents);
    return status;
}
