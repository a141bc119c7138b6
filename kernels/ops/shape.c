#include "ops/shape.h"

int64_t klaus_shape_multiplies(const klaus_shape *shape) {
    const int64_t outputs = klaus_shape_output_count(shape);
    switch (shape->op) {
    case KLAUS_OP_CONV:
    case KLAUS_OP_FULL_CONNECT:
        return outputs * klaus_shape_weights_per_row(shape);
    case KLAUS_OP_MAX_POOL:
    case KLAUS_OP_AVERAGE_POOL:
        return outputs * shape->kernel_rows * shape->kernel_cols;
    case KLAUS_OP_GLOBAL_POOL:
        return klaus_shape_input_count(shape, 0);
    case KLAUS_OP_LRN:
        return outputs * (shape->size / 2 * 2 + 1);
    default:
        return outputs;
    }
}

uint64_t klaus_no_packed_bytes(const klaus_shape *shape) {
    (void)shape;
    return 0;
}

uint64_t klaus_no_scratch_bytes(const klaus_shape *shape, int32_t parts) {
    (void)shape;
    (void)parts;
    return 0;
}

bool klaus_shape_is_f32(const klaus_shape *shape) {
    return (shape->in_dtype == KLAUS_F32 || shape->in_dtype == 0) &&
           (shape->out_dtype == KLAUS_F32 || shape->out_dtype == 0);
}

bool klaus_shape_is(const klaus_shape *shape, uint32_t dtype) {
    return shape->in_dtype == dtype && shape->out_dtype == dtype;
}

bool klaus_shape_has_known_weights(const klaus_shape *shape) {
    switch (shape->weight_dtype) {
    case KLAUS_F32:
    case KLAUS_F16:
        return true;
    case KLAUS_Q8:
    case KLAUS_Q4:
    case KLAUS_Q2:
        return shape->codebook_dtype == KLAUS_F32 || shape->codebook_dtype == KLAUS_F16;
    default:
        return false;
    }
}
