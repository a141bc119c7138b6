/* The packed model, NAME.klaus: the one place where its bytes are described.
 *
 * A little-endian file that is mapped and used in place. It starts with struct klaus_file_header; behind it
 * stand `section_count` structs klaus_section; behind them the sections, each at a multiple of
 * KLAUS_ALIGNMENT bytes, in any order, not overlapping, gaps filled with zeros. A reader trusts no byte of it.
 * This header is read by the C compiler and, its preprocessor lines apart, by cffi: it holds nothing else. */
#ifndef KLAUS_FORMAT_H
#define KLAUS_FORMAT_H
#include <stdint.h>

#define KLAUS_FORMAT_VERSION 1
#define KLAUS_ALIGNMENT 64
#define KLAUS_MAX_LAYERS 4096
#define KLAUS_MAX_INPUTS 8
#define KLAUS_MAX_DIMENSION 65536
#define KLAUS_NAME_BYTES 64
#define KLAUS_NETWORK_INPUT -1
#define KLAUS_NO_LAYER -1
#define KLAUS_CANONICAL_LAYOUT 0

enum klaus_section_kind {
    KLAUS_SECTION_NETWORK = 1, /* struct klaus_network, once */
    KLAUS_SECTION_LAYERS = 2,  /* struct klaus_layer[layer_count], once */
    KLAUS_SECTION_META = 3,    /* UTF-8 JSON object: name, source, licence, attribution, scheme, ..., once */
    KLAUS_SECTION_LABELS = 4,  /* UTF-8, one line "id<TAB>name<LF>" a class in the network's own order, 0 or 1 times */
    KLAUS_SECTION_MEAN = 5, /* float32[picture_rows][picture_cols][channels] subtracted from pictures, 0 or 1 times */
    KLAUS_SECTION_WEIGHTS = 6,    /* a layer's weights or codebook indices, see klaus_layer */
    KLAUS_SECTION_CODEBOOK = 7,   /* float16 or float32 [codebook_entries] of a layer */
    KLAUS_SECTION_SCALE = 8,      /* float32[output channels] of a layer: effective weight = stored weight * scale */
    KLAUS_SECTION_BIAS = 9,       /* float32[output channels] of a layer */
    KLAUS_SECTION_RANGES = 10,    /* struct klaus_range[1 + layer_count]: network input first, 0 or 1 times */
    KLAUS_SECTION_PACKED = 11,    /* a layer's weights in the layout that a kernel's pack() made, keyed by layout id */
    KLAUS_SECTION_CORRECTION = 12 /* float32[output channels] of a layer, 0 or 1 times: int8 adds it to the biases */
};

enum klaus_dtype {
    KLAUS_F32 = 1,
    KLAUS_F16 = 2,
    KLAUS_Q8 = 3, /* codebook indices, one a byte, at most 256 entries */
    KLAUS_Q4 = 4, /* two a byte, the earlier index in the low bits, at most 16 entries */
    KLAUS_Q2 = 5, /* four a byte, the earliest index in the lowest bits, at most 4 entries */
    KLAUS_I8 = 6
};

enum klaus_op {
    KLAUS_OP_CONV = 1, /* cross-correlation, zero padding; depthwise is groups == input channels */
    KLAUS_OP_FULL_CONNECT = 2,
    KLAUS_OP_MAX_POOL = 3,     /* over the cells inside the image only */
    KLAUS_OP_AVERAGE_POOL = 4, /* sum over the cells inside / number of cells inside */
    KLAUS_OP_GLOBAL_POOL = 5,  /* average over rows and columns */
    KLAUS_OP_LRN = 6,    /* x * (kappa + alpha * sum of squares)^-beta over channels c-size/2..c+size/2 of c's group */
    KLAUS_OP_ADD = 7,    /* two inputs of one shape */
    KLAUS_OP_CONCAT = 8, /* along channels */
    KLAUS_OP_SLICE = 9,  /* channels begin .. begin + channels - 1 */
    KLAUS_OP_SOFTMAX = 10,   /* over channels, maximum subtracted */
    KLAUS_OP_ACTIVATION = 11 /* the activation alone */
};

enum klaus_activation { KLAUS_LINEAR = 0, KLAUS_RELU = 1, KLAUS_RELU6 = 2 };

/* How a picture becomes the tensor that layer 0 reads. */
enum klaus_formation {
    KLAUS_FORMATION_TENSOR = 0, /* none: the network takes tensors only */
    KLAUS_FORMATION_CCV = 1,    /* ccv's input formation: area or cubic (a = -0.75), aspect kept, mean picture */
    KLAUS_FORMATION_CROP =
        2 /* central square crop, Pillow's antialiased bicubic (a = -0.5), mean and scale a channel */
};
enum klaus_channel_order { KLAUS_RGB = 0, KLAUS_BGR = 1 };

#define KLAUS_FLAG_SEEDED 1 /* weights from a seed: timing only, the answers mean nothing */

struct klaus_file_header { /* 64 bytes */
    uint8_t magic[8];      /* "KLAUSPM" and the byte 0x1a */
    uint32_t version;
    uint32_t header_bytes; /* sizeof(struct klaus_file_header) */
    uint64_t file_bytes;
    uint32_t section_count;
    uint32_t layer_count;
    uint8_t digest[32]; /* SHA-256 of all bytes behind this header; checked by `verify`, not when a model is opened */
};

struct klaus_section { /* 32 bytes */
    uint32_t kind;
    int32_t layer;   /* KLAUS_NO_LAYER for what belongs to the network */
    uint32_t layout; /* KLAUS_CANONICAL_LAYOUT except in KLAUS_SECTION_PACKED */
    uint32_t dtype;  /* enum klaus_dtype of arrays of numbers, else 0 */
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
};

struct klaus_network {            /* 128 bytes */
    int32_t rows, cols, channels; /* what layer 0 reads */
    int32_t outputs;              /* classes */
    uint32_t flags;
    uint32_t formation;
    int32_t picture_rows, picture_cols; /* CCV: what pictures are brought to (257 x 257) */
    int32_t crop_padding;               /* CROP: the crop is shorter side * rows / (rows + crop_padding), truncated */
    uint32_t channel_order;             /* of the tensor; pictures are RGB */
    int32_t scan_layer; /* CCV: last layer run once on the whole picture before patches are cut; else KLAUS_NO_LAYER */
    int32_t default_patches; /* 1 or 10 */
    float channel_mean[4];   /* tensor = (picture - channel_mean) * channel_scale, picture in 0..255 */
    float channel_scale[4];
    uint32_t reserved[12];
};

struct klaus_layer { /* 256 bytes */
    uint32_t op;
    uint32_t activation;
    int32_t input_count;
    int32_t inputs[8];                /* earlier layers, or KLAUS_NETWORK_INPUT */
    int32_t rows, cols, channels;     /* the layer's output for the nominal network input */
    int32_t kernel_rows, kernel_cols; /* conv and pools */
    int32_t stride_rows, stride_cols;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t groups;            /* conv, LRN: 1 or more */
    int32_t size;              /* LRN: window */
    float kappa, alpha, beta;  /* LRN */
    int32_t begin;             /* slice: first channel */
    uint32_t weight_dtype;     /* F32, F16, Q8, Q4, Q2; 0 where the op has no weights */
    uint32_t codebook_dtype;   /* F32 or F16 with Q8, Q4, Q2; else 0 */
    uint32_t codebook_entries; /* 1..256 */
    uint32_t reserved[17];
    uint8_t name[64]; /* UTF-8, zero-terminated */
};
/* Weights, canonical layout: one row per output channel, a row padded with zero bits to a whole byte.
 * conv row: [kernel row][kernel column][channel inside the group]; full connect row: input in HWC order.
 * Group g's filters are the g-th consecutive block of output channels. */

struct klaus_range { /* 16 bytes; activations seen while calibrating */
    float low, high;
    uint32_t method; /* 0 = not measured, 1 = minimum and maximum, 2 = percentile */
    uint32_t reserved;
};

/* A batch of pictures for `klaus-run classify`: struct klaus_batch_header, then `count` times
 * struct klaus_batch_picture, id_bytes bytes of UTF-8 id, rows * cols * 3 bytes of RGB; nothing between, nothing
 * behind. */
struct klaus_batch_header { /* 16 bytes */
    uint8_t magic[8];       /* "KLAUSBT" and the byte 0x1a */
    uint32_t version;       /* 1 */
    uint32_t count;
};
struct klaus_batch_picture { /* 12 bytes */
    uint32_t id_bytes;       /* 1..255 */
    uint32_t rows, cols;
};

#endif
