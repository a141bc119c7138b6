#include "ops/layouts.h"
#include "ops/shape.h"
#include "ops/winograd/winograd_i8.h"

static uint64_t scratch_bytes(const klaus_shape *s, int32_t parts) {
    const klaus_winograd_i8 g = klaus_winograd_i8_of(s);
    return g.copy_bytes + g.inputs_bytes + (uint64_t)parts * (g.sums_bytes + g.weights_bytes);
}

static void multiply_all(const klaus_call *call, const klaus_winograd_i8 *g, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const klaus_int8_target finish = klaus_int8_target_of(s);
    uint8_t *own = (uint8_t *)call->scratch +
                   (size_t)(g->copy_bytes + g->inputs_bytes + (uint64_t)part * (g->sums_bytes + g->weights_bytes));
    int32_t *sums = (int32_t *)(void *)own;
    int16_t *transformed = (int16_t *)(void *)(own + (size_t)g->sums_bytes);
    int64_t begin, end, held = -1; /* the panel whose weights are `transformed` */
    klaus_share((int64_t)s->groups * g->panels * g->blocks, 1, part, parts, &begin, &end);
    klaus_winograd_i8_target to = {.shape = s, .g = g, .finish = &finish};
    for (int64_t item = begin; item < end; item++) { /* a panel's blocks one after another: its weights stay near */
        const int32_t block = (int32_t)(item % g->blocks), group = (int32_t)(item / g->blocks / g->panels);
        const klaus_winograd_i8_panel p =
            klaus_winograd_i8_panel_at(call->packed, g, group, (int32_t)(item / g->blocks % g->panels));
        const int32_t tiles = g->tiles - block * KLAUS_WINOGRAD_I8_TILES < KLAUS_WINOGRAD_I8_TILES
                                  ? g->tiles - block * KLAUS_WINOGRAD_I8_TILES
                                  : KLAUS_WINOGRAD_I8_TILES;
        const int64_t channel = (int64_t)group * g->filters + p.first;
        if (held != item / g->blocks) {
            held = item / g->blocks;
            to.output = (int8_t *)call->output + channel;
            to.addend = s->has_addend ? (const int8_t *)call->input[1] + channel : NULL;
            to.count = p.count;
            klaus_int8_head(call, channel, p.count, p.width, p.steps, to.multiplier, to.offset);
            if (g->fresh && p.exact[0] != 0)
                klaus_winograd_i8_weights(g, &p, transformed);
        }
        if (p.exact[0] != 0) {
            const klaus_winograd_i8_product product = {
                .g = g,
                .inputs = klaus_winograd_i8_inputs_of(call, g, (int64_t)group * g->blocks + block),
                .weights = g->fresh ? transformed : p.weights,
                .sums = sums};
            klaus_winograd_i8_multiply(&product, tiles, p.width);
        }
        klaus_winograd_i8_finish(&to, &p, sums, block, tiles, (const int8_t *)call->scratch + group * g->channels);
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_winograd_i8 g = klaus_winograd_i8_of(call->shape);
    if (phase == 0)
        klaus_winograd_i8_copy(call, &g, part, parts);
    else if (phase == 1)
        klaus_winograd_i8_inputs(call, &g, part, parts);
    else
        multiply_all(call, &g, part, parts);
}

const klaus_variant klaus_winograd_i8_neon_7x12 = {
    .name = "klaus_winograd_i8_neon_7x12",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_WINOGRAD_I8,
    .phases = 3,
    .can = klaus_winograd_i8_can,
    .packed_bytes = klaus_winograd_i8_packed_bytes,
    .pack = klaus_winograd_i8_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
