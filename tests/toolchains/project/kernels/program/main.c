#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "klaus/klaus.h"
#include "program/squares.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int main(int argc, char **argv) {
    struct timespec now;
    const int count = argc > 1 ? atoi(argv[1]) : 8;
    float *values = malloc((size_t)count * sizeof(float));
    if (values == NULL || clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        fprintf(stderr, "no memory or no clock\n");
        return 5;
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) {
        values[i] = squares_start + (float)i;
    }
    pthread_mutex_unlock(&lock);
    printf("%s %d %.9g %.9g %s\n", klaus_system(), count, (double)klaus_dot(values, values, count), (double)expf(1.0f),
           strlen(argv[0]) > 0 ? "named" : "nameless");
    free(values);
    return count == 4;
}
