/* What the engine and the program ask of the operating system. */
#ifndef KLAUS_OS_OS_H
#define KLAUS_OS_OS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "klaus/klaus.h"

/* A file mapped read-only; `bytes` is page-aligned. */
typedef struct klaus_mapping {
    const uint8_t *bytes;
    size_t size;
} klaus_mapping;

/* Zero where the system does not tell. */
typedef struct klaus_memory_figures {
    uint64_t total_bytes;         /* of this machine */
    uint64_t available_bytes;     /* that could be used without swapping */
    uint64_t resident_bytes;      /* of this process now */
    uint64_t peak_resident_bytes; /* of this process since it started */
} klaus_memory_figures;

/* Nanoseconds of a clock that never goes back. */
uint64_t klaus_os_now_ns(void);

/* Maps a regular, non-empty file. On failure `error` names the path and the reason. */
klaus_status klaus_os_map(const char *path, klaus_mapping *mapping, klaus_error *error);
void klaus_os_unmap(klaus_mapping *mapping);

/* Gives back the memory of a part of a mapping: what is read there later comes from the file again. */
void klaus_os_drop(const klaus_mapping *mapping, size_t offset, size_t bytes);

void klaus_os_memory(klaus_memory_figures *figures);
/* Memory of this process now that no file backs; 0 where the system does not tell. Walks all pages: not cheap. */
uint64_t klaus_os_anonymous_bytes(void);
int32_t klaus_os_cpu_count(void);
size_t klaus_os_page_bytes(void);

/* The target this was compiled for ("linux-aarch64") and its architecture ("aarch64"). */
const char *klaus_os_target(void);
const char *klaus_os_arch(void);

/* What threads executed. Zero where it is not told. */
typedef struct klaus_executed {
    uint64_t instructions, cycles;
} klaus_executed;

/* The CPU's own counters, as far as the system lends them to a program. */
typedef struct klaus_counters {
    int instructions, cycles; /* Linux: files of perf_event, -1 for none */
} klaus_counters;

/* Counts this thread and all that it starts from now on. Never fails: klaus_os_executed tells whether it counts. */
void klaus_os_count(klaus_counters *counters);
void klaus_os_count_end(klaus_counters *counters);

/* What was executed up to now: only the difference of two calls means something. In user mode on Linux, in all modes on
 * Apple's systems (they tell no other). False where that is not known for certain: no counter, no permission, or one
 * that did not count all the time. */
bool klaus_os_executed(const klaus_counters *counters, klaus_executed *executed);

/* The system's name for these counters. */
const char *klaus_os_counters_name(void);

/* Tells an instruction counter that watches this process that a point was reached (getpriority(0x4b4c, tag));
 * without one it has no effect. */
void klaus_os_mark(int32_t tag);

/* Creates a folder; one that exists already is no error. */
klaus_status klaus_os_make_folder(const char *path, klaus_error *error);

#endif
