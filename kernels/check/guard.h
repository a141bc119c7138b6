/* Memory that notices what a kernel must not do: pages before and behind that nobody may touch, bytes around the block
 * that nobody may change; and calls that survive a crash. */
#ifndef KLAUS_CHECK_GUARD_H
#define KLAUS_CHECK_GUARD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct klaus_block {
    uint8_t *bytes; /* `size` bytes for use */
    size_t size;
    uint8_t *pages; /* between the two forbidden pages */
    size_t pages_bytes;
} klaus_block;

typedef enum klaus_place {
    KLAUS_PLACE_FRONT, /* begins at a page: reading before it is caught */
    KLAUS_PLACE_BACK   /* ends at a page's end, rounded down to `alignment`: reading behind it is caught */
} klaus_place;

/* False where there is no memory. size 0 gives a block that may not be touched at all. */
bool klaus_block_make(klaus_block *block, size_t size, size_t alignment, klaus_place place);
void klaus_block_free(klaus_block *block);
/* From now on the block may be read only. */
void klaus_block_protect(klaus_block *block);
/* Whether the bytes around the block are as they were. */
bool klaus_block_is_whole(const klaus_block *block);

/* Catches SIGILL, SIGTRAP, SIGSEGV, SIGBUS and SIGFPE between begin and end. */
void klaus_guard_begin(void);
void klaus_guard_end(void);
/* Calls work(data); NULL if it came back, else the name of the signal that stopped it. */
const char *klaus_guard_call(void (*work)(void *data), void *data);

#endif
