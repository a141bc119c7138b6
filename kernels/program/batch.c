#include "program/batch.h"

#include <inttypes.h>
#include <string.h>

#include "engine/fail.h"
#include "klaus/format.h"

static const char MAGIC[8] = {'K', 'L', 'A', 'U', 'S', 'B', 'T', 0x1a};

/* Reads the picture at `at`; false where it does not lie inside the file or its figures cannot be. */
static bool read_picture(const klaus_mapping *file, size_t at, batch_picture *picture, size_t *end) {
    struct klaus_batch_picture facts;
    if (file->size - at < sizeof(facts)) {
        return false;
    }
    memcpy(&facts, file->bytes + at, sizeof(facts));
    at += sizeof(facts);
    if (facts.id_bytes < 1 || facts.id_bytes > 255 || facts.rows < 1 || facts.rows > KLAUS_MAX_DIMENSION ||
        facts.cols < 1 || facts.cols > KLAUS_MAX_DIMENSION) {
        return false;
    }
    const uint64_t pixels = (uint64_t)facts.rows * facts.cols * 3;
    if (file->size - at < facts.id_bytes || file->size - at - facts.id_bytes < pixels) {
        return false;
    }
    picture->id = (const char *)file->bytes + at;
    picture->id_bytes = facts.id_bytes;
    picture->picture = (klaus_picture){file->bytes + at + facts.id_bytes, (int32_t)facts.rows, (int32_t)facts.cols};
    *end = at + facts.id_bytes + (size_t)pixels;
    return true;
}

static klaus_status check(batch *pictures, const char *path, klaus_error *error) {
    const klaus_mapping *file = &pictures->file;
    struct klaus_batch_header header;
    if (file->size < sizeof(header) || memcmp(file->bytes, MAGIC, sizeof(MAGIC)) != 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.200s: is no batch of pictures: it does not start with KLAUSBT",
                          path);
    }
    memcpy(&header, file->bytes, sizeof(header));
    if (header.version != 1) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.200s: is a batch of version %" PRIu32 ", version 1 is read here",
                          path, header.version);
    }
    size_t at = sizeof(header);
    for (uint32_t i = 0; i < header.count; i++) {
        batch_picture picture;
        if (!read_picture(file, at, &picture, &at)) {
            return klaus_fail(error, KLAUS_E_INPUT,
                              "%.200s: picture %" PRIu32 " of %" PRIu32
                              " at byte %zu is damaged or cut off; make the batch again",
                              path, i, header.count, at);
        }
    }
    if (at != file->size) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.200s: %zu bytes stand behind its last picture; make the batch again",
                          path, file->size - at);
    }
    pictures->count = header.count;
    pictures->next = sizeof(header);
    return KLAUS_OK;
}

klaus_status batch_open(const char *path, batch *pictures, klaus_error *error) {
    memset(pictures, 0, sizeof(*pictures));
    klaus_status status = klaus_os_map(path, &pictures->file, error);
    if (status == KLAUS_OK) {
        status = check(pictures, path, error);
        if (status != KLAUS_OK) {
            batch_close(pictures);
        }
    }
    return status;
}

void batch_close(batch *pictures) {
    klaus_os_unmap(&pictures->file);
}

void batch_next(batch *pictures, batch_picture *picture) {
    read_picture(&pictures->file, pictures->next, picture, &pictures->next);
}
