/* The cast as its definition says. */
#include "ops/cast/cast.h"
#include "ops/elements.h"
#include "ops/shape.h"

static bool can_f16(const klaus_shape *shape) {
    return klaus_cast_is_sound(shape, KLAUS_F16);
}

static bool can_i8(const klaus_shape *shape) {
    return klaus_cast_is_sound(shape, KLAUS_I8);
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    int64_t begin, end;
    klaus_share(klaus_shape_input_count(s, 0), 16, part, parts, &begin, &end);
    const char *from = (const char *)call->input[0] + (size_t)begin * klaus_dtype_bytes(s->in_dtype);
    char *to = (char *)call->output + (size_t)begin * klaus_dtype_bytes(s->out_dtype);
    if (s->in_dtype == KLAUS_F32)
        klaus_elements_write((const float *)(const void *)from, end - begin, s->out_dtype, &s->out_quantization, to);
    else
        klaus_elements_read(from, s->in_dtype, &s->in_quantization[0], end - begin, (float *)(void *)to);
}

const klaus_variant klaus_cast_f16_ref = {
    .name = "klaus_cast_f16_ref",
    .op = KLAUS_OP_CAST,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can_f16,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};

const klaus_variant klaus_cast_i8_ref = {
    .name = "klaus_cast_i8_ref",
    .op = KLAUS_OP_CAST,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = can_i8,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = klaus_no_scratch_bytes,
    .run = run,
};
