/* Numbers from a seed, the same on every machine: splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
 * generators", 2014). */
#ifndef KLAUS_CHECK_RANDOM_H
#define KLAUS_CHECK_RANDOM_H
#include <stdint.h>

typedef struct klaus_random {
    uint64_t state;
} klaus_random;

static inline uint64_t klaus_random_bits(klaus_random *random) {
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* low .. high, both included */
static inline int32_t klaus_random_int(klaus_random *random, int32_t low, int32_t high) {
    return low + (int32_t)(klaus_random_bits(random) % (uint64_t)(high - low + 1));
}

/* -1 .. 1 */
static inline float klaus_random_float(klaus_random *random) {
    return (float)(int32_t)(klaus_random_bits(random) >> 40) / 8388608.0f - 1.0f;
}

#endif
