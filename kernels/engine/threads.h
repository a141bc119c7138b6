/* A pool of threads that does one piece of work at a time, in parts. */
#ifndef KLAUS_ENGINE_THREADS_H
#define KLAUS_ENGINE_THREADS_H
#include "klaus/klaus.h"

#define KLAUS_MAX_THREADS 64

typedef struct klaus_pool klaus_pool;
typedef void (*klaus_pool_work)(const void *context, int32_t part, int32_t parts);

/* `threads` counts the calling thread: 1 starts none. */
klaus_status klaus_pool_open(int32_t threads, klaus_pool **pool, klaus_error *error);
void klaus_pool_close(klaus_pool *pool);
int32_t klaus_pool_threads(const klaus_pool *pool);

/* Calls work(context, part, parts) once for each part, one part a thread, and returns when all are done. */
void klaus_pool_run(klaus_pool *pool, klaus_pool_work work, const void *context);

#endif
