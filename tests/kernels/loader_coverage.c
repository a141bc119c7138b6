/* The loader under libFuzzer: `python -m tests.fuzz.run loader`. Half of the changes are loader_case.h's, which know
 * where the fields are, half libFuzzer's own; most get a right digest, so that `verify` looks further. */
#define MOST_MULTIPLIES 2000000u /* many cases rather than large ones */
#define MOST_VALUES 400000u
#include "loader_case.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    any(2);
    const size_t whole = sizeof(struct klaus_file_header) + sizeof(struct klaus_section);
    struct klaus_file_header header;
    if (any(2) == 0 || size < whole) {
        size = LLVMFuzzerMutate(data, size, most);
    } else {
        /* In aligned memory, as a mapping is: the damage works on structs. */
        void *base;
        size_t mapped;
        unsigned char *bytes = guarded(size, &base, &mapped);
        memcpy(bytes, data, size);
        memcpy(&header, bytes, sizeof(header));
        const uint64_t room = (size - sizeof(header)) / sizeof(struct klaus_section);
        if (header.section_count > 0 && header.section_count <= room && header.layer_count < 1000) {
            damage(bytes, size, structured(bytes, size));
        } else {
            flip_bits(bytes, size);
        }
        memcpy(data, bytes, size);
        release(base, mapped);
    }
    if (size >= whole && any(8) != 0) {
        memcpy(&header, data, sizeof(header));
        header.file_bytes = size;
        klaus_sha256 hash;
        klaus_sha256_begin(&hash);
        klaus_sha256_add(&hash, data + sizeof(header), size - sizeof(header));
        klaus_sha256_end(&hash, header.digest);
        memcpy(data, &header, sizeof(header));
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static loader_counts counts;
    static unsigned long cases;
    if (size == 0) {
        return 0;
    }
    void *base;
    size_t mapped;
    unsigned char *bytes = guarded(size, &base, &mapped);
    memcpy(bytes, data, size);
    if (try_model(bytes, size, &counts) != 0) {
        fprintf(stderr, "refused without a clear message\n");
        abort();
    }
    release(base, mapped);
    if (++cases % 10000 == 0) {
        fprintf(stderr, "fuzzed: %lu opened, %lu verified, %lu ran\n", counts.opened, counts.verified, counts.ran);
    }
    return 0;
}
