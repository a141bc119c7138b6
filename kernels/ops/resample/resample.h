/* Changing a picture's size, as the networks' authors did it. Plain functions: they run once a picture.
 *
 * Pictures are dense HWC with 1 .. KLAUS_RESAMPLE_CHANNELS channels. All return KLAUS_OK, KLAUS_E_INPUT for sizes out
 * of range, or KLAUS_E_MEMORY for want of a few rows of temporary storage; nothing is written then. */
#ifndef KLAUS_OPS_RESAMPLE_H
#define KLAUS_OPS_RESAMPLE_H
#include <stddef.h>
#include <stdint.h>

#include "klaus/klaus.h"

#define KLAUS_RESAMPLE_CHANNELS 4
#define KLAUS_RESAMPLE_SIDE 65536 /* longest side, before and after */

/* ccv's area rule, for making smaller: an output cell is the mean of the source area it covers, parts of cells counted
 * by their overlap. Values stay in the source's 0..255. */
klaus_status klaus_resample_area(const uint8_t *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                 int32_t result_rows, int32_t result_cols);

/* ccv's cubic rule (a = -0.75, four taps whatever the ratio, clamped to the picture at its edges, base cell truncated
 * toward zero); results are not clamped to 0..255. */
klaus_status klaus_resample_cubic_u8(const uint8_t *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                     int32_t result_rows, int32_t result_cols);
klaus_status klaus_resample_cubic_f32(const float *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                      int32_t result_rows, int32_t result_cols);

/* Pillow's BICUBIC (a = -0.5, widened by the ratio when making smaller, fixed-point weights of 22 bits, columns first,
 * each pass rounded and clamped to 8 bits): klaus_runtime/images.py does the same, so results are whole numbers 0..255.
 * Equal bit for bit to Pillow's resize((result_cols, rows)) followed by resize((result_cols, result_rows)); a single
 * resize() is the same for square pictures, but takes rows first for some others (Pillow 13).
 * Source rows are row_bytes apart, so that a crop is resampled in place. `narrowed` is room for what lies between the
 * two passes, klaus_resample_bicubic_bytes(): the caller's, as it may be more than there is memory. */
uint64_t klaus_resample_bicubic_bytes(int32_t rows, int32_t channels, int32_t result_cols);
klaus_status klaus_resample_bicubic(const uint8_t *source, size_t row_bytes, int32_t rows, int32_t cols,
                                    int32_t channels, uint8_t *narrowed, float *result, int32_t result_rows,
                                    int32_t result_cols);

#endif
