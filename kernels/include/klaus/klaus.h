/* libklaus: runs packed models (NAME.klaus) on ARM CPUs. This header is all a program needs.
 *
 * Functions that can fail return a klaus_status and, where `error` is not NULL, fill it; none aborts. A model may be
 * shared by sessions in several threads; a session belongs to one thread at a time. Tensors are float32,
 * HWC (row, column, channel fastest), dense. This header is also read by cffi: preprocessor lines apart,
 * plain declarations only. */
#ifndef KLAUS_H
#define KLAUS_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* the library is compiled with hidden visibility: only this leaves it */

typedef enum klaus_status {
    KLAUS_OK = 0,
    KLAUS_E_CHECK = 1,   /* a check failed */
    KLAUS_E_INPUT = 2,   /* bad arguments, a malformed or unreadable file */
    KLAUS_E_MEMORY = 4,  /* not enough memory */
    KLAUS_E_INTERNAL = 5 /* a bug in this library */
} klaus_status;

typedef struct klaus_error {
    klaus_status status;
    char message[480]; /* one line: what was asked, what was found, what to do */
} klaus_error;

typedef struct klaus_model klaus_model;
typedef struct klaus_session klaus_session;

typedef enum klaus_isa {
    KLAUS_ISA_AUTO = 0,
    KLAUS_ISA_REF = 1,
    KLAUS_ISA_NEON = 2,
    KLAUS_ISA_NEON_FP16 = 3,
    KLAUS_ISA_NEON_DOTPROD = 4,
    KLAUS_ISA_NEON_I8MM = 5
} klaus_isa;

typedef enum klaus_precision { KLAUS_FP32 = 0, KLAUS_FP16 = 1, KLAUS_INT8 = 2 } klaus_precision;
typedef enum klaus_memory { KLAUS_MEMORY_DEFAULT = 0, KLAUS_MEMORY_LEAN = 1 } klaus_memory;

typedef struct klaus_options {
    int32_t threads; /* 1 or more */
    klaus_isa isa;   /* highest instruction set to use; AUTO = all this CPU has */
    klaus_precision precision;
    klaus_memory memory;
    int32_t fused;       /* 0: one step a layer, as `activations` needs it; 1: whatever is fastest */
    const char *variant; /* name of a kernel variant to prefer wherever it can run, or NULL */
    int32_t mark;        /* 1: tells an instruction counter where layers end; see docs/device-program.md */
    int32_t watch;       /* 1: the first run reads after each layer how much memory no file backs; takes time */
} klaus_options;

typedef struct klaus_description {
    const char *name;             /* valid while the model is open */
    const char *meta;             /* the JSON object of the package: source, licence, attribution, scheme */
    int32_t rows, cols, channels; /* nominal input tensor */
    int32_t outputs;
    int32_t layer_count;
    int32_t patches;        /* default number of patches: 1 or 10 */
    int32_t takes_pictures; /* 0: tensors only */
    int32_t seeded;         /* 1: weights from a seed, answers mean nothing */
    uint64_t file_bytes;
    uint64_t weight_count;
} klaus_description;

typedef struct klaus_layer_description {
    const char *name;
    const char *op;
    int32_t rows, cols, channels;
    uint64_t multiplies; /* multiply-adds at the nominal input */
} klaus_layer_description;

typedef struct klaus_picture {
    const uint8_t *rgb; /* rows * cols * 3 bytes, R first, no padding */
    int32_t rows, cols;
} klaus_picture;

typedef struct klaus_timing {
    uint64_t preprocess_ns; /* resize, crop, mean */
    uint64_t forward_ns;    /* layers and softmax */
} klaus_timing;

typedef struct klaus_class {
    int32_t id;
    float probability;
} klaus_class;

const char *klaus_version(void);
const char *klaus_isa_name(klaus_isa isa);

/* Opens a packed model by mapping the file; every offset, size and product in it is checked first. */
klaus_status klaus_open(const char *path, klaus_model **model, klaus_error *error);
/* The same from memory (64-byte aligned), which must outlive the model. */
klaus_status klaus_open_memory(const void *bytes, size_t size, klaus_model **model, klaus_error *error);
void klaus_close(klaus_model *model);
/* Reads every byte: SHA-256, the finiteness of all numbers, and packed weights against the canonical ones. Slow;
 * opening does not do it. `unchecked` (may be NULL): how many sections of packed weights are in layouts that no kernel
 * of this CPU makes, so that they could not be compared (and no session here uses them). */
klaus_status klaus_verify(const klaus_model *model, int32_t *unchecked, klaus_error *error);

klaus_status klaus_describe(const klaus_model *model, klaus_description *description);
klaus_status klaus_describe_layer(const klaus_model *model, int32_t layer, klaus_layer_description *description);
/* The name of class `id`, "" where the model has no labels. */
const char *klaus_label(const klaus_model *model, int32_t id);

void klaus_default_options(klaus_options *options);
klaus_status klaus_session_open(const klaus_model *model, const klaus_options *options, klaus_session **session,
                                klaus_error *error);
void klaus_session_close(klaus_session *session);

/* input: rows x cols x channels float32 as layer 0 reads it (normalised, mean subtracted), nominal size.
 * Either output may be NULL; each has `outputs` elements. */
klaus_status klaus_run(klaus_session *session, const float *input, float *logits, float *probabilities,
                       klaus_error *error);

/* Called once a layer, in order; the values are valid during the call only. Non-zero return stops the run. */
typedef int32_t (*klaus_layer_sink)(void *user, int32_t layer, const float *values, int32_t rows, int32_t cols,
                                    int32_t channels);
/* Runs the net and shows every layer's output; the session must have been opened with fused = 0. */
klaus_status klaus_run_layers(klaus_session *session, const float *input, klaus_layer_sink sink, void *user,
                              klaus_error *error);

/* The tensor that one patch of the picture becomes: output has rows * cols * channels elements of the nominal input. */
klaus_status klaus_preprocess(klaus_session *session, const klaus_picture *picture, int32_t crop, float *output,
                              klaus_error *error);
/* A picture to averaged class probabilities; patches 1 or 10 (10 needs a ccv network); crop 0 resizes without a crop
 * (crop networks only). timing may be NULL. */
klaus_status klaus_classify(klaus_session *session, const klaus_picture *picture, int32_t patches, int32_t crop,
                            float *probabilities, klaus_timing *timing, klaus_error *error);
/* The k most probable classes, ties to the lower id. Returns how many were written. */
int32_t klaus_top(const float *probabilities, int32_t count, klaus_class *classes, int32_t k);

/* Nanoseconds each layer took in the last run, fused layers counted in the layer that ends the step. */
klaus_status klaus_layer_times(const klaus_session *session, uint64_t *ns, int32_t layer_count);
/* Bytes of activations, packed weights and scratch that the session holds. */
uint64_t klaus_session_bytes(const klaus_session *session);
/* The most memory of this process that no file backs, as the session's first run saw it at the ends of layers;
 * 0 without `watch`, or where the system does not tell. */
uint64_t klaus_anonymous_bytes(const klaus_session *session);
/* Shows the plan: one JSON object (no newline) a step. */
typedef void (*klaus_text_sink)(void *user, const char *line);
klaus_status klaus_plan(const klaus_session *session, klaus_text_sink sink, void *user);

/* Takes the next bytes of a file; non-zero return stops the writing. */
typedef int32_t (*klaus_byte_sink)(void *user, const void *bytes, size_t size);
/* Writes the session's model with, besides all that it has, its weights in the layouts of the kernels that this session
 * runs, for one patch and for ten: sessions with the same options on the same kind of CPU then use them in the file
 * instead of packing them into memory of their own. `sections` (may be NULL): how many it added. */
klaus_status klaus_write_packed(klaus_session *session, klaus_byte_sink sink, void *user, int32_t *sections,
                                klaus_error *error);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
