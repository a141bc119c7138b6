/* Where a convolution's inputs stand: the pointers that every matrix multiply reads from, one a tap and output pixel.
 *
 * Cells outside the picture are read from a row of zeros. Where the group has few channels (a network's first layer)
 * and there is one group, a whole kernel row is one tap, and the picture is copied into a padded one first. */
#ifndef KLAUS_OPS_CONV_CELLS_H
#define KLAUS_OPS_CONV_CELLS_H
#include "ops/op.h"

typedef struct klaus_conv_cells {
    bool joined;                  /* a tap is a kernel row */
    bool padded;                  /* the input is a padded copy in scratch */
    bool direct;                  /* pointwise: an output's pixel is its input's */
    int64_t rows, cols, channels; /* of what is read: the input or its padded copy */
    int32_t top, left;            /* padding that remains to be seen to while reading */
    int32_t taps, depth;
    int32_t group_channels, group_filters;
    uint64_t copy_bytes; /* of the padded copy, in floats' bytes; 0 where there is none */
} klaus_conv_cells;

klaus_conv_cells klaus_conv_cells_of(const klaus_shape *shape);

/* Rows part by part of the padded copy, which begins the call's scratch memory. */
void klaus_conv_pad(const klaus_call *call, const klaus_conv_cells *cells, int32_t part, int32_t parts);

/* The input pointers of `count` output pixels from `pixel` on, [taps][count]. */
void klaus_conv_point(const klaus_shape *shape, const klaus_conv_cells *cells, const float *input, const float *zeros,
                      int64_t pixel, int32_t count, const float **pointers);

#endif
