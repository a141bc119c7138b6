/* Local response normalisation as its definition says, in double. */
#include <math.h>
#include <string.h>

#include "ops/finish.h"
#include "ops/lrn/lrn.h"
#include "ops/shape.h"

/* 0.75 and 0.5, the powers in use, by square roots; others by powf, which keeps float's precision. */
static double power(double base, float beta) {
    if (beta == 0.5f)
        return 1 / sqrt(base);
    if (beta == 0.75f)
        return 1 / (sqrt(base) * sqrt(sqrt(base)));
    return (double)powf((float)base, -beta);
}

/* A cell's inputs, as the output may take their place. */
static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    return (uint64_t)shape->in_channels * sizeof(float) * (uint64_t)parts;
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    (void)phase;
    const klaus_shape *s = call->shape;
    const int64_t half = s->size / 2, group = s->in_channels / s->groups;
    int64_t begin, end;
    klaus_share((int64_t)s->in_rows * s->in_cols, 1, part, parts, &begin, &end);
    for (int64_t cell = begin; cell < end; cell++) {
        float *x = (float *)call->scratch + (int64_t)part * s->in_channels;
        memcpy(x, (const float *)call->input[0] + cell * s->in_channels, (size_t)s->in_channels * sizeof(float));
        float *y = (float *)call->output + cell * s->in_channels;
        for (int64_t c = 0; c < s->in_channels; c++) {
            const int64_t group_begin = c / group * group, group_end = group_begin + group;
            const int64_t low = c - half < group_begin ? group_begin : c - half;
            const int64_t high = c + half >= group_end ? group_end - 1 : c + half;
            double sum = 0;
            for (int64_t i = low; i <= high; i++)
                sum += (double)x[i] * x[i];
            y[c] = (float)klaus_activate(s->activation, x[c] * power(s->kappa + s->alpha * sum, s->beta));
        }
    }
}

const klaus_variant klaus_lrn_f32_ref = {
    .name = "klaus_lrn_f32_ref",
    .op = KLAUS_OP_LRN,
    .isa = KLAUS_ISA_REF,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_CANONICAL_LAYOUT,
    .phases = 1,
    .can = klaus_lrn_is_sound,
    .packed_bytes = klaus_no_packed_bytes,
    .pack = NULL,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
