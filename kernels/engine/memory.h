/* Memory of a session. */
#ifndef KLAUS_ENGINE_MEMORY_H
#define KLAUS_ENGINE_MEMORY_H
#include <stddef.h>

#include "klaus/format.h"
#include "klaus/klaus.h"

/* Memory aligned to 64 bytes that only grows; what it held is lost then. */
typedef struct klaus_buffer {
    void *block;
    void *bytes;
    size_t size;
} klaus_buffer;

klaus_status klaus_buffer_need(klaus_buffer *buffer, uint64_t bytes, klaus_error *error);
void klaus_buffer_free(klaus_buffer *buffer);

/* Refuses more bytes than the system has left. */
klaus_status klaus_memory_available(uint64_t bytes, klaus_error *error);

/* The output of `step` in the memory that steps share: needed from step `begin` to `last_read`. */
typedef struct klaus_lifetime {
    int32_t step, begin, last_read;
    uint64_t bytes, offset;
} klaus_lifetime;

/* Sets every offset so that no two outputs that are needed at once overlap, and returns how much memory that takes.
 * Reorders `lives`; `placed` is room for `count` pointers. */
uint64_t klaus_memory_place(klaus_lifetime *lives, int32_t count, const klaus_lifetime **placed);

static inline uint64_t klaus_align_up(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

#endif
