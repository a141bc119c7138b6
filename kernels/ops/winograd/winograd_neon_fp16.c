/* Winograd's convolution of halves: products of eight tiles times 24 channels, 24 sums, and the way back. */
#include <string.h>

#include "ops/layouts.h"
#include "ops/neon.h"
#include "ops/neon_fp16.h"
#include "ops/shape.h"
#include "ops/winograd/winograd_f16.h"

#define POINTS KLAUS_WINOGRAD_F16_POINTS
#define POSITIONS KLAUS_WINOGRAD_F16_POSITIONS
#define TILES KLAUS_WINOGRAD_F16_TILES
#define WIDTH KLAUS_WINOGRAD_F16_WIDTH
#define VECTORS (WIDTH / 8)

/* ---- products ---- */

typedef struct product {
    const int32_t *depths;   /* [positions] */
    const uint16_t *inputs;  /* [position][depth][8 tiles] */
    const uint16_t *weights; /* [position][depth][width] */
    float *sums;             /* [position][tile][width] */
} product;

typedef struct sums_of {
    float16x8_t at[TILES][VECTORS];
} sums_of;

/* Three vectors that lie side by side, by one instruction that advances its pointer as well; always in the same
 * registers, or the compiler moves the sums about. */
static inline void load_3(float16x8_t *to, const uint16_t **from) {
    register float16x8_t first __asm__("v29");
    register float16x8_t second __asm__("v30");
    register float16x8_t third __asm__("v31");
    __asm__ volatile("ld1 {%0.8h, %1.8h, %2.8h}, [%3], #48"
                     : "=w"(first), "=w"(second), "=w"(third), "+r"(*from)
                     :
                     : "memory");
    to[0] = first;
    to[1] = second;
    to[2] = third;
}

__attribute__((always_inline)) static inline void step(sums_of *sums, const uint16_t *inputs, const uint16_t **weights,
                                                       const int tiles, const int vectors) {
    float16x8_t w[VECTORS];
    const float16x8_t x = klaus_load_8h(inputs);
    if (vectors == 3)
        load_3(w, weights);
    else
        for (int v = 0; v < vectors; v++, *weights += 8)
            w[v] = klaus_load_8h(*weights);
    KLAUS_UNROLL_ALL for (int t = 0; t < tiles; t++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) sums->at[t][v] =
        klaus_fma_lane_8h(sums->at[t][v], w[v], x, t);
}

/* `tiles` and `vectors` (width / 8) are constants where it is inlined. */
__attribute__((always_inline)) static inline void multiply(const product *p, const int tiles, const int vectors) {
    const uint16_t *inputs = p->inputs, *weights = p->weights;
    float *sums_at = p->sums;
    for (int position = 0; position < POSITIONS; position++, sums_at += tiles * 8 * vectors) {
        int32_t rest = p->depths[position];
        bool begun = false;
        while (rest > 0) {
            sums_of sums;
            KLAUS_UNROLL_ALL for (int t = 0; t < tiles; t++) KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++)
                sums.at[t][v] = klaus_zero_8h();
            int32_t depth = rest < KLAUS_HALF_TERMS ? rest : KLAUS_HALF_TERMS;
            rest -= depth;
            for (; depth >= 4; depth -= 4, inputs += 4 * TILES) {
                step(&sums, inputs, &weights, tiles, vectors);
                klaus_step_ends();
                step(&sums, inputs + TILES, &weights, tiles, vectors);
                klaus_step_ends();
                step(&sums, inputs + 2 * TILES, &weights, tiles, vectors);
                klaus_step_ends();
                step(&sums, inputs + 3 * TILES, &weights, tiles, vectors);
                klaus_step_ends();
            }
#pragma clang loop unroll(disable) vectorize(disable)
            for (; depth > 0; depth--, inputs += TILES)
                step(&sums, inputs, &weights, tiles, vectors);
            float *to = sums_at;
            KLAUS_UNROLL_ALL for (int t = 0; t < tiles; t++)
                KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++, to += 8) {
                float32x4_t low = klaus_low_4s(sums.at[t][v]), high = klaus_high_4s(sums.at[t][v]);
                if (begun) {
                    low = vaddq_f32(low, vld1q_f32(to));
                    high = vaddq_f32(high, vld1q_f32(to + 4));
                }
                vst1q_f32(to, low);
                vst1q_f32(to + 4, high);
            }
            begun = true;
        }
    }
}

static void multiply_1x8(const product *p) {
    multiply(p, 1, 1);
}

static void multiply_2x8(const product *p) {
    multiply(p, 2, 1);
}

static void multiply_3x8(const product *p) {
    multiply(p, 3, 1);
}

static void multiply_4x8(const product *p) {
    multiply(p, 4, 1);
}

static void multiply_5x8(const product *p) {
    multiply(p, 5, 1);
}

static void multiply_6x8(const product *p) {
    multiply(p, 6, 1);
}

static void multiply_7x8(const product *p) {
    multiply(p, 7, 1);
}

static void multiply_8x8(const product *p) {
    multiply(p, 8, 1);
}

static void multiply_1x16(const product *p) {
    multiply(p, 1, 2);
}

static void multiply_2x16(const product *p) {
    multiply(p, 2, 2);
}

static void multiply_3x16(const product *p) {
    multiply(p, 3, 2);
}

static void multiply_4x16(const product *p) {
    multiply(p, 4, 2);
}

static void multiply_5x16(const product *p) {
    multiply(p, 5, 2);
}

static void multiply_6x16(const product *p) {
    multiply(p, 6, 2);
}

static void multiply_7x16(const product *p) {
    multiply(p, 7, 2);
}

static void multiply_8x16(const product *p) {
    multiply(p, 8, 2);
}

static void multiply_1x24(const product *p) {
    multiply(p, 1, 3);
}

static void multiply_2x24(const product *p) {
    multiply(p, 2, 3);
}

static void multiply_3x24(const product *p) {
    multiply(p, 3, 3);
}

static void multiply_4x24(const product *p) {
    multiply(p, 4, 3);
}

static void multiply_5x24(const product *p) {
    multiply(p, 5, 3);
}

static void multiply_6x24(const product *p) {
    multiply(p, 6, 3);
}

static void multiply_7x24(const product *p) {
    multiply(p, 7, 3);
}

static void multiply_8x24(const product *p) {
    multiply(p, 8, 3);
}

/* ---- the way back ---- */

/* Four sums in a line to two outputs. */
__attribute__((always_inline)) static inline void back(const float32x4_t *m, float32x4_t *to, const int to_step) {
    to[0] = vaddq_f32(vaddq_f32(m[0], m[1]), m[2]);
    to[to_step] = vaddq_f32(vsubq_f32(m[1], m[2]), m[3]);
}

/* What belongs to one panel. */
typedef struct target {
    const klaus_shape *shape;
    const klaus_winograd_f16 *w;
    uint16_t *output; /* of the panel's first channel; NULL where results are float32 */
    const uint16_t *addend;
    float *floats; /* likewise, where they are */
    const float *float_addend;
    const float *scale, *bias;
    klaus_limits_8h limits;
    klaus_limits float_limits;
    int32_t outputs; /* channels that exist */
} target;

/* An output at the edge of the channels, or with an addend. */
__attribute__((noinline)) static void store_some(const target *to, float32x4_t low, float32x4_t high, int64_t at,
                                                 size_t count) {
    uint16_t some[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (to->addend != NULL) {
        memcpy(some, to->addend + at, count * 2);
        low = vaddq_f32(low, klaus_low_4s(klaus_load_8h(some)));
        high = vaddq_f32(high, klaus_high_4s(klaus_load_8h(some)));
    }
    klaus_store_8h(some, klaus_limit_8h(klaus_narrow_8h(low, high), to->limits));
    memcpy(to->output + at, some, count * 2);
}

/* Up to eight float32 results. */
__attribute__((noinline)) static void store_floats(const target *to, float32x4_t low, float32x4_t high, int64_t at,
                                                   size_t count) {
    float some[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (to->float_addend != NULL) {
        memcpy(some, to->float_addend + at, count * sizeof(float));
        low = vaddq_f32(low, vld1q_f32(some));
        high = vaddq_f32(high, vld1q_f32(some + 4));
    }
    vst1q_f32(some, klaus_limit(low, to->float_limits));
    vst1q_f32(some + 4, klaus_limit(high, to->float_limits));
    memcpy(to->floats + at, some, count * sizeof(float));
}

/* Four channels of one tile, [2][2]; sums[position * step]. */
__attribute__((always_inline)) static inline void outputs_of(const float *sums, int64_t step, float32x4_t scale,
                                                             float32x4_t bias, float32x4_t *to) {
    float32x4_t half[2 * POINTS];
    KLAUS_UNROLL_ALL for (int j = 0; j < POINTS; j++) {
        float32x4_t line[POINTS];
        KLAUS_UNROLL_ALL for (int i = 0; i < POINTS; i++) line[i] = vld1q_f32(sums + (i * POINTS + j) * step);
        back(line, half + j, POINTS);
    }
    KLAUS_UNROLL_ALL for (int i = 0; i < 2; i++) back(half + i * POINTS, to + 2 * i, 1);
    KLAUS_UNROLL_ALL for (int n = 0; n < 4; n++) to[n] = vfmaq_f32(bias, to[n], scale);
}

/* Eight channels of one tile. */
__attribute__((noinline)) static void finish(const target *to, const float *sums, int64_t step, int32_t tile,
                                             int32_t channel) {
    const klaus_shape *s = to->shape;
    float32x4_t low[4], high[4];
    outputs_of(sums, step, vld1q_f32(to->scale + channel), vld1q_f32(to->bias + channel), low);
    outputs_of(sums + 4, step, vld1q_f32(to->scale + channel + 4), vld1q_f32(to->bias + channel + 4), high);
    const int32_t top = tile / to->w->tile_cols * 2, left = tile % to->w->tile_cols * 2;
    const bool two_rows = top + 1 < s->out_rows, two_cols = left + 1 < s->out_cols;
    const int32_t count = to->outputs - channel;
    const int64_t at = ((int64_t)top * s->out_cols + left) * s->out_channels + channel;
    const bool plain = two_rows && two_cols && count >= 8 && to->addend == NULL && to->output != NULL;
    KLAUS_UNROLL_ALL for (int n = 0; n < 4; n++) {
        const int64_t place = at + ((n / 2) * (int64_t)s->out_cols + n % 2) * s->out_channels;
        if (plain)
            klaus_store_8h(to->output + place, klaus_limit_8h(klaus_narrow_8h(low[n], high[n]), to->limits));
        else if ((n < 2 || two_rows) && (n % 2 == 0 || two_cols))
            (to->output != NULL ? store_some : store_floats)(to, low[n], high[n], place, count < 8 ? (size_t)count : 8);
    }
}

/* ---- the work ---- */

static uint64_t inputs_bytes(const klaus_shape *s, const klaus_winograd_f16 *w) {
    return klaus_aligned((uint64_t)((int64_t)s->groups * w->blocks * w->depth) * TILES * 2);
}

#define SUMS_BYTES (POSITIONS * TILES * WIDTH * sizeof(float))

static uint64_t scratch_bytes(const klaus_shape *shape, int32_t parts) {
    const klaus_winograd_f16 w = klaus_winograd_f16_of(shape);
    return inputs_bytes(shape, &w) + (uint64_t)parts * SUMS_BYTES;
}

static void multiply_all(const klaus_call *call, const klaus_winograd_f16 *w, int32_t part, int32_t parts) {
    static void (*const all[VECTORS][TILES])(const product *) = {
        {multiply_1x8, multiply_2x8, multiply_3x8, multiply_4x8, multiply_5x8, multiply_6x8, multiply_7x8,
         multiply_8x8},
        {multiply_1x16, multiply_2x16, multiply_3x16, multiply_4x16, multiply_5x16, multiply_6x16, multiply_7x16,
         multiply_8x16},
        {multiply_1x24, multiply_2x24, multiply_3x24, multiply_4x24, multiply_5x24, multiply_6x24, multiply_7x24,
         multiply_8x24},
    };
    const klaus_shape *s = call->shape;
    const int32_t panels = (w->filters + WIDTH - 1) / WIDTH;
    const size_t wide = klaus_winograd_f16_panel_bytes(w, WIDTH);
    const size_t group_bytes = klaus_winograd_f16_panel_bytes(w, (w->filters + 7) / 8 * 8);
    float *sums =
        (float *)(void *)((uint8_t *)call->scratch + (size_t)(inputs_bytes(s, w) + (uint64_t)part * SUMS_BYTES));
    int32_t depths[POSITIONS];
    for (int32_t i = 0; i < POINTS; i++)
        for (int32_t j = 0; j < POINTS; j++)
            depths[i * POINTS + j] = klaus_winograd_f16_depth(w, i, j);
    int64_t begin, end;
    klaus_share((int64_t)s->groups * panels * w->blocks, 1, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) { /* a panel's blocks one after another: its weights stay near */
        const int32_t block = (int32_t)(item % w->blocks), panel = (int32_t)(item / w->blocks % panels);
        const int32_t group = (int32_t)(item / w->blocks / panels), first = panel * WIDTH;
        const int32_t first_tile = block * w->block_tiles;
        const int32_t tiles = w->tiles - first_tile < w->block_tiles ? w->tiles - first_tile : w->block_tiles;
        const int32_t width = klaus_winograd_f16_panel_width(w, first);
        const float *head = (const float *)(const void *)((const uint8_t *)call->packed + (size_t)group * group_bytes +
                                                          (size_t)panel * wide);
        const product p = {
            .depths = depths,
            .inputs = (const uint16_t *)call->scratch + ((int64_t)group * w->blocks + block) * w->depth * TILES,
            .weights = (const uint16_t *)(const void *)(head + 2 * width),
            .sums = sums,
        };
        all[width / 8 - 1][tiles - 1](&p);
        const int64_t channel = (int64_t)group * w->filters + first;
        const bool halves = s->out_dtype == KLAUS_F16;
        target to = {.shape = s,
                     .w = w,
                     .output = halves ? (uint16_t *)call->output + channel : NULL,
                     .addend = s->has_addend && halves ? (const uint16_t *)call->input[1] + channel : NULL,
                     .floats = halves ? NULL : (float *)call->output + channel,
                     .float_addend = s->has_addend && !halves ? (const float *)call->input[1] + channel : NULL,
                     .scale = head,
                     .bias = head + width,
                     .limits = klaus_activation_limits_8h(s->activation),
                     .float_limits = klaus_activation_limits(s->activation)};
        to.outputs = w->filters - first < width ? w->filters - first : width;
        for (int32_t t = 0; t < tiles; t++)
            for (int32_t c = 0; c < to.outputs; c += 8)
                finish(&to, sums + (int64_t)t * width + c, (int64_t)tiles * width, first_tile + t, c);
    }
}

static void run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_winograd_f16 w = klaus_winograd_f16_of(call->shape);
    if (phase == 0)
        klaus_winograd_f16_inputs(call, &w, part, parts);
    else
        multiply_all(call, &w, part, parts);
}

const klaus_variant klaus_winograd_f16_neon_fp16_8x24 = {
    .name = "klaus_winograd_f16_neon_fp16_8x24",
    .op = KLAUS_OP_CONV,
    .isa = KLAUS_ISA_NEON_FP16,
    .core = KLAUS_CORE_ANY,
    .layout = KLAUS_LAYOUT_WINOGRAD_F16_PANELS_24,
    .spreads = KLAUS_WINOGRAD_F16_TILE - 1,
    .phases = KLAUS_WINOGRAD_F16_PHASES,
    .can = klaus_winograd_f16_can,
    .packed_bytes = klaus_winograd_f16_packed_bytes,
    .pack = klaus_winograd_f16_pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
