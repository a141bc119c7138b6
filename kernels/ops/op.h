/* What every kernel variant is: a row in one table with one way to be asked, packed and run.
 *
 * The engine and the checker see kernels only through this header. Activations are dense HWC; weights arrive in the
 * packed model's canonical layout (klaus/format.h) and a variant's pack() turns them into its own.
 * Activations are float32, half or int8 (KLAUS_F32, KLAUS_F16, KLAUS_I8); can() says which a variant takes and gives.
 * An op that has no variant for a dtype runs in float32 between casts (engine/plan.c). */
#ifndef KLAUS_OPS_OP_H
#define KLAUS_OPS_OP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "klaus/format.h"
#include "klaus/klaus.h"

/* An op of the engine's own, which no file names: the same numbers in another dtype. */
#define KLAUS_OP_CAST 64

/* What an int8 activation stands for: scale * (q - zero). */
typedef struct klaus_quantization {
    float scale;
    int32_t zero; /* -128 .. 127 */
} klaus_quantization;

/* One call's geometry; fields that an op does not use are 0. in_* and out_* are set for every op; a batch, row or
 * column count of 0 means one. Helpers: ops/shape.h. */
typedef struct klaus_shape {
    uint32_t op;         /* enum klaus_op */
    uint32_t activation; /* applied to the result: act(scale * sum + bias) */
    int32_t batch;       /* full connect and softmax: rows of input; else 1 */
    int32_t in_rows, in_cols, in_channels;
    int32_t out_rows, out_cols, out_channels;
    int32_t kernel_rows, kernel_cols, stride_rows, stride_cols;
    int32_t pad_top, pad_left; /* bottom and right follow from the output size */
    int32_t groups;
    int32_t size;
    float kappa, alpha, beta;
    int32_t begin;                            /* slice */
    int32_t input_count;                      /* add, concat */
    int32_t input_channels[KLAUS_MAX_INPUTS]; /* concat */
    uint32_t in_dtype, out_dtype; /* of activations: KLAUS_F32, KLAUS_F16, KLAUS_I8; an addend's is out_dtype */
    klaus_quantization in_quantization[KLAUS_MAX_INPUTS], out_quantization; /* where the dtype is KLAUS_I8 */
    uint32_t weight_dtype, codebook_dtype, codebook_entries;
    bool has_scale;
    bool has_addend; /* conv: input[1], of the output's shape, is added before the activation (residual blocks) */
} klaus_shape;

/* A layer's weights, canonical layout. */
typedef struct klaus_weights {
    const void *values; /* out_channels rows of row_bytes */
    size_t row_bytes;
    const void *codebook;    /* NULL for float weights */
    const float *scale;      /* out_channels, or NULL = all ones */
    const float *bias;       /* out_channels, never NULL */
    const float *correction; /* out_channels, or NULL = all zeros: added to bias in int8 arithmetic alone */
} klaus_weights;

typedef struct klaus_call {
    const klaus_shape *shape;
    const void *input[KLAUS_MAX_INPUTS];
    void *output;
    const klaus_weights *weights; /* scale and bias are read from here; values only by variants without pack() */
    const void *packed;           /* what pack() made, 64-byte aligned; NULL where packed_bytes() is 0 */
    void *scratch;                /* scratch_bytes(), 64-byte aligned */
} klaus_call;

typedef struct klaus_variant {
    const char *name; /* klaus_<op>_<dtype>_<isa>[_<core>][_<tile>] */
    uint32_t op;
    klaus_isa isa;
    uint32_t core;   /* enum klaus_core_class it is shaped for; KLAUS_CORE_ANY */
    uint32_t layout; /* id of what pack() makes, unique a layout; KLAUS_CANONICAL_LAYOUT = none */
    /* 0, or of convolutions by tiles of outputs: errors are a fraction of the largest sum of the layer, not of each,
     * and a NaN reaches outputs so many rows and columns beside its own; a tile's side less one. */
    int32_t spreads;
    bool follows;   /* what pack() makes holds places and counts that run() follows: it is never taken from a file */
    int32_t phases; /* run() is called for phase 0 .. phases-1, all parts of one before the next */
    bool (*can)(const klaus_shape *shape);
    /* True where it trades instructions for memory, so that only sessions in lean memory take it; NULL: nowhere. */
    bool (*lean)(const klaus_shape *shape);
    /* Sizes are 64 bits wide everywhere: a small model can ask for more than 32-bit memory has, and the plan refuses
     * that before anything is allocated or run. */
    uint64_t (*packed_bytes)(const klaus_shape *shape);
    /* Depends on weights, kernel and channels alone, not on a map's extents, the batch or what quantizes activations:
     * all sessions and steps that name a layer and a layout share what it makes, a file's section included. */
    void (*pack)(const klaus_shape *shape, const klaus_weights *weights, void *packed);
    uint64_t (*scratch_bytes)(const klaus_shape *shape, int32_t parts);
    /* Does the share `part` of `parts` of the work; results do not depend on `parts`. */
    void (*run)(const klaus_call *call, int32_t phase, int32_t part, int32_t parts);
} klaus_variant;

#endif
