#include "engine/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"

/* Looks at a flag so often before it goes to sleep: steps of a network follow each other within microseconds. */
#define SPINS 200
#define STACK_BYTES ((size_t)1 << 20)

struct klaus_pool {
    int32_t threads;
    int32_t started; /* without the calling thread */
    pthread_t handles[KLAUS_MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    atomic_uint round;      /* goes up by one with each piece of work */
    atomic_int outstanding; /* parts of it that are not done yet */
    bool stop;
    klaus_pool_work work;
    const void *context;
};

typedef struct worker_start {
    klaus_pool *pool;
    int32_t part;
} worker_start;

static unsigned await_round(klaus_pool *pool, unsigned seen) {
    unsigned now = seen;
    for (int32_t i = 0; i < SPINS && now == seen; i++) {
        now = atomic_load_explicit(&pool->round, memory_order_acquire);
    }
    if (now == seen) {
        pthread_mutex_lock(&pool->lock);
        while ((now = atomic_load_explicit(&pool->round, memory_order_acquire)) == seen) {
            pthread_cond_wait(&pool->wake, &pool->lock);
        }
        pthread_mutex_unlock(&pool->lock);
    }
    return now;
}

static void *worker(void *argument) {
    const worker_start start = *(worker_start *)argument;
    klaus_pool *pool = start.pool;
    free(argument);
    for (unsigned seen = 0;;) {
        seen = await_round(pool, seen);
        if (pool->stop) {
            return NULL;
        }
        pool->work(pool->context, start.part, pool->threads);
        if (atomic_fetch_sub_explicit(&pool->outstanding, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* Everything written before is seen by workers that see the new round. */
static void start_round(klaus_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static int start_worker(klaus_pool *pool, int32_t part) {
    worker_start *start = malloc(sizeof(*start));
    if (start == NULL) {
        return -1;
    }
    *start = (worker_start){pool, part};
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed == 0) {
        /* musl gives 128 KiB, which leaves kernels little room for tiles on the stack. */
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        failed = pthread_create(&pool->handles[part - 1], &attributes, worker, start);
        pthread_attr_destroy(&attributes);
    }
    if (failed != 0) {
        free(start);
    }
    return failed;
}

klaus_status klaus_pool_open(int32_t threads, klaus_pool **pool, klaus_error *error) {
    *pool = NULL;
    if (threads < 1 || threads > KLAUS_MAX_THREADS) {
        return klaus_fail(error, KLAUS_E_INPUT, "%d threads were asked for; 1 to %d can be had", threads,
                          KLAUS_MAX_THREADS);
    }
    klaus_pool *opened = calloc(1, sizeof(*opened));
    if (opened == NULL) {
        return klaus_fail(error, KLAUS_E_MEMORY, "no memory for a pool of threads");
    }
    pthread_mutex_init(&opened->lock, NULL);
    pthread_cond_init(&opened->wake, NULL);
    pthread_cond_init(&opened->done, NULL);
    opened->threads = threads;
    for (int32_t part = 1; part < threads; part++) {
        if (start_worker(opened, part) != 0) {
            klaus_pool_close(opened);
            return klaus_fail(error, KLAUS_E_MEMORY, "the system starts only %d of %d threads; ask for fewer", part,
                              threads);
        }
        opened->started++;
    }
    *pool = opened;
    return KLAUS_OK;
}

void klaus_pool_close(klaus_pool *pool) {
    if (pool == NULL) {
        return;
    }
    pool->stop = true;
    start_round(pool);
    for (int32_t i = 0; i < pool->started; i++) {
        pthread_join(pool->handles[i], NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int32_t klaus_pool_threads(const klaus_pool *pool) {
    return pool->threads;
}

void klaus_pool_run(klaus_pool *pool, klaus_pool_work work, const void *context) {
    if (pool->threads == 1) {
        work(context, 0, 1);
        return;
    }
    pool->work = work;
    pool->context = context;
    atomic_store_explicit(&pool->outstanding, pool->threads - 1, memory_order_relaxed);
    start_round(pool);
    work(context, 0, pool->threads);
    for (int32_t i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->outstanding, memory_order_acquire) == 0) {
            return;
        }
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load_explicit(&pool->outstanding, memory_order_acquire) != 0) {
        pthread_cond_wait(&pool->done, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}
