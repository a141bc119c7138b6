/* Layout ids: what a variant's pack() makes, one number a layout, for ever. A packed model may carry sections in these
 * layouts (KLAUS_SECTION_PACKED), so a number is never used again for another layout. */
#ifndef KLAUS_OPS_LAYOUTS_H
#define KLAUS_OPS_LAYOUTS_H

enum klaus_layout {
    /* 0 is KLAUS_CANONICAL_LAYOUT: no pack() */
    /* 1 was depthwise with scales of its own */
    KLAUS_LAYOUT_DEPTHWISE_F32 = 12,    /* float32 [tap][channel]: ops/depthwise/depthwise.h */
    KLAUS_LAYOUT_CONV_F32_PANELS_8 = 2, /* float32 panels of 8 output channels: ops/conv/conv_gemm.h */
    /* 3 was the same with panels of 12 */
    KLAUS_LAYOUT_CONV_F32_SCALED_12 = 20, /* ... of 12, the scale multiplied in: ops/conv/conv_packed.h */
    /* 4 and 5 were full connect's panels with all 8-bit indices */
    /* 6 and 7 were Winograd's panels with all weights transformed */
    KLAUS_LAYOUT_FULL_CONNECT_PANELS_8 = 8, /* panels of 8: ops/full_connect/full_connect_gemm.h */
    KLAUS_LAYOUT_FULL_CONNECT_PANELS_12 = 9,
    KLAUS_LAYOUT_WINOGRAD_F32_PANELS_8 = 10, /* ops/winograd/winograd.h */
    KLAUS_LAYOUT_WINOGRAD_F32_PANELS_12 = 11,
    KLAUS_LAYOUT_CONV_F16_PANELS_24 = 30,         /* halves, panels of 24: ops/gemm/gemm_f16.h */
    KLAUS_LAYOUT_DEPTHWISE_F16 = 31,              /* halves [tap][8 channels]: ops/depthwise/depthwise_f16.h */
    KLAUS_LAYOUT_FULL_CONNECT_F16_PANELS_16 = 32, /* panels of 16: ops/full_connect/full_connect_f16.h */
    KLAUS_LAYOUT_WINOGRAD_F16_PANELS_24 = 33,     /* halves, panels of 24: ops/winograd/winograd_f16.h */
    /* int8 by dot products */
    KLAUS_LAYOUT_CONV_I8_DOT_12 = 50,        /* ops/conv/conv_dot.h */
    KLAUS_LAYOUT_CONV_I8_EIGHTS_12 = 52,     /* likewise, for matrix multiplies */
    KLAUS_LAYOUT_FULL_CONNECT_I8_DOT_8 = 51, /* ops/full_connect/full_connect_dot.h */
    KLAUS_LAYOUT_DEPTHWISE_I8 = 60,          /* int8 [tap][channel]: ops/depthwise/depthwise_i8_neon64.c */
    KLAUS_LAYOUT_CONV_I8_PAIRS = 61,         /* ops/conv/conv_i8.h */
    KLAUS_LAYOUT_FULL_CONNECT_I8 = 63,       /* ops/full_connect/full_connect_i8_neon64.c */
    KLAUS_LAYOUT_WINOGRAD_I8 = 62,           /* ops/winograd/winograd_i8.h */
    KLAUS_LAYOUT_DEPTHWISE_I8_DOT = 64       /* ops/depthwise/depthwise_neon_dotprod.c */
};

#endif
