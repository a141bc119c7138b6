/* An open packed model: the file mapped, every field checked, everything found. */
#ifndef KLAUS_ENGINE_MODEL_H
#define KLAUS_ENGINE_MODEL_H
#include <stdbool.h>

#include "klaus/format.h"
#include "klaus/klaus.h"
#include "ops/op.h"
#include "os/os.h"

/* Limits that hold for every model; products below them fit the 32-bit indices of the kernels. */
#define KLAUS_MAX_ELEMENTS (INT64_C(1) << 28) /* of one activation and of one layer's weights */
#define KLAUS_MAX_ROW (INT64_C(1) << 22)      /* weights of one output: kernels keep a row a thread in scratch */
#define KLAUS_MAX_SECTIONS 65536
#define KLAUS_MAX_META_BYTES (1u << 20)
#define KLAUS_MAX_LABEL_BYTES (1u << 24)
#define KLAUS_MAX_CODEBOOK 256

typedef struct klaus_extent {
    int32_t rows, cols, channels;
} klaus_extent;

/* What the file holds for one layer. */
typedef struct klaus_layer_data {
    klaus_extent nominal;  /* output for the nominal input */
    uint64_t weight_count; /* 0 where the op has no weights */
    uint64_t multiplies;   /* at the nominal input */
    klaus_weights weights; /* values NULL where the op has no weights */
    uint64_t weight_bytes;
} klaus_layer_data;

/* A layer's weights in the layout of one kernel's pack(). */
typedef struct klaus_packed_data {
    int32_t layer;
    uint32_t layout;
    const void *bytes;
    uint64_t size;
} klaus_packed_data;

struct klaus_model {
    klaus_mapping mapping;
    bool owns_mapping;
    struct klaus_file_header header;
    struct klaus_network network;
    struct klaus_layer *layers; /* copies: what was checked is what is used */
    klaus_layer_data *data;
    int32_t layer_count;
    struct klaus_section *sections; /* sorted by offset */
    int32_t section_count;
    klaus_packed_data *packed; /* by layer, then by layout */
    int32_t packed_count;
    const float *mean;          /* picture_rows x picture_cols x channels, or NULL */
    struct klaus_range *ranges; /* 1 + layer_count, a copy that was checked, or NULL */
    char *codebooks;            /* each padded with zeros to all its indices can name */
    char *meta, *name;
    char *label_text;
    const char **labels; /* `outputs` names, or NULL */
    int32_t tail;        /* with a scan layer: the first of the last layers that take a batch; else layer_count */
    uint64_t weight_count;
};

/* Output of a layer for inputs of these extents; checks that it exists and stays within the limits. */
klaus_status klaus_layer_extent(const klaus_model *model, int32_t layer, const klaus_extent *inputs,
                                klaus_extent *output, klaus_error *error);
/* The call geometry of a layer; `output` as klaus_layer_extent gave it. */
void klaus_layer_shape(const klaus_model *model, int32_t layer, const klaus_extent *inputs, const klaus_extent *output,
                       int32_t batch, klaus_shape *shape);
int64_t klaus_extent_elements(const klaus_extent *extent);
bool klaus_op_has_weights(uint32_t op);
/* What the layers that feed a layer, or the network's input, give it at the nominal size. */
void klaus_nominal_inputs(const klaus_model *model, int32_t layer, klaus_extent inputs[KLAUS_MAX_INPUTS]);
/* Weights behind one output channel of a layer that has weights, and the bytes of that row in the file. */
int64_t klaus_weight_row(const klaus_model *model, int32_t layer, const klaus_extent *input);
size_t klaus_weight_row_bytes(uint32_t dtype, int64_t count);

/* The packed section of `layer` in `layout`, or NULL. */
const klaus_packed_data *klaus_model_packed(const klaus_model *model, int32_t layer, uint32_t layout);

/* Gives back the memory that a layer's weights occupy in the mapped file; they are read again where they are needed. */
void klaus_model_leave(const klaus_model *model, int32_t layer);

#endif
