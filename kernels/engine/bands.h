/* Chains of steps that run band by band, so that the large maps between them never stand in memory whole.
 *
 * Each step of a chain reads the one before it. A band is some output rows of the last step; what rows of the others it
 * needs follows from their windows. Rows that the next band needs again are kept, so nothing is computed twice, and as
 * kernels of a chain compute each output on its own, results are those of whole maps to the bit. */
#ifndef KLAUS_ENGINE_BANDS_H
#define KLAUS_ENGINE_BANDS_H
#include "engine/session.h"
#include "ops/shape.h"

#define KLAUS_MOST_CHAIN 6

/* How far each step of a chain is: its output's rows base .. done - 1 stand in memory. */
typedef struct klaus_bands {
    int32_t base[KLAUS_MOST_CHAIN], done[KLAUS_MOST_CHAIN];
    /* The band at hand: rows begin .. done - 1 are to be computed, the first `drop` rows are needed no more. */
    int32_t begin[KLAUS_MOST_CHAIN], drop[KLAUS_MOST_CHAIN];
} klaus_bands;

/* The next band of the chain that begins with `steps`; false where there is none. Begin with all zeros. */
bool klaus_bands_next(const klaus_step *steps, klaus_bands *bands);

/* A step's call for output rows begin .. end - 1: `first_row` is the input row that it reads first. */
klaus_shape klaus_band_shape(const klaus_step *step, int32_t begin, int32_t end, int32_t *first_row);

/* Finds chains, for a plan of one input at a time, and sets chain, band_rows, held_rows, output_bytes and scratch_bytes
 * of their steps. */
void klaus_bands_plan(const klaus_session *session, klaus_steps *steps);

static inline uint64_t klaus_row_bytes(const klaus_step *step) {
    return (uint64_t)klaus_shape_output_count(&step->shape) * klaus_dtype_bytes(step->shape.out_dtype) /
           (uint64_t)klaus_at_least_one(step->shape.out_rows);
}

#endif
