#include "engine/bands.h"

#include <string.h>

/* Maps smaller than this stay whole: cutting them would save little and decode weights more often. */
#define LARGE_BYTES (UINT64_C(1) << 20)
#define BANDS 16 /* about so many a chain */

/* ---- rows ---- */

static bool has_window(const klaus_shape *shape) {
    return shape->op == KLAUS_OP_CONV || shape->op == KLAUS_OP_MAX_POOL || shape->op == KLAUS_OP_AVERAGE_POOL;
}

/* Input rows *low .. *high - 1 are what output rows begin .. end - 1 look at, inside the picture. */
static void window_of(const klaus_shape *shape, int64_t begin, int64_t end, int32_t *low, int32_t *high) {
    int64_t first = begin, behind = end;
    if (has_window(shape)) {
        first = begin * shape->stride_rows - shape->pad_top;
        behind = (end - 1) * shape->stride_rows - shape->pad_top + shape->kernel_rows;
    }
    const int64_t rows = shape->in_rows;
    *low = (int32_t)(first < 0 ? 0 : first > rows ? rows : first);
    *high = (int32_t)(behind < 0 ? 0 : behind > rows ? rows : behind);
}

bool klaus_bands_next(const klaus_step *steps, klaus_bands *bands) {
    const int32_t last = steps->chain - 1;
    const int32_t rows = steps[last].shape.out_rows;
    if (bands->done[last] >= rows) {
        return false;
    }
    int32_t end[KLAUS_MOST_CHAIN];
    end[last] = rows - bands->done[last] < steps->band_rows ? rows : bands->done[last] + steps->band_rows;
    bands->drop[last] = 0;
    for (int32_t k = last; k > 0; k--) {
        end[k - 1] = bands->done[k - 1];
        bands->drop[k - 1] = 0;
        if (end[k] > bands->done[k]) {
            int32_t low = 0;
            int32_t high = 0;
            window_of(&steps[k].shape, bands->done[k], end[k], &low, &high);
            end[k - 1] = high > end[k - 1] ? high : end[k - 1];
            low = low < bands->done[k - 1] ? low : bands->done[k - 1];
            bands->drop[k - 1] = low > bands->base[k - 1] ? low - bands->base[k - 1] : 0;
        }
    }
    for (int32_t k = 0; k <= last; k++) {
        bands->begin[k] = bands->done[k];
        bands->done[k] = end[k];
        bands->base[k] += bands->drop[k];
    }
    return true;
}

klaus_shape klaus_band_shape(const klaus_step *step, int32_t begin, int32_t end, int32_t *first_row) {
    klaus_shape shape = step->shape;
    int32_t high = 0;
    window_of(&step->shape, begin, end, first_row, &high);
    shape.in_rows = high - *first_row;
    shape.out_rows = end - begin;
    if (has_window(&shape)) {
        shape.pad_top = (int32_t)(*first_row - ((int64_t)begin * shape.stride_rows - shape.pad_top));
    }
    return shape;
}

/* ---- plan ---- */

/* Whether a step may be cut into rows: each output is computed on its own, from a few rows of one map. */
static bool is_local(const klaus_step *step) {
    const klaus_shape *shape = &step->shape;
    return step->layer_count > 0 && shape->batch <= 1 && step->variant->spreads == 0 &&
           (has_window(shape) || shape->op == KLAUS_OP_LRN) && shape->in_rows > 0 && shape->out_rows > 0;
}

/* How many steps read the output of step `number`; *reader is the last of them. */
static int32_t readers_of(const klaus_steps *steps, int32_t number, int32_t *reader) {
    int32_t count = 0;
    for (int32_t s = number + 1; s < steps->step_count; s++) {
        for (int32_t i = 0; i < steps->steps[s].input_count; i++) {
            if (steps->steps[s].inputs[i] == number) {
                count++;
                *reader = s;
            }
        }
    }
    return count;
}

/* Steps that can run with step `first`, itself included. */
static int32_t chain_from(const klaus_steps *steps, int32_t first) {
    int32_t count = 1;
    int32_t reader = 0;
    while (count < KLAUS_MOST_CHAIN && is_local(&steps->steps[first + count - 1])) {
        const int32_t at = first + count - 1;
        const bool large = steps->steps[at].output_bytes >= LARGE_BYTES;
        if (!large || readers_of(steps, at, &reader) != 1 || reader != at + 1 || steps->steps[reader].inputs[0] != at ||
            !is_local(&steps->steps[reader])) {
            break;
        }
        count++;
    }
    return count;
}

/* Goes through all bands: sets what the steps hold and need; false where a kernel does not take a band. */
static bool measure_chain(const klaus_session *session, klaus_step *steps) {
    klaus_bands bands;
    int32_t held[KLAUS_MOST_CHAIN] = {0};
    uint64_t scratch[KLAUS_MOST_CHAIN] = {0};
    memset(&bands, 0, sizeof(bands));
    while (klaus_bands_next(steps, &bands)) {
        for (int32_t k = 0; k < steps->chain; k++) {
            const klaus_variant *variant = steps[k].variant;
            int32_t first_row = 0;
            if (bands.begin[k] == bands.done[k]) {
                continue;
            }
            const klaus_shape shape = klaus_band_shape(&steps[k], bands.begin[k], bands.done[k], &first_row);
            if (shape.in_rows < 1 || !variant->can(&shape) || variant->packed_bytes(&shape) != steps[k].packed_bytes) {
                return false;
            }
            const int32_t rows = bands.done[k] - bands.base[k];
            const uint64_t bytes = variant->scratch_bytes(&shape, klaus_pool_threads(session->pool));
            held[k] = rows > held[k] ? rows : held[k];
            scratch[k] = bytes > scratch[k] ? bytes : scratch[k];
        }
    }
    for (int32_t k = 0; k < steps->chain; k++) {
        steps[k].scratch_bytes = scratch[k];
        if (k < steps->chain - 1) {
            steps[k].held_rows = held[k];
            steps[k].output_bytes = (uint64_t)held[k] * klaus_row_bytes(&steps[k]);
        }
    }
    return true;
}

void klaus_bands_plan(const klaus_session *session, klaus_steps *steps) {
    for (int32_t s = 0; s < steps->step_count; s++) {
        steps->steps[s].chain = 1;
        steps->steps[s].held_rows = steps->steps[s].shape.out_rows;
    }
    if (session->options.memory != KLAUS_MEMORY_LEAN || !session->options.fused || steps->request.batch > 1) {
        return;
    }
    for (int32_t first = 0; first < steps->step_count;) {
        klaus_step *step = &steps->steps[first];
        for (step->chain = chain_from(steps, first); step->chain > 1; step->chain--) {
            const int32_t rows = step[step->chain - 1].shape.out_rows;
            step->band_rows = rows / BANDS < 2 ? 2 : (rows + BANDS - 1) / BANDS;
            if (measure_chain(session, step)) {
                break;
            }
        }
        for (int32_t k = 1; k < step->chain; k++) {
            step[k].chain = 0;
        }
        step->band_rows = step->chain > 1 ? step->band_rows : 0;
        first += step->chain;
    }
}
