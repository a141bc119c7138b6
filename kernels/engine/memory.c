/* Memory of a session: blocks that grow, and where the outputs of steps stand in the one that they share. */
#include "engine/memory.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/fail.h"
#include "klaus/format.h"
#include "os/os.h"

/* Systems that overcommit grant everything and kill the process later, so what is there is asked for first. */
klaus_status klaus_memory_available(uint64_t bytes, klaus_error *error) {
    klaus_memory_figures figures;
    klaus_os_memory(&figures);
    uint64_t available = SIZE_MAX / 2; /* what a process may name, however much the system has */
    if (figures.available_bytes != 0 && figures.available_bytes < available) {
        available = figures.available_bytes;
    }
    if (bytes < available) {
        return KLAUS_OK;
    }
    return klaus_fail(error, KLAUS_E_MEMORY,
                      "%" PRIu64 " MB of memory are needed, %" PRIu64
                      " MB are available; use a smaller model, fewer threads or free memory",
                      bytes / 1000000, available / 1000000);
}

klaus_status klaus_buffer_need(klaus_buffer *buffer, uint64_t bytes, klaus_error *error) {
    if (bytes <= buffer->size) {
        return KLAUS_OK;
    }
    const klaus_status status = klaus_memory_available(bytes, error);
    if (status != KLAUS_OK) {
        return status;
    }
    void *block = malloc((size_t)bytes + KLAUS_ALIGNMENT);
    if (block == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "the system gives no %" PRIu64 " MB of memory; use a smaller model",
                          bytes / 1000000);
    }
    free(buffer->block);
    buffer->block = block;
    buffer->bytes = (char *)block + (KLAUS_ALIGNMENT - (uintptr_t)block % KLAUS_ALIGNMENT);
    buffer->size = (size_t)bytes;
    return KLAUS_OK;
}

void klaus_buffer_free(klaus_buffer *buffer) {
    free(buffer->block);
    *buffer = (klaus_buffer){NULL, NULL, 0};
}

/* Biggest first, each at the lowest place that is free while it lives. `placed` is ordered by offset. */
uint64_t klaus_memory_place(klaus_lifetime *lives, int32_t count, const klaus_lifetime **placed) {
    uint64_t arena = 0;
    for (int32_t i = 1; i < count; i++) { /* insertion sort, biggest first, stable */
        const klaus_lifetime moved = lives[i];
        int32_t at = i;
        for (; at > 0 && lives[at - 1].bytes < moved.bytes; at--) {
            lives[at] = lives[at - 1];
        }
        lives[at] = moved;
    }
    for (int32_t i = 0; i < count; i++) {
        klaus_lifetime *life = &lives[i];
        life->offset = 0;
        for (int32_t k = 0; k < i; k++) {
            const klaus_lifetime *other = placed[k];
            const bool together = life->begin <= other->last_read && other->begin <= life->last_read;
            if (!together) {
                continue;
            }
            if (life->offset + life->bytes <= other->offset) {
                break;
            }
            if (other->offset + other->bytes > life->offset) {
                life->offset = other->offset + other->bytes;
            }
        }
        int32_t at = i;
        for (; at > 0 && placed[at - 1]->offset > life->offset; at--) {
            placed[at] = placed[at - 1];
        }
        placed[at] = life;
        arena = life->offset + life->bytes > arena ? life->offset + life->bytes : arena;
    }
    return arena;
}
