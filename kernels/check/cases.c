#include "check/cases.h"

#include <math.h>

#include "ops/shape.h"

void klaus_check_set_weights(klaus_shape *shape, int32_t index) {
    static const struct {
        uint32_t weights, codebook, entries;
    } kinds[] = {{KLAUS_F32, 0, 0},          {KLAUS_F16, 0, 0},        {KLAUS_Q4, KLAUS_F16, 16},
                 {KLAUS_Q8, KLAUS_F16, 256}, {KLAUS_Q2, KLAUS_F16, 4}, {KLAUS_Q8, KLAUS_F32, 243},
                 {KLAUS_Q4, KLAUS_F32, 13},  {KLAUS_Q4, KLAUS_F16, 9}, {KLAUS_Q2, KLAUS_F32, 3},
                 {KLAUS_Q8, KLAUS_F16, 1},   {KLAUS_Q2, KLAUS_F16, 3}};
    const int32_t count = (int32_t)(sizeof kinds / sizeof kinds[0]);
    shape->weight_dtype = kinds[index % count].weights;
    shape->codebook_dtype = kinds[index % count].codebook;
    shape->codebook_entries = kinds[index % count].entries;
}

double klaus_check_sum_tolerance(int64_t terms) {
    return ldexp(8 + 4 * sqrt((double)terms), -24);
}

double klaus_check_half_tolerance(const klaus_shape *shape) {
    int64_t terms = klaus_shape_weights_per_row(shape);
    if (shape->op == KLAUS_OP_AVERAGE_POOL)
        terms = (int64_t)shape->kernel_rows * shape->kernel_cols;
    if (shape->op == KLAUS_OP_GLOBAL_POOL)
        terms = (int64_t)shape->in_rows * shape->in_cols;
    return ldexp(3 + sqrt((double)(terms < 128 ? terms : 128)), -11);
}
