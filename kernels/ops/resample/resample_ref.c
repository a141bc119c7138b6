/* Resampling, scalar. Rules and their checks: ccv's input formation (area, cubic) and Pillow's bicubic. */
#include "ops/resample/resample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool sizes_are_sound(int32_t rows, int32_t cols, int32_t channels, int32_t result_rows, int32_t result_cols) {
    return rows > 0 && cols > 0 && result_rows > 0 && result_cols > 0 && rows <= KLAUS_RESAMPLE_SIDE &&
           cols <= KLAUS_RESAMPLE_SIDE && result_rows <= KLAUS_RESAMPLE_SIDE && result_cols <= KLAUS_RESAMPLE_SIDE &&
           channels > 0 && channels <= KLAUS_RESAMPLE_CHANNELS;
}

/* ---- area ---- */

/* Source cells first .. first + count - 1 with weights weight[0 .. count - 1] make one output cell. */
struct area_cell {
    int32_t first, count;
};

static int32_t area_most_cells(int32_t size, int32_t result_size) {
    return size / result_size + 3;
}

static void area_weights(int32_t size, int32_t result_size, struct area_cell *cells, float *weights) {
    const double step = (double)size / result_size;
    const int32_t stride = area_most_cells(size, result_size);
    for (int32_t d = 0; d < result_size; d++) {
        const double low = d * step, high = (d + 1) * step;
        int32_t last = (int32_t)ceil(high);
        cells[d].first = (int32_t)low;
        if (last > size)
            last = size;
        cells[d].count = last - cells[d].first;
        for (int32_t i = 0; i < cells[d].count; i++) {
            const double begin = cells[d].first + i, end = begin + 1;
            const double overlap = (end < high ? end : high) - (begin > low ? begin : low);
            weights[(size_t)d * (size_t)stride + (size_t)i] = (float)(overlap > 0 ? overlap / step : 0);
        }
    }
}

klaus_status klaus_resample_area(const uint8_t *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                 int32_t result_rows, int32_t result_cols) {
    if (!sizes_are_sound(rows, cols, channels, result_rows, result_cols) || result_rows > rows || result_cols > cols)
        return KLAUS_E_INPUT;
    const size_t row_stride = (size_t)area_most_cells(rows, result_rows);
    const size_t col_stride = (size_t)area_most_cells(cols, result_cols);
    struct area_cell *row_cells = malloc((size_t)result_rows * sizeof *row_cells);
    struct area_cell *col_cells = malloc((size_t)result_cols * sizeof *col_cells);
    float *row_weights = malloc((size_t)result_rows * row_stride * sizeof(float));
    float *col_weights = malloc((size_t)result_cols * col_stride * sizeof(float));
    klaus_status status = KLAUS_E_MEMORY;
    if (row_cells != NULL && col_cells != NULL && row_weights != NULL && col_weights != NULL) {
        area_weights(rows, result_rows, row_cells, row_weights);
        area_weights(cols, result_cols, col_cells, col_weights);
        const size_t result_row = (size_t)result_cols * (size_t)channels;
        for (int32_t i = 0; i < result_rows; i++) {
            float *out = result + (size_t)i * result_row;
            memset(out, 0, result_row * sizeof(float));
            for (int32_t y = 0; y < row_cells[i].count; y++) {
                const float row_weight = row_weights[(size_t)i * row_stride + (size_t)y];
                const uint8_t *in = source + (size_t)(row_cells[i].first + y) * (size_t)cols * (size_t)channels;
                for (int32_t j = 0; j < result_cols; j++) {
                    const float *weight = col_weights + (size_t)j * col_stride;
                    const uint8_t *cell = in + (size_t)col_cells[j].first * (size_t)channels;
                    for (int32_t c = 0; c < channels; c++) {
                        float sum = 0;
                        for (int32_t x = 0; x < col_cells[j].count; x++)
                            sum += weight[x] * (float)cell[(size_t)x * (size_t)channels + (size_t)c];
                        out[(size_t)j * (size_t)channels + (size_t)c] += row_weight * sum;
                    }
                }
            }
        }
        status = KLAUS_OK;
    }
    free(row_cells);
    free(col_cells);
    free(row_weights);
    free(col_weights);
    return status;
}

/* ---- ccv's cubic ---- */

struct cubic_taps {
    int32_t cell[4];
    float weight[4];
};

static int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

static void cubic_weights(int32_t size, int32_t result_size, struct cubic_taps *taps) {
    const double a = -0.75;
    for (int32_t d = 0; d < result_size; d++) {
        const double position = (d + 0.5) * size / result_size - 0.5;
        const int32_t base = (int32_t)position; /* toward zero: the fraction of the first cells is negative */
        const double x = position - base;
        taps[d].weight[0] = (float)(((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a);
        taps[d].weight[1] = (float)(((a + 2) * x - (a + 3)) * x * x + 1);
        taps[d].weight[2] = (float)(((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1);
        taps[d].weight[3] = 1.0f - taps[d].weight[0] - taps[d].weight[1] - taps[d].weight[2];
        for (int32_t t = 0; t < 4; t++)
            taps[d].cell[t] = clamp(base - 1 + t, 0, size - 1);
    }
}

/* One source row to result_cols; exactly one of bytes and floats is given. */
static void cubic_row(const uint8_t *bytes, const float *floats, int32_t channels, const struct cubic_taps *taps,
                      int32_t result_cols, float *row) {
    for (int32_t j = 0; j < result_cols; j++)
        for (int32_t c = 0; c < channels; c++) {
            float sum = 0;
            for (int32_t t = 0; t < 4; t++) {
                const size_t at = (size_t)taps[j].cell[t] * (size_t)channels + (size_t)c;
                sum += taps[j].weight[t] * (bytes != NULL ? (float)bytes[at] : floats[at]);
            }
            row[(size_t)j * (size_t)channels + (size_t)c] = sum;
        }
}

static klaus_status cubic(const uint8_t *bytes, const float *floats, int32_t rows, int32_t cols, int32_t channels,
                          float *result, int32_t result_rows, int32_t result_cols) {
    if (!sizes_are_sound(rows, cols, channels, result_rows, result_cols))
        return KLAUS_E_INPUT;
    const size_t source_row = (size_t)cols * (size_t)channels, result_row = (size_t)result_cols * (size_t)channels;
    struct cubic_taps *row_taps = malloc((size_t)result_rows * sizeof *row_taps);
    struct cubic_taps *col_taps = malloc((size_t)result_cols * sizeof *col_taps);
    float *ring = malloc(4 * result_row * sizeof(float)); /* source row r, columns done, stands in slot r % 4 */
    klaus_status status = KLAUS_E_MEMORY;
    if (row_taps != NULL && col_taps != NULL && ring != NULL) {
        int32_t held[4] = {-1, -1, -1, -1};
        cubic_weights(rows, result_rows, row_taps);
        cubic_weights(cols, result_cols, col_taps);
        for (int32_t i = 0; i < result_rows; i++) {
            const float *from[4];
            for (int32_t t = 0; t < 4; t++) {
                const int32_t r = row_taps[i].cell[t], slot = r % 4;
                if (held[slot] != r)
                    cubic_row(bytes != NULL ? bytes + (size_t)r * source_row : NULL,
                              floats != NULL ? floats + (size_t)r * source_row : NULL, channels, col_taps, result_cols,
                              ring + (size_t)slot * result_row);
                held[slot] = r;
                from[t] = ring + (size_t)slot * result_row;
            }
            const float *w = row_taps[i].weight;
            for (size_t x = 0; x < result_row; x++)
                result[(size_t)i * result_row + x] =
                    w[0] * from[0][x] + w[1] * from[1][x] + w[2] * from[2][x] + w[3] * from[3][x];
        }
        status = KLAUS_OK;
    }
    free(row_taps);
    free(col_taps);
    free(ring);
    return status;
}

klaus_status klaus_resample_cubic_u8(const uint8_t *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                     int32_t result_rows, int32_t result_cols) {
    return cubic(source, NULL, rows, cols, channels, result, result_rows, result_cols);
}

klaus_status klaus_resample_cubic_f32(const float *source, int32_t rows, int32_t cols, int32_t channels, float *result,
                                      int32_t result_rows, int32_t result_cols) {
    return cubic(NULL, source, rows, cols, channels, result, result_rows, result_cols);
}

/* ---- Pillow's bicubic ---- */

#define FIXED_BITS 22

struct filter_cell {
    int32_t first, count;
};

static double bicubic_filter(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double filter_support(int32_t size, int32_t result_size) {
    const double ratio = (double)size / result_size;
    return 2 * (ratio > 1 ? ratio : 1);
}

static size_t filter_most_cells(int32_t size, int32_t result_size) {
    return (size_t)ceil(filter_support(size, result_size)) * 2 + 1;
}

/* weights: result_size rows of filter_most_cells(); exact: as many doubles as one row. */
static void filter_weights(int32_t size, int32_t result_size, struct filter_cell *cells, int32_t *weights,
                           double *exact) {
    const double ratio = (double)size / result_size, support = filter_support(size, result_size);
    const double narrow = 2 / support;
    const size_t stride = filter_most_cells(size, result_size);
    for (int32_t d = 0; d < result_size; d++) {
        const double center = (d + 0.5) * ratio;
        int32_t first = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > size ? size : end;
        double sum = 0;
        for (int32_t i = first; i < end; i++) {
            exact[i - first] = bicubic_filter((i - center + 0.5) * narrow);
            sum += exact[i - first];
        }
        for (int32_t i = 0; i < end - first; i++) {
            const double scaled = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << FIXED_BITS);
            weights[(size_t)d * stride + (size_t)i] = (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
        }
        cells[d].first = first;
        cells[d].count = end - first;
    }
}

/* sum of weight[i] * from[i * stride], rounded and clamped to 8 bits */
static uint8_t filter_sum(const uint8_t *from, size_t stride, const int32_t *weight, int32_t count) {
    int64_t sum = 1 << (FIXED_BITS - 1);
    for (int32_t i = 0; i < count; i++)
        sum += (int64_t)weight[i] * from[(size_t)i * stride];
    sum >>= FIXED_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

uint64_t klaus_resample_bicubic_bytes(int32_t rows, int32_t channels, int32_t result_cols) {
    return (uint64_t)rows * (uint64_t)channels * (uint64_t)result_cols;
}

klaus_status klaus_resample_bicubic(const uint8_t *source, size_t row_bytes, int32_t rows, int32_t cols,
                                    int32_t channels, uint8_t *narrowed, float *result, int32_t result_rows,
                                    int32_t result_cols) {
    if (!sizes_are_sound(rows, cols, channels, result_rows, result_cols) || row_bytes < (size_t)cols * (size_t)channels)
        return KLAUS_E_INPUT;
    const size_t row_stride = filter_most_cells(rows, result_rows), col_stride = filter_most_cells(cols, result_cols);
    const size_t depth = (size_t)channels, result_row = (size_t)result_cols * depth;
    struct filter_cell *row_cells = malloc((size_t)result_rows * sizeof *row_cells);
    struct filter_cell *col_cells = malloc((size_t)result_cols * sizeof *col_cells);
    int32_t *row_weights = malloc((size_t)result_rows * row_stride * sizeof(int32_t));
    int32_t *col_weights = malloc((size_t)result_cols * col_stride * sizeof(int32_t));
    double *exact = malloc((row_stride > col_stride ? row_stride : col_stride) * sizeof(double));
    klaus_status status = KLAUS_E_MEMORY;
    if (row_cells != NULL && col_cells != NULL && row_weights != NULL && col_weights != NULL && exact != NULL) {
        filter_weights(rows, result_rows, row_cells, row_weights, exact);
        filter_weights(cols, result_cols, col_cells, col_weights, exact);
        for (size_t y = 0; y < (size_t)rows; y++)
            for (size_t j = 0; j < (size_t)result_cols; j++)
                for (size_t c = 0; c < depth; c++)
                    narrowed[y * result_row + j * depth + c] =
                        filter_sum(source + y * row_bytes + (size_t)col_cells[j].first * depth + c, depth,
                                   col_weights + j * col_stride, col_cells[j].count);
        for (size_t i = 0; i < (size_t)result_rows; i++)
            for (size_t x = 0; x < result_row; x++)
                result[i * result_row + x] =
                    (float)filter_sum(narrowed + (size_t)row_cells[i].first * result_row + x, result_row,
                                      row_weights + i * row_stride, row_cells[i].count);
        status = KLAUS_OK;
    }
    free(row_cells);
    free(col_cells);
    free(row_weights);
    free(col_weights);
    free(exact);
    return status;
}
