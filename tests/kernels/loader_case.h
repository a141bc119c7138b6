/* Damage to packed models, and what is done with what is left: for loader_fuzz.c, which goes by chance, and
 * loader_coverage.c, which libFuzzer leads. */
#ifndef KLAUS_TESTS_LOADER_CASE_H
#define KLAUS_TESTS_LOADER_CASE_H
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/sha256.h"
#include "klaus/format.h"
#include "klaus/klaus.h"

#ifndef MOST_MULTIPLIES /* of a model that is run */
#define MOST_MULTIPLIES 20000000u
#define MOST_VALUES 4000000u
#endif
#define PICTURE_ROWS 40
#define PICTURE_COLS 52

static uint64_t state;

static uint32_t any(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % below;
}

/* ---- memory whose end is guarded ---- */

static unsigned char *guarded(size_t size, void **base, size_t *mapped) {
#if defined(__SANITIZE_ADDRESS__) || defined(KLAUS_ADDRESS_SANITIZER)
    *mapped = 0;
    if (posix_memalign(base, KLAUS_ALIGNMENT, size) != 0) {
        abort();
    }
    return *base;
#else
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = (size + KLAUS_ALIGNMENT + page - 1) / page * page;
    *mapped = room + page;
    *base = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*base == MAP_FAILED || mprotect((char *)*base + room, page, PROT_NONE) != 0) {
        abort();
    }
    return (unsigned char *)*base + (room - size) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
#endif
}

static void release(void *base, size_t mapped) {
    if (mapped == 0) {
        free(base);
    } else {
        munmap(base, mapped);
    }
}

/* ---- damage ---- */

static const int32_t hostile[] = {0,  1,   -1,  2,     3,     7,     8,         15,        16,         63,        64,
                                  65, 127, 255, 65535, 65536, 65537, INT32_MAX, INT32_MIN, 0x10000000, 0x40000000};

/* Where the fields are: header, table, network, layers. */
static size_t structured(const unsigned char *bytes, size_t size) {
    struct klaus_file_header header;
    memcpy(&header, bytes, sizeof(header));
    const size_t end =
        sizeof(header) + header.section_count * sizeof(struct klaus_section) + 128 + 256u * header.layer_count;
    return end + 128 < size ? end + 128 : size;
}

static void set_word(unsigned char *bytes, size_t end) {
    const int32_t word = hostile[any(sizeof(hostile) / sizeof(hostile[0]))];
    memcpy(bytes + any((uint32_t)(end / 4)) * 4u, &word, sizeof(word));
}

static void flip_bits(unsigned char *bytes, size_t end) {
    for (uint32_t i = 0; i <= any(4); i++) {
        bytes[any((uint32_t)end)] ^= (unsigned char)(1u << any(8));
    }
}

static void swap_sections(unsigned char *bytes, uint32_t count) {
    struct klaus_section *sections = (struct klaus_section *)(void *)(bytes + sizeof(struct klaus_file_header));
    struct klaus_section *one = &sections[any(count)];
    struct klaus_section *other = &sections[any(count)];
    const uint64_t offset = one->offset;
    const uint64_t size = one->bytes;
    one->offset = other->offset;
    other->offset = offset;
    if (any(2) == 0) {
        one->bytes = other->bytes;
        other->bytes = size;
    }
}

static void step_word(unsigned char *bytes, size_t end) {
    unsigned char *at = bytes + any((uint32_t)(end / 4)) * 4u;
    int32_t word;
    memcpy(&word, at, sizeof(word));
    word = (int32_t)((uint32_t)word + (any(2) == 0 ? 1u : UINT32_MAX));
    memcpy(at, &word, sizeof(word));
}

static void damage(unsigned char *bytes, size_t size, size_t fields) {
    struct klaus_file_header *header = (struct klaus_file_header *)(void *)bytes;
    const struct klaus_file_header intact = *header;
    const uint32_t times = 1 + any(3);
    for (uint32_t i = 0; i < times; i++) {
        switch (any(6)) {
        case 0:
            flip_bits(bytes, size);
            break;
        case 1:
            swap_sections(bytes, intact.section_count);
            break;
        case 2:
            flip_bits(bytes, fields);
            break;
        case 3:
            step_word(bytes, fields);
            break;
        default:
            set_word(bytes, fields);
        }
    }
    if (any(4) != 0) { /* damage there hides all other */
        header->version = intact.version;
        header->header_bytes = intact.header_bytes;
    }
}

/* So that `verify` looks further than the digest. */
static void sign(unsigned char *bytes, size_t size) {
    struct klaus_file_header *header = (struct klaus_file_header *)(void *)bytes;
    klaus_sha256 hash;
    klaus_sha256_begin(&hash);
    klaus_sha256_add(&hash, bytes + sizeof(*header), size - sizeof(*header));
    klaus_sha256_end(&hash, header->digest);
}

/* ---- use ---- */

static int32_t look(void *user, int32_t layer, const float *values, int32_t rows, int32_t cols, int32_t channels) {
    (void)layer;
    *(float *)user += values[0] + values[(size_t)rows * (size_t)cols * (size_t)channels - 1];
    return 0;
}

static void read_line(void *user, const char *line) {
    *(size_t *)user += strlen(line);
}

static int32_t add_bytes(void *user, const void *bytes, size_t size) {
    const unsigned char *each = bytes;
    for (size_t i = 0; i < size; i++) {
        *(size_t *)user += each[i];
    }
    return 0;
}

static int cheap(const klaus_model *model, const klaus_description *net) {
    uint64_t multiplies = 0;
    uint64_t values = (uint64_t)net->rows * (uint64_t)net->cols * (uint64_t)net->channels;
    for (int32_t i = 0; i < net->layer_count; i++) {
        klaus_layer_description layer;
        klaus_describe_layer(model, i, &layer);
        multiplies += layer.multiplies;
        values += (uint64_t)layer.rows * (uint64_t)layer.cols * (uint64_t)layer.channels;
    }
    return multiplies < MOST_MULTIPLIES && values < MOST_VALUES;
}

/* A session that a model or a build cannot have is left out. */
static const struct {
    int32_t fused;
    klaus_precision precision;
    klaus_memory memory;
} ways[] = {{0, KLAUS_FP32, KLAUS_MEMORY_DEFAULT},
            {1, KLAUS_FP32, KLAUS_MEMORY_DEFAULT},
            {1, KLAUS_FP32, KLAUS_MEMORY_LEAN},
            {1, KLAUS_INT8, KLAUS_MEMORY_DEFAULT}};

static int run_model(const klaus_model *model, const klaus_description *net) {
    static unsigned char pixels[PICTURE_ROWS * PICTURE_COLS * 3];
    klaus_error error;
    klaus_options options;
    klaus_default_options(&options);
    int ran = 0;
    for (size_t way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
        klaus_session *session;
        options.fused = ways[way].fused;
        options.precision = ways[way].precision;
        options.memory = ways[way].memory;
        options.threads = 1 + options.fused;
        if (klaus_session_open(model, &options, &session, &error) != KLAUS_OK) {
            continue;
        }
        const size_t count = (size_t)net->rows * (size_t)net->cols * (size_t)net->channels;
        float *input = calloc(count, sizeof(float));
        float *probabilities = calloc((size_t)net->outputs, sizeof(float));
        if (input == NULL || probabilities == NULL) {
            abort();
        }
        for (size_t i = 0; i < count; i++) {
            input[i] = (float)(i % 17) - 8.0f;
        }
        klaus_run(session, input, probabilities, probabilities, &error);
        float sum = 0;
        size_t lines = 0;
        if (!options.fused) {
            klaus_run_layers(session, input, look, &sum, &error);
        }
        klaus_plan(session, read_line, &lines);
        const klaus_picture picture = {pixels, PICTURE_ROWS, PICTURE_COLS};
        klaus_classify(session, &picture, 1, 1, probabilities, NULL, &error);
        klaus_classify(session, &picture, net->patches, 1, probabilities, NULL, &error);
        klaus_class best[5];
        klaus_top(probabilities, net->outputs, best, 5);
        klaus_write_packed(session, add_bytes, &lines, NULL, &error);
        free(input);
        free(probabilities);
        klaus_session_close(session);
        ran = 1;
    }
    return ran;
}

typedef struct loader_counts {
    unsigned long opened, verified, ran;
} loader_counts;

/* Opens, verifies, reads and runs a packed model at an aligned address; 1 where a refusal says nothing clear. */
static int try_model(const unsigned char *bytes, size_t length, loader_counts *counts) {
    klaus_model *model;
    klaus_error error = {KLAUS_OK, ""};
    const klaus_status status = klaus_open_memory(bytes, length, &model, &error);
    if (status != KLAUS_OK) {
        return error.status != status || error.message[0] == '\0' || strchr(error.message, '\n') != NULL;
    }
    klaus_description net;
    counts->opened++;
    counts->verified += klaus_verify(model, NULL, &error) == KLAUS_OK;
    klaus_describe(model, &net);
    for (int32_t id = -1; id <= net.outputs && id < 2000; id++) {
        counts->verified += strlen(klaus_label(model, id)) > 1u << 24;
    }
    if (cheap(model, &net)) {
        counts->ran += (unsigned long)run_model(model, &net);
    }
    klaus_close(model);
    return 0;
}

#endif
