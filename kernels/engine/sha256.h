/* SHA-256 (FIPS 180-4). */
#ifndef KLAUS_ENGINE_SHA256_H
#define KLAUS_ENGINE_SHA256_H
#include <stddef.h>
#include <stdint.h>

#define KLAUS_SHA256_BYTES 32
#define KLAUS_SHA256_HEX_BYTES 65 /* with the closing zero */

typedef struct klaus_sha256 {
    uint32_t state[8];
    uint64_t total_bytes;
    uint8_t block[64];
} klaus_sha256;

void klaus_sha256_begin(klaus_sha256 *hash);
void klaus_sha256_add(klaus_sha256 *hash, const void *bytes, size_t size);
void klaus_sha256_end(klaus_sha256 *hash, uint8_t digest[KLAUS_SHA256_BYTES]);
void klaus_sha256_hex(const uint8_t digest[KLAUS_SHA256_BYTES], char hex[KLAUS_SHA256_HEX_BYTES]);

#endif
