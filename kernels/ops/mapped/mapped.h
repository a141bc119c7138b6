/* Weights straight from the rows of a packed model's canonical layout (klaus/format.h): no second copy of them is ever
 * made, only a few rows at a time become floats, in the order of a panel (ops/gemm/gemm.h). The rows stay where the
 * file has them, so that the system can take their memory back and the model is never in memory twice.
 *
 * Turning [channel][weight] into [weight][channel] is done on bytes, before indices become floats: that costs one
 * instruction in 16 more than a layout that was made for it. */
#ifndef KLAUS_OPS_MAPPED_H
#define KLAUS_OPS_MAPPED_H
#include "ops/op.h"

/* Rows of one layer, with its codebook in the form that look-ups need. */
typedef struct klaus_mapped {
    const uint8_t *values;
    size_t row_bytes;
    uint32_t dtype;     /* KLAUS_F32, KLAUS_F16, KLAUS_Q8, KLAUS_Q4, KLAUS_Q2 */
    bool halves;        /* of the codebook */
    uint8_t table[64];  /* 4 and 2 bits: bytes 0, 1, 2, 3 of 16 entries as rows of 16; of halves only 0 and 1 */
    float entries[256]; /* 8 bits */
} klaus_mapped;

/* Every dtype of weights that klaus_shape_has_known_weights() knows. */
void klaus_mapped_open(klaus_mapped *rows, const klaus_shape *shape, const klaus_weights *weights);

/* Weights begin .. begin + count - 1 of `channels` channels from `first` on to `to`, [count][width]. `begin` is a
 * multiple of 8, `width` of 4; places of channels that do not exist get the last one's weights. */
void klaus_mapped_read(const klaus_mapped *rows, int64_t first, int32_t channels, int32_t width, int64_t begin,
                       int64_t count, float *to);

/* Where weight `begin` of channel `channel` lies. */
const uint8_t *klaus_mapped_at(const klaus_mapped *rows, int64_t channel, int64_t begin);

#endif
