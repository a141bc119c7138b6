/* The planner: layers -> steps. plan.c makes the steps and places them in memory, plan_dtypes.c chooses their kernels
 * and the dtypes of their activations. */
#ifndef KLAUS_ENGINE_PLAN_H
#define KLAUS_ENGINE_PLAN_H
#include "engine/session.h"

#define KLAUS_PLAN_DTYPES 3 /* of activations */

/* What holds a layer's output so far: for each dtype the step that makes it, or KLAUS_PLAN_NOWHERE. */
#define KLAUS_PLAN_NOWHERE (-2)
typedef struct klaus_tensor {
    int32_t step[KLAUS_PLAN_DTYPES];
} klaus_tensor;

typedef struct klaus_planner {
    klaus_session *session;
    const klaus_model *model;
    klaus_steps *steps;
    klaus_extent *extents; /* [1 + layers of the plan]: the plan's input first */
    klaus_tensor *tensors; /* likewise */
    int32_t *uses;         /* [layers]: how many layers of the plan read it */
    int32_t *reader;       /* [layers]: the last that reads it */
    bool *done;            /* [layers]: part of a step already */
    int32_t room;          /* steps that there is memory for */
} klaus_planner;

static inline klaus_extent *klaus_plan_extent(const klaus_planner *plan, int32_t layer) {
    return &plan->extents[layer - plan->steps->request.first + 1];
}

static inline klaus_tensor *klaus_plan_tensor(const klaus_planner *plan, int32_t layer) {
    return &plan->tensors[layer - plan->steps->request.first + 1];
}

/* The input of a plan that starts behind layer 0 is the output of the layer before it. */
static inline int32_t klaus_plan_input(const klaus_planner *plan) {
    return plan->steps->request.first - 1;
}

/* Takes the next step's place; NULL with an error where there is none. */
klaus_step *klaus_plan_next(klaus_planner *plan, klaus_error *error);
void klaus_plan_size(const klaus_planner *plan, klaus_step *step);

/* ---- plan_dtypes.c ----
 *
 * Activations are of the session's precision wherever a kernel takes them so; an op without such a kernel runs in
 * float32, between casts. A plan's input and output are float32. */

/* The place of a dtype among KLAUS_PLAN_DTYPES. */
int32_t klaus_plan_dtype_index(uint32_t dtype);
/* Makes sure that a layer's output (or the plan's input) exists in `dtype`: by a cast, where it does not. */
klaus_status klaus_plan_need(klaus_planner *plan, int32_t layer, uint32_t dtype, int32_t *found, klaus_error *error);
/* The kernel for a step, in the session's precision if one can; `layers` are those that the step reads. */
bool klaus_plan_kernel(const klaus_planner *plan, klaus_step *step, const int32_t *layers);

#endif
