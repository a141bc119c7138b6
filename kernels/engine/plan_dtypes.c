#include "engine/plan.h"

#include <math.h>

#include "engine/fail.h"
#include "ops/shape.h"

static const uint32_t dtype_of[KLAUS_PLAN_DTYPES] = {KLAUS_F32, KLAUS_F16, KLAUS_I8};

int32_t klaus_plan_dtype_index(uint32_t dtype) {
    return dtype == KLAUS_I8 ? 2 : dtype == KLAUS_F16 ? 1 : 0;
}

static uint32_t wanted_dtype(const klaus_session *session) {
    return dtype_of[session->options.precision == KLAUS_INT8 ? 2 : session->options.precision == KLAUS_FP16 ? 1 : 0];
}

/* Scale and zero of a layer's output as int8, of the range it had while calibrating; 0 is a number of its own. */
static klaus_quantization quantization_of(const klaus_planner *plan, int32_t layer) {
    const klaus_model *model = plan->model;
    while (layer >= 0 && (model->layers[layer].op == KLAUS_OP_MAX_POOL || model->layers[layer].op == KLAUS_OP_SLICE)) {
        layer = model->layers[layer].inputs[0]; /* some of its input's numbers: nothing to round anew */
    }
    const struct klaus_range *range = &model->ranges[layer + 1];
    const float low = range->low < 0 ? range->low : 0;
    const float high = range->high > 0 ? range->high : 0;
    const float scale = (high - low) / 255;
    if (!(scale > 1e-30f)) {
        return (klaus_quantization){1, 0};
    }
    const float zero = rintf(-128 - low / scale);
    return (klaus_quantization){scale, zero < -128 ? -128 : zero > 127 ? 127 : (int32_t)zero};
}

klaus_status klaus_plan_need(klaus_planner *plan, int32_t layer, uint32_t dtype, int32_t *found, klaus_error *error) {
    klaus_tensor *held = klaus_plan_tensor(plan, layer);
    int32_t *place = &held->step[klaus_plan_dtype_index(dtype)];
    if (*place != KLAUS_PLAN_NOWHERE) {
        *found = *place;
        return KLAUS_OK;
    }
    int32_t from = klaus_plan_dtype_index(KLAUS_F32);
    for (int32_t i = 0; held->step[from] == KLAUS_PLAN_NOWHERE && i < KLAUS_PLAN_DTYPES; i++) {
        from = i;
    }
    if (dtype_of[from] != KLAUS_F32 && dtype != KLAUS_F32) {
        return klaus_fail(error, KLAUS_E_INTERNAL, "layer %d: half and int8 activations meet in one plan", layer);
    }
    klaus_step *step = klaus_plan_next(plan, error);
    if (step == NULL) {
        return KLAUS_E_MEMORY;
    }
    const klaus_extent *extent = klaus_plan_extent(plan, layer);
    const int32_t batch = plan->steps->request.batch;
    *step = (klaus_step){.first = layer, .last = layer, .input_count = 1, .inputs = {held->step[from]}};
    step->shape = (klaus_shape){.op = KLAUS_OP_CAST,
                                .batch = batch,
                                .in_rows = extent->rows,
                                .in_cols = extent->cols,
                                .in_channels = extent->channels,
                                .out_rows = extent->rows,
                                .out_cols = extent->cols,
                                .out_channels = extent->channels,
                                .input_count = 1,
                                .in_dtype = dtype_of[from],
                                .out_dtype = dtype};
    if (plan->session->options.precision == KLAUS_INT8) {
        step->shape.in_quantization[0] = step->shape.out_quantization = quantization_of(plan, layer);
    }
    step->variant = klaus_dispatch_choose(&step->shape, &plan->session->dispatch);
    if (step->variant == NULL) {
        return klaus_fail(error, KLAUS_E_INTERNAL, "layer %d: no cast in this build; see `klaus-run check --list`",
                          layer);
    }
    klaus_plan_size(plan, step);
    *found = *place = plan->steps->step_count++;
    return KLAUS_OK;
}

/* Whether a kernel does the step on activations of these dtypes; then it is chosen. */
static bool try_dtypes(const klaus_planner *plan, klaus_step *step, const int32_t *layers, uint32_t in, uint32_t out) {
    step->shape.in_dtype = in;
    step->shape.out_dtype = out;
    if (in == KLAUS_I8 || out == KLAUS_I8) {
        for (int32_t i = 0; i < step->input_count; i++) {
            step->shape.in_quantization[i] = quantization_of(plan, layers[i]);
        }
        step->shape.out_quantization = quantization_of(plan, step->last);
    }
    step->variant = klaus_dispatch_choose(&step->shape, &plan->session->dispatch);
    /* A reference in half or int8 is slower than float32's NEON: it is for where there is no NEON, or asked for. */
    const bool slow = in != out || in != KLAUS_F32;
    const bool better = klaus_cpu_has(klaus_cpu_here(), KLAUS_ISA_NEON) && plan->session->options.isa != KLAUS_ISA_REF;
    if (step->variant != NULL && slow && better && step->variant->isa == KLAUS_ISA_REF) {
        step->variant = NULL;
    }
    return step->variant != NULL;
}

bool klaus_plan_kernel(const klaus_planner *plan, klaus_step *step, const int32_t *layers) {
    const uint32_t wanted = wanted_dtype(plan->session);
    if (wanted != KLAUS_F32) {
        const bool from_caller = step->input_count == 1 && layers[0] == klaus_plan_input(plan);
        const bool to_caller = step->last == plan->steps->request.stop - 1;
        if ((to_caller && try_dtypes(plan, step, layers, wanted, KLAUS_F32)) ||
            (from_caller && try_dtypes(plan, step, layers, KLAUS_F32, wanted)) ||
            try_dtypes(plan, step, layers, wanted, wanted)) {
            return true;
        }
    }
    return try_dtypes(plan, step, layers, KLAUS_F32, KLAUS_F32);
}
