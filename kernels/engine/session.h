/* A session: one model made ready to run with given options. Internal to the engine. */
#ifndef KLAUS_ENGINE_SESSION_H
#define KLAUS_ENGINE_SESSION_H
#include "dispatch.h"
#include "engine/memory.h"
#include "engine/model.h"
#include "engine/threads.h"
#include "os/os.h"

#define KLAUS_PATCHES 10
#define KLAUS_SCAN_PLANS 4 /* sizes of pictures for which a plan is kept */

/* A layer's weights as one layout has them, packed by this session. */
typedef struct klaus_packed_weights {
    struct klaus_packed_weights *next;
    const klaus_variant *variant;
    uint64_t size;
    klaus_buffer memory;
} klaus_packed_weights;

#define KLAUS_PLAN_INPUT (-1) /* in place of a step: what the caller gives */
#define KLAUS_PLAN_NONE (-2)  /* no step */

/* One call of one kernel. */
typedef struct klaus_step {
    const klaus_variant *variant;
    klaus_shape shape;
    int32_t first, last; /* layers: the one whose weights are used, the one whose output this is */
    int32_t layers[3];   /* all that the step does; a cast does none */
    int32_t layer_count;
    int32_t inputs[KLAUS_MAX_INPUTS]; /* steps whose outputs it reads, or KLAUS_PLAN_INPUT */
    int32_t input_count;
    const void *packed;
    uint64_t packed_bytes, scratch_bytes;
    uint64_t output_offset, output_bytes; /* in the arena; the last step's output is the caller's */
    int32_t chain;     /* steps from this one on that run band by band: 1 alone, 0 in the chain of another */
    int32_t band_rows; /* of a chain's first step: output rows of its last step a band */
    int32_t held_rows; /* rows of the output that stand in memory at once */
    int32_t in_place;  /* the step in whose output this one's stands, or KLAUS_PLAN_NONE */
} klaus_step;

/* Layers first .. stop - 1 for an input of one size. */
typedef struct klaus_plan_request {
    int32_t first, stop;
    klaus_extent input;
    int32_t batch; /* inputs at once */
} klaus_plan_request;

typedef struct klaus_steps {
    klaus_plan_request request;
    klaus_extent output;
    klaus_step *steps;
    int32_t step_count;
    uint64_t scratch_bytes;
} klaus_steps;

struct klaus_session {
    const klaus_model *model;
    klaus_options options;
    klaus_dispatch_options dispatch;
    klaus_pool *pool;
    klaus_packed_weights **packed; /* [layer_count], lists */
    uint64_t *layer_ns;            /* [layer_count], of the last run */
    bool watching;                 /* during the first run, where the options ask for it */
    uint64_t anonymous_bytes;      /* the most that it saw */
    klaus_steps *whole;            /* all layers, nominal input */
    klaus_steps *scan[KLAUS_SCAN_PLANS], *patch, *tail;
    int32_t next_scan;
    klaus_buffer arena, scratch;
    klaus_buffer logits, formed, narrowed, tensor, mean, map, slices, rows;
    klaus_buffer shown;             /* a layer's output as float32, for a sink */
    klaus_extent mean_extent;       /* what `mean` was resampled to */
    const klaus_counters *counters; /* NULL: layers are not counted */
    uint64_t *layer_instructions;   /* [layer_count], the caller's; a run adds to it */
};

/* Chooses variants, packs weights that are not packed yet, plans memory. `stop` > `first`. */
klaus_status klaus_steps_make(klaus_session *session, const klaus_plan_request *request, klaus_steps **steps,
                              klaus_error *error);
void klaus_steps_free(klaus_steps *steps);

/* Runs the steps; input and output are float32 in every precision, `output` takes the last layer's output for all of
 * the batch. Adds to session->layer_ns. Where `sink` is given it sees every layer's output; returns false if it stopped
 * the run. */
bool klaus_steps_run(klaus_session *session, const klaus_steps *steps, const float *input, float *output,
                     klaus_layer_sink sink, void *user);

/* Plans ten patches of a picture of the network's own size, where it has patches: its kernels are those of all sizes
 * near it. A session that classifies does so by itself. */
klaus_status klaus_plan_patches(klaus_session *session, klaus_error *error);

/* Softmax of `rows` rows of the network's outputs, in place, unless the network ends in one; refuses numbers that are
 * not finite. */
klaus_status klaus_finish_rows(const klaus_session *session, float *values, int32_t rows, klaus_error *error);

#endif
