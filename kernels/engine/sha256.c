#include "engine/sha256.h"

#include <string.h>

/* FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t ROUND_CONSTANT[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, unsigned count) {
    return (word >> count) | (word << (32 - count));
}

static uint32_t load_big_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | (uint32_t)bytes[3];
}

static void compress(uint32_t state[8], const uint8_t *block) {
    uint32_t schedule[64];
    for (int i = 0; i < 16; i++) {
        schedule[i] = load_big_endian(block + 4 * i);
    }
    for (int i = 16; i < 64; i++) {
        const uint32_t near = schedule[i - 15];
        const uint32_t far = schedule[i - 2];
        const uint32_t sigma0 = rotate(near, 7) ^ rotate(near, 18) ^ (near >> 3);
        const uint32_t sigma1 = rotate(far, 17) ^ rotate(far, 19) ^ (far >> 10);
        schedule[i] = schedule[i - 16] + sigma0 + schedule[i - 7] + sigma1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        const uint32_t sum1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        const uint32_t choice = (e & f) ^ (~e & g);
        const uint32_t first = h + sum1 + choice + ROUND_CONSTANT[i] + schedule[i];
        const uint32_t sum0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + sum0 + majority;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void klaus_sha256_begin(klaus_sha256 *hash) {
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, initial, sizeof(initial));
    hash->total_bytes = 0;
}

void klaus_sha256_add(klaus_sha256 *hash, const void *bytes, size_t size) {
    const uint8_t *next = bytes;
    const size_t held = (size_t)(hash->total_bytes % 64);
    hash->total_bytes += size;
    if (held != 0) {
        const size_t wanted = 64 - held;
        const size_t taken = size < wanted ? size : wanted;
        memcpy(hash->block + held, next, taken);
        next += taken;
        size -= taken;
        if (taken < wanted) {
            return;
        }
        compress(hash->state, hash->block);
    }
    for (; size >= 64; size -= 64, next += 64) {
        compress(hash->state, next);
    }
    if (size != 0) {
        memcpy(hash->block, next, size);
    }
}

void klaus_sha256_end(klaus_sha256 *hash, uint8_t digest[KLAUS_SHA256_BYTES]) {
    const uint64_t bits = hash->total_bytes * 8;
    uint8_t tail[72] = {0x80};
    const size_t held = (size_t)(hash->total_bytes % 64);
    const size_t zeros = (held < 56 ? 56 : 120) - held; /* the 0x80 counted in */
    for (int i = 0; i < 8; i++) {
        tail[zeros + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    klaus_sha256_add(hash, tail, zeros + 8);
    for (int i = 0; i < 32; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void klaus_sha256_hex(const uint8_t digest[KLAUS_SHA256_BYTES], char hex[KLAUS_SHA256_HEX_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < KLAUS_SHA256_BYTES; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
}
