#include "check/guard.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "os/os.h"

#define GUARD_BYTE 0xc3

bool klaus_block_make(klaus_block *block, size_t size, size_t alignment, klaus_place place) {
    const size_t page = klaus_os_page_bytes(), inside = (size + page - 1) / page * page;
    memset(block, 0, sizeof *block);
    uint8_t *all = mmap(NULL, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (all == MAP_FAILED)
        return false;
    block->pages = all + page;
    block->pages_bytes = inside;
    block->size = size;
    if (inside > 0 && mprotect(block->pages, inside, PROT_READ | PROT_WRITE) != 0) {
        klaus_block_free(block);
        return false;
    }
    block->bytes = block->pages + (place == KLAUS_PLACE_FRONT ? 0 : (inside - size) / alignment * alignment);
    memset(block->pages, GUARD_BYTE, inside);
    return true;
}

void klaus_block_free(klaus_block *block) {
    if (block->pages != NULL)
        munmap(block->pages - klaus_os_page_bytes(), block->pages_bytes + 2 * klaus_os_page_bytes());
    memset(block, 0, sizeof *block);
}

void klaus_block_protect(klaus_block *block) {
    if (block->pages_bytes > 0)
        mprotect(block->pages, block->pages_bytes, PROT_READ);
}

bool klaus_block_is_whole(const klaus_block *block) {
    for (const uint8_t *at = block->pages; at < block->bytes; at++)
        if (*at != GUARD_BYTE)
            return false;
    for (const uint8_t *at = block->bytes + block->size; at < block->pages + block->pages_bytes; at++)
        if (*at != GUARD_BYTE)
            return false;
    return true;
}

static const int caught_signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE};
#define CAUGHT_COUNT (sizeof caught_signals / sizeof caught_signals[0])

static struct sigaction former_actions[CAUGHT_COUNT];
static sigjmp_buf way_back;
static volatile sig_atomic_t caught, calling;

static void catch_signal(int number) {
    if (!calling) { /* a fault of the checker itself: let it show */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    caught = number;
    siglongjmp(way_back, 1);
}

void klaus_guard_begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = catch_signal;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < CAUGHT_COUNT; i++)
        sigaction(caught_signals[i], &action, &former_actions[i]);
}

void klaus_guard_end(void) {
    for (size_t i = 0; i < CAUGHT_COUNT; i++)
        sigaction(caught_signals[i], &former_actions[i], NULL);
}

const char *klaus_guard_call(void (*work)(void *data), void *data) {
    if (sigsetjmp(way_back, 1) == 0) {
        calling = 1;
        work(data);
        calling = 0;
        return NULL;
    }
    calling = 0;
    switch (caught) {
    case SIGILL:
        return "SIGILL (an instruction that this CPU lacks)";
    case SIGTRAP:
        return "SIGTRAP (a trap that the compiler put in)";
    case SIGFPE:
        return "SIGFPE";
    case SIGBUS:
        return "SIGBUS (a misaligned or forbidden address)";
    default:
        return "SIGSEGV (an address outside its operands)";
    }
}
