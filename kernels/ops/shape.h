/* Arithmetic on shapes that every op and the checker share. */
#ifndef KLAUS_OPS_SHAPE_H
#define KLAUS_OPS_SHAPE_H
#include "ops/op.h"

/* Fields that an op does not use are 0; a missing batch, row or column count means one. */
static inline int64_t klaus_at_least_one(int32_t count) {
    return count > 0 ? count : 1;
}

/* Numbers that input `index` holds. */
static inline int64_t klaus_shape_input_count(const klaus_shape *shape, int32_t index) {
    const int64_t cells =
        klaus_at_least_one(shape->batch) * klaus_at_least_one(shape->in_rows) * klaus_at_least_one(shape->in_cols);
    if (shape->op == KLAUS_OP_CONV && index == 1) /* the addend */
        return klaus_at_least_one(shape->out_rows) * klaus_at_least_one(shape->out_cols) * shape->out_channels;
    return cells * (shape->op == KLAUS_OP_CONCAT ? shape->input_channels[index] : shape->in_channels);
}

static inline int64_t klaus_shape_output_count(const klaus_shape *shape) {
    return klaus_at_least_one(shape->batch) * klaus_at_least_one(shape->out_rows) *
           klaus_at_least_one(shape->out_cols) * shape->out_channels;
}

/* How many inputs a call of this shape has. */
static inline int32_t klaus_shape_inputs(const klaus_shape *shape) {
    if (shape->op == KLAUS_OP_ADD)
        return 2;
    if (shape->op == KLAUS_OP_CONCAT)
        return shape->input_count;
    return shape->op == KLAUS_OP_CONV && shape->has_addend ? 2 : 1;
}

/* Input numbers of a full connect row: the whole tensor. */
static inline int64_t klaus_shape_inputs_per_row(const klaus_shape *shape) {
    return klaus_at_least_one(shape->in_rows) * klaus_at_least_one(shape->in_cols) * shape->in_channels;
}

/* Weights of one output channel; 0 where the op has none. */
static inline int64_t klaus_shape_weights_per_row(const klaus_shape *shape) {
    if (shape->op == KLAUS_OP_CONV)
        return (int64_t)shape->kernel_rows * shape->kernel_cols * (shape->in_channels / shape->groups);
    if (shape->op == KLAUS_OP_FULL_CONNECT)
        return klaus_shape_inputs_per_row(shape);
    return 0;
}

/* Multiply-adds of one call; for the ops without weights, numbers touched. */
int64_t klaus_shape_multiplies(const klaus_shape *shape);

/* The share `part` of `parts` of `total` items, in whole granules except for the last: [*begin, *end). */
static inline void klaus_share(int64_t total, int64_t granule, int32_t part, int32_t parts, int64_t *begin,
                               int64_t *end) {
    const int64_t granules = (total + granule - 1) / granule;
    *begin = granules * part / parts * granule;
    *end = granules * (part + 1) / parts * granule;
    if (*begin > total)
        *begin = total;
    if (*end > total)
        *end = total;
}

/* Bytes of one activation. */
static inline size_t klaus_dtype_bytes(uint32_t dtype) {
    return dtype == KLAUS_I8 ? 1 : dtype == KLAUS_F16 ? 2 : 4;
}

/* The dtype of input `index`: an addend has that of the output. */
static inline uint32_t klaus_shape_input_dtype(const klaus_shape *shape, int32_t index) {
    return shape->op == KLAUS_OP_CONV && index == 1 ? shape->out_dtype : shape->in_dtype;
}

/* Whether a kernel's output may stand where its input `index` stands: every variant of these ops must allow it, and the
 * checker tries it. */
static inline bool klaus_shape_in_place(const klaus_shape *shape, int32_t index) {
    if (klaus_shape_input_dtype(shape, index) != shape->out_dtype)
        return false;
    return shape->op == KLAUS_OP_ADD || shape->op == KLAUS_OP_LRN || shape->op == KLAUS_OP_ACTIVATION ||
           shape->op == KLAUS_OP_SOFTMAX || (shape->op == KLAUS_OP_CONV && index == 1);
}

/* What parts of scratch memory and of packed weights begin at multiples of. */
static inline uint64_t klaus_aligned(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

/* For variants that need neither packed weights nor scratch. */
uint64_t klaus_no_packed_bytes(const klaus_shape *shape);
uint64_t klaus_no_scratch_bytes(const klaus_shape *shape, int32_t parts);

/* Whether all activations of the call are float32 (0, unset, counts as float32). */
bool klaus_shape_is_f32(const klaus_shape *shape);
/* Whether all of them are of `dtype`. */
bool klaus_shape_is(const klaus_shape *shape, uint32_t dtype);

/* Whether weight_dtype is one of float32, float16, or indices with a codebook of either. */
bool klaus_shape_has_known_weights(const klaus_shape *shape);

#endif
