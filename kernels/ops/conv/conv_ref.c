/* Convolution as its definition says, sums in double. Takes every weight dtype, depthwise included. */
#include "ops/conv/conv.h"
#include "ops/finish.h"
#include "ops/int8.h"
#include "ops/shape.h"
#include "ops/weights.h"

/* One output channel's weights as float32, for each part. */
static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)klaus_shape_weights_per_row(shape) * sizeof(float) * (uint64_t)parts;
}

static double window_sum(const klaus_shape *s, const float *input, const float *filter, int64_t first_channel,
                         int64_t top, int64_t left) {
    const int64_t depth = s->in_channels / s->groups;
    double sum = 0;
    for (int64_t u = 0; u < s->kernel_rows; u++) {
        if (top + u < 0 || top + u >= s->in_rows)
            continue;
        for (int64_t v = 0; v < s->kernel_cols; v++) {
            if (left + v < 0 || left + v >= s->in_cols)
                continue;
            const float *x = input + ((top + u) * s->in_cols + left + v) * s->in_channels + first_channel;
            const float *w = filter + (u * s->kernel_cols + v) * depth;
            for (int64_t c = 0; c < depth; c++)
                sum += (double)w[c] * x[c];
        }
    }
    return sum;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_weights *weights = call->weights;
    const float *input = call->input[0], *addend = s->has_addend ? call->input[1] : NULL;
    float *output = call->output;
    const int64_t row_weights = klaus_shape_weights_per_row(s), depth = s->in_channels / s->groups;
    const int64_t filters_per_group = s->out_channels / s->groups;
    float *filter = (float *)call->scratch + row_weights * part;
    int64_t begin, end;
    klaus_share(s->out_channels, 1, part, parts, &begin, &end);
    for (int64_t k = begin; k < end; k++) {
        klaus_weights_read(s, weights, k, 0, row_weights, filter);
        const double scale = weights->scale != NULL ? weights->scale[k] : 1.0;
        for (int64_t i = 0; i < s->out_rows; i++)
            for (int64_t j = 0; j < s->out_cols; j++) {
                const double sum = window_sum(s, input, filter, k / filters_per_group * depth,
                                              i * s->stride_rows - s->pad_top, j * s->stride_cols - s->pad_left);
                const int64_t at = (i * s->out_cols + j) * s->out_channels + k;
                double value = scale * sum + weights->bias[k];
                if (addend != NULL)
                    value += addend[at];
                output[at] = (float)klaus_activate(s->activation, value);
            }
    }
}

const klaus_variant klaus_conv_f32_ref = {
    .name = "klaus_conv_f32_ref",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_conv_is_sound,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

/* ---- int8: ops/int8.h ---- */

static bool can_i8(const klaus_shape *shape) {
    return klaus_conv_has_geometry(shape) && klaus_int8_fits(shape);
}

static uint64_t scratch_bytes_i8(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)klaus_shape_weights_per_row(shape) * (uint64_t)parts;
}

static int32_t window_sum_i8(const klaus_shape *s, const int8_t *input, const int8_t *filter, int64_t first_channel,
                             int64_t top, int64_t left) {
    const int64_t depth = s->in_channels / s->groups;
    int32_t sum = 0;
    for (int64_t u = 0; u < s->kernel_rows; u++)
        for (int64_t v = 0; v < s->kernel_cols; v++) {
            if (top + u < 0 || top + u >= s->in_rows || left + v < 0 || left + v >= s->in_cols)
                continue; /* padding is the zero */
            const int8_t *x = input + ((top + u) * s->in_cols + left + v) * s->in_channels + first_channel;
            const int8_t *w = filter + (u * s->kernel_cols + v) * depth;
            for (int64_t c = 0; c < depth; c++)
                sum += w[c] * (x[c] - s->in_quantization[0].zero);
        }
    return sum;
}

static void run_i8(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const klaus_weights *weights = call->weights;
    const int64_t row_weights = klaus_shape_weights_per_row(s), depth = s->in_channels / s->groups;
    const int64_t filters_per_group = s->out_channels / s->groups;
    int8_t *filter = (int8_t *)call->scratch + row_weights * part;
    int64_t begin, end;
    klaus_share(s->out_channels, 1, part, parts, &begin, &end);
    for (int64_t k = begin; k < end; k++) {
        const float step = klaus_int8_weight_step(s, weights, k);
        const float multiplier = klaus_int8_multiplier(s, weights, k, step);
        const float offset = klaus_int8_offset(s, weights, k);
        klaus_int8_weights_read(s, weights, k, step, 0, row_weights, filter);
        for (int64_t i = 0; i < s->out_rows; i++)
            for (int64_t j = 0; j < s->out_cols; j++) {
                const int32_t sum = window_sum_i8(s, call->input[0], filter, k / filters_per_group * depth,
                                                  i * s->stride_rows - s->pad_top, j * s->stride_cols - s->pad_left);
                klaus_int8_finish(call, sum, multiplier, offset, (i * s->out_cols + j) * s->out_channels + k);
            }
    }
}

const klaus_variant klaus_conv_i8_ref = {
    .name = "klaus_conv_i8_ref",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can_i8,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes_i8,
    .run = run_i8,
};
