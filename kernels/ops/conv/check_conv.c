/* Shapes for convolution: its general, pointwise and depthwise forms. */
#include "check/cases.h"
#include "ops/shape.h"

/* rows, cols, channels in; out channels; kernel; stride; pad top, left, bottom, right; groups */
static const int32_t fixed_shapes[][14] = {
    {15, 15, 3, 24, 7, 7, 2, 2, 1, 1, 1, 1, 1, 0},   /* Klaus' first layer */
    {16, 14, 3, 32, 3, 3, 2, 2, 0, 0, 1, 1, 1, 0},   /* lite0's first layer */
    {11, 11, 24, 32, 5, 5, 2, 2, 1, 1, 1, 1, 2, 0},  /* grouped, strided */
    {7, 7, 48, 40, 3, 3, 1, 1, 1, 1, 1, 1, 2, 0},    /* grouped */
    {6, 6, 12, 36, 3, 3, 1, 1, 1, 1, 1, 1, 3, 0},    /* a panel a group */
    {9, 8, 32, 16, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0},    /* pointwise */
    {7, 7, 40, 25, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},    /* pointwise with a residual */
    {9, 9, 8, 12, 1, 1, 2, 2, 0, 0, 0, 0, 1, 0},     /* pointwise, strided */
    {5, 5, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},      /* pointwise, padded */
    {1, 1, 128, 13, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0},   /* one pixel */
    {9, 9, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 16, 0},   /* depthwise */
    {9, 10, 20, 20, 3, 3, 2, 2, 0, 0, 1, 1, 20, 0},  /* depthwise, strided, as TensorFlow pads */
    {9, 9, 12, 12, 5, 5, 1, 1, 2, 2, 2, 2, 12, 0},   /* depthwise 5x5 */
    {10, 11, 16, 16, 5, 5, 2, 2, 1, 1, 2, 2, 16, 0}, /* depthwise 5x5, strided */
    {7, 7, 23, 23, 5, 5, 1, 1, 2, 2, 2, 2, 23, 0},   /* depthwise, odd channels */
    {4, 19, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 8, 1},     /* depthwise, a wide map with a residual */
    {19, 21, 5, 5, 3, 3, 2, 2, 1, 1, 1, 1, 5, 0},    /* depthwise, odd everything */
    {3, 3, 4, 4, 5, 5, 1, 1, 2, 2, 2, 2, 4, 0},      /* depthwise, a map smaller than its kernel */
    {1, 1, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 8, 0},      /* depthwise, one pixel */
    {43, 31, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 32, 0}, /* depthwise, more rows than are copied at once */
    {36, 30, 37, 37, 5, 5, 2, 2, 2, 2, 2, 2, 37, 0}, /* ... channels over, strided */
    {12, 13, 48, 48, 5, 5, 1, 1, 2, 2, 2, 2, 48, 1}, /* ... a residual */
    {7, 7, 8, 8, 5, 5, 1, 1, 2, 2, 2, 2, 8, 0},      /* depthwise as in networks for 224 pixels */
    {14, 14, 8, 8, 5, 5, 2, 2, 1, 1, 2, 2, 8, 0},    /* ... */
    {14, 15, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 8, 0},    /* ... */
    {19, 70, 4, 4, 3, 3, 2, 2, 0, 0, 1, 1, 4, 0},    /* ... wide */
    {9, 9, 4, 4, 3, 3, 2, 2, 1, 1, 1, 1, 4, 0},      /* ... padded on each side */
    {23, 75, 4, 4, 5, 5, 1, 1, 2, 2, 2, 2, 4, 0},    /* ... wide */
    {9, 21, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 32, 0},  /* depthwise, whole blocks of channels, odd columns */
    {12, 23, 48, 48, 3, 3, 2, 2, 0, 1, 1, 0, 48, 0}, /* ... strided */
    {9, 27, 32, 32, 5, 5, 1, 1, 2, 2, 2, 2, 32, 0},  /* ... 5x5 */
    {11, 30, 16, 16, 5, 5, 2, 2, 2, 1, 1, 2, 16, 0}, /* ... 5x5, strided */
    {8, 14, 16, 16, 5, 5, 1, 1, 2, 2, 2, 2, 16, 0},  /* ... 5x5, even columns */
    {5, 5, 16, 16, 3, 3, 1, 1, 4, 4, 4, 4, 16, 0},   /* ... windows wholly outside the picture */
    {7, 8, 16, 16, 5, 5, 1, 1, 6, 5, 1, 6, 16, 0},   /* ... 5x5, the same */
    {6, 6, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1, 8, 0},     /* two outputs a channel */
    {3, 3, 5, 7, 3, 3, 1, 1, 4, 4, 4, 4, 1, 0},      /* windows wholly outside the picture */
    {2, 9, 4, 9, 3, 5, 2, 1, 3, 0, 0, 2, 1, 1},      /* nothing symmetrical */
    {8, 8, 3, 13, 8, 8, 1, 1, 0, 0, 0, 0, 1, 0},     /* a kernel as large as the picture */
    {13, 13, 64, 24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},  /* more than one chunk of pixels */
    {17, 9, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},     /* one channel to one channel */
    {14, 21, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 16, 0}, /* depthwise, maps of networks made for 224 pixels */
    {15, 28, 16, 16, 3, 3, 2, 2, 0, 0, 1, 1, 16, 0}, /* ... strided */
    {9, 21, 24, 24, 5, 5, 1, 1, 2, 2, 2, 2, 24, 0},  /* ... 5x5 */
    {13, 28, 8, 8, 5, 5, 2, 2, 1, 1, 2, 2, 8, 0},    /* ... 5x5, strided */
    {7, 14, 144, 48, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0},  /* pointwise, whole tiles, more than 128 terms */
    {7, 8, 272, 32, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},   /* ... a residual */
    {6, 21, 16, 72, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0},   /* ... few terms */
    {7, 7, 40, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},    /* whole tiles, taps in pieces */
    {20, 20, 3, 48, 7, 7, 2, 2, 1, 1, 1, 1, 1, 0},   /* ... joined taps that are no whole eights */
    {13, 13, 24, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  /* for transforms: whole tiles and a row over, a residual */
    {14, 9, 13, 25, 3, 3, 1, 1, 2, 0, 0, 2, 1, 1},   /* ... odd channels, uneven padding, a residual */
    {16, 16, 20, 26, 3, 3, 1, 1, 0, 0, 0, 0, 2, 0},  /* ... groups, no padding */
    {21, 18, 10, 24, 5, 5, 2, 2, 1, 2, 2, 1, 2, 0},  /* ... stride 2, groups */
    {31, 26, 3, 13, 7, 7, 2, 2, 3, 3, 3, 3, 1, 0},   /* ... three channels */
    {30, 27, 6, 9, 7, 7, 2, 2, 0, 6, 5, 0, 1, 1},    /* ... hardly a picture under its padding */
    {13, 13, 80, 48, 3, 3, 1, 1, 1, 1, 1, 1, 2, 0},  /* ... of few points: groups */
    {9, 11, 147, 45, 3, 3, 1, 1, 2, 0, 0, 1, 1, 1},  /* ... more than 128 channels, none of them in eights */
    {15, 15, 96, 80, 5, 5, 2, 2, 1, 1, 1, 1, 2, 0},  /* ... stride 2 */
    {14, 13, 75, 34, 5, 5, 2, 2, 2, 0, 1, 2, 1, 1},  /* ... and nothing in eights */
    {15, 14, 48, 28, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},  /* ... several blocks of tiles, a narrow last panel */
    {17, 17, 23, 33, 3, 3, 1, 1, 0, 1, 1, 0, 1, 1},  /* ... odd channels on both sides */
    {27, 29, 46, 40, 5, 5, 2, 2, 2, 1, 1, 2, 2, 0},  /* ... stride 2, odd channels in each group */
    {12, 16, 32, 16, 3, 3, 1, 1, 1, 1, 1, 1, 2, 0},  /* ... whole tiles alone */
    {45, 41, 3, 17, 7, 7, 2, 2, 3, 2, 1, 3, 1, 0},   /* ... three channels, stride 2 */
    {9, 8, 116, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},    /* ... sums as large as any */
};
#define FIXED_COUNT ((int32_t)(sizeof fixed_shapes / sizeof fixed_shapes[0]))

static void set(klaus_shape *s, const int32_t *f) {
    s->in_rows = f[0], s->in_cols = f[1], s->in_channels = f[2], s->out_channels = f[3];
    s->kernel_rows = f[4], s->kernel_cols = f[5], s->stride_rows = f[6], s->stride_cols = f[7];
    s->pad_top = f[8], s->pad_left = f[9], s->groups = f[12], s->has_addend = f[13] != 0;
    s->out_rows = (f[0] + f[8] + f[10] - f[4]) / f[6] + 1;
    s->out_cols = (f[1] + f[9] + f[11] - f[5]) / f[7] + 1;
    s->batch = 1;
}

static void random_shape(klaus_random *random, int32_t *f) {
    static const int32_t edges[] = {1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 16, 20, 23, 24, 25};
    const int32_t last_edge = (int32_t)(sizeof edges / sizeof edges[0]) - 1;
    const int32_t form = klaus_random_int(random, 0, 3);
    f[12] = form == 1 ? klaus_random_int(random, 2, 4) : 1;
    f[2] = f[12] * (form == 1 ? klaus_random_int(random, 1, 9) : edges[klaus_random_int(random, 0, last_edge)]);
    f[3] = f[12] * edges[klaus_random_int(random, 0, last_edge)];
    f[4] = f[5] = form == 2 ? 1 : klaus_random_int(random, 1, 5);
    if (form == 3) { /* depthwise */
        f[12] = f[3] = f[2];
        f[4] = f[5] = klaus_random_int(random, 0, 1) == 0 ? 3 : 5;
    }
    f[6] = f[7] = klaus_random_int(random, 0, 2) == 0 ? 2 : 1;
    if (klaus_random_int(random, 0, 7) == 0)
        f[7] = 3;
    for (int32_t side = 8; side < 12; side++)
        f[side] = klaus_random_int(random, 0, f[4] / 2 + 1);
    if (form == 2 && klaus_random_int(random, 0, 2) > 0) /* pointwise as networks have it */
        f[6] = f[7] = 1, f[8] = f[9] = f[10] = f[11] = 0;
    f[0] = f[4] + klaus_random_int(random, 0, 9);
    f[1] = f[5] + klaus_random_int(random, 0, 13);
    f[13] = klaus_random_int(random, 0, 3) == 0;
}

static void shape(int32_t index, klaus_random *random, klaus_shape *s) {
    int32_t facts[14];
    if (index >= FIXED_COUNT)
        random_shape(random, facts);
    set(s, index < FIXED_COUNT ? fixed_shapes[index] : facts);
    s->activation = (uint32_t)(index % 3);
    s->has_scale = index % 2 == 0;
    /* float weights for most of the fixed shapes, every kind for those for transforms and the others */
    klaus_check_set_weights(s, index < FIXED_COUNT - 16 ? 0 : index);
    if (index == FIXED_COUNT - 1) /* all weights the same, as large as int8 has them */
        klaus_check_set_weights(s, 9);
}

static double tolerance(const klaus_shape *s) {
    return klaus_check_sum_tolerance(klaus_shape_weights_per_row(s) + 2);
}

static bool bench(int32_t index, klaus_shape *s) {
    static const int32_t shapes[][14] = {
        {13, 13, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},
        {28, 28, 144, 144, 5, 5, 1, 1, 2, 2, 2, 2, 144, 0},
        {28, 28, 144, 144, 3, 3, 1, 1, 1, 1, 1, 1, 144, 0},
    };
    if (index >= (int32_t)(sizeof shapes / sizeof shapes[0]))
        return false;
    s->op = KLAUS_OP_CONV;
    set(s, shapes[index]);
    s->activation = KLAUS_RELU;
    s->weight_dtype = KLAUS_F32;
    return true;
}

const klaus_check_cases klaus_check_conv = {
    .op = KLAUS_OP_CONV,
    .count = FIXED_COUNT + 95,
    .rule = KLAUS_CHECK_TERMS,
    .shape = shape,
    .tolerance = tolerance,
    .bench = bench,
    .nan_defined = true,
};
