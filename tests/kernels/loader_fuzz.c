/* Damages a packed model in many ways and opens, verifies and runs what is left: nothing may crash or read outside.
 *
 *   loader_fuzz MODEL CASES SEED
 *   loader_fuzz MODEL                the model as it is
 *
 * Prints one line "cases N opened N verified N ran N". Meant to be built with AddressSanitizer; without it the model
 * stands at the end of a mapping whose next page cannot be touched. */
#include "loader_case.h"

int main(int argc, char **argv) {
    if (argc != 2 && argc != 4) {
        return 2;
    }
    FILE *file = fopen(argv[1], "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return 2;
    }
    const size_t size = (size_t)ftell(file);
    void *room = NULL; /* as a mapped file is aligned, and not a byte larger, so that reading behind it is noticed */
    rewind(file);
    if (posix_memalign(&room, KLAUS_ALIGNMENT, size) != 0 || fread(room, 1, size, file) != size) {
        return 2;
    }
    unsigned char *original = room;
    fclose(file);
    if (argc == 2) {
        loader_counts once = {0, 0, 0};
        const int unclear = try_model(original, size, &once);
        free(original);
        printf("cases 1 opened %lu verified %lu ran %lu\n", once.opened, once.verified, once.ran);
        return unclear;
    }
    const size_t fields = structured(original, size);
    klaus_model *askew;
    if (klaus_open_memory(original + 1, size - 1, &askew, NULL) != KLAUS_E_INPUT ||
        klaus_open_memory(NULL, size, &askew, NULL) != KLAUS_E_INPUT || askew != NULL) {
        return 1;
    }
    loader_counts counts = {0, 0, 0};
    const unsigned long cases = strtoul(argv[2], NULL, 10);
    for (unsigned long i = 0; i < cases; i++) {
        state = (strtoull(argv[3], NULL, 10) + i) * UINT64_C(0x9e3779b97f4a7c15) + 1;
        any(2);
        size_t length = size;
        if (any(10) == 0) {
            length = any((uint32_t)size) + 1;
        }
        void *base;
        size_t mapped;
        unsigned char *bytes = guarded(length, &base, &mapped);
        memcpy(bytes, original, length);
        if (length == size) {
            damage(bytes, length, fields);
            if (any(2) == 0) {
                sign(bytes, length);
            }
        } else if (length >= sizeof(struct klaus_file_header)) {
            ((struct klaus_file_header *)(void *)bytes)->file_bytes = length;
        }
        if (try_model(bytes, length, &counts) != 0) {
            fprintf(stderr, "case %lu: refused without a clear message\n", i);
            return 1;
        }
        release(base, mapped);
    }
    free(original);
    printf("cases %lu opened %lu verified %lu ran %lu\n", cases, counts.opened, counts.verified, counts.ran);
    return 0;
}
