/* Full connect for ten rows of input at once: weights go from their packed form through registers into the sums, each
 * decoded once for all rows. The packed layout is that of full_connect_gemm.h with panels of 8.
 *
 * Phase 0 turns the rows: [ten rows][input][12], where the last two of twelve numbers are not used. Phase 1 takes as
 * many inputs as the first cache holds, and for these one panel after the other, its sums waiting in scratch memory.
 *
 * In assembly, as loads of four registers want neighbours, which the compiler finds only by moving others.
 * Registers: v0, v1 a step's weights, v2 - v5 inputs, v12 + 2 * row the sums, the rest what the decoding needs. */
#include "ops/full_connect/full_connect_rows.h"

#include <string.h>

#include "ops/full_connect/full_connect.h"
#include "ops/full_connect/full_connect_gemm.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define ROWS 10
#define WIDTH 8
#define SUMS (ROWS * WIDTH)
#define BLOCK (2 * KLAUS_FULL_CONNECT_BLOCK) /* inputs that are taken at once */

#define TIMES(low, high, input)                                                                                        \
    "fmla " low ".4s, v0.4s, " input "\n\t"                                                                            \
    "fmla " high ".4s, v1.4s, " input "\n\t"
/* The rows of a step, where a .. j are their inputs; parted where the next inputs must be loaded. */
#define ROWS_01(a, b) TIMES("v12", "v13", a) TIMES("v14", "v15", b)
#define ROWS_25(c, d, e, f) TIMES("v16", "v17", c) TIMES("v18", "v19", d) TIMES("v20", "v21", e) TIMES("v22", "v23", f)
#define ROWS_69(g, h, i, j) TIMES("v24", "v25", g) TIMES("v26", "v27", h) TIMES("v28", "v29", i) TIMES("v30", "v31", j)
#define LOAD_16 "ld1 {v2.4s, v3.4s, v4.4s, v5.4s}, [%[inputs]], #64\n\t"
#define LOAD_8 "ld1 {v2.4s, v3.4s}, [%[inputs]], #32\n\t"
/* The four steps of a quad, whose forty inputs come sixteen, sixteen and eight at a time. */
#define STEP_0                                                                                                         \
    LOAD_16 ROWS_01("v2.s[0]", "v2.s[1]") ROWS_25("v2.s[2]", "v2.s[3]", "v3.s[0]", "v3.s[1]")                          \
        ROWS_69("v3.s[2]", "v3.s[3]", "v4.s[0]", "v4.s[1]")
#define STEP_1                                                                                                         \
    ROWS_01("v4.s[2]", "v4.s[3]")                                                                                      \
    ROWS_25("v5.s[0]", "v5.s[1]", "v5.s[2]", "v5.s[3]") LOAD_16 ROWS_69("v2.s[0]", "v2.s[1]", "v2.s[2]", "v2.s[3]")
#define STEP_2                                                                                                         \
    ROWS_01("v3.s[0]", "v3.s[1]")                                                                                      \
    ROWS_25("v3.s[2]", "v3.s[3]", "v4.s[0]", "v4.s[1]") ROWS_69("v4.s[2]", "v4.s[3]", "v5.s[0]", "v5.s[1]")
#define STEP_3                                                                                                         \
    ROWS_01("v5.s[2]", "v5.s[3]")                                                                                      \
    LOAD_8 ROWS_25("v2.s[0]", "v2.s[1]", "v2.s[2]", "v2.s[3]") ROWS_69("v3.s[0]", "v3.s[1]", "v3.s[2]", "v3.s[3]")

#define WIDEN(halves)                                                                                                  \
    "fcvtl v0.4s, " halves ".4h\n\t"                                                                                   \
    "fcvtl2 v1.4s, " halves ".8h\n\t"
#define LOAD_FLOATS "ld1 {v0.4s, v1.4s}, [%[encoded]], #32\n\t"
#define QUAD_OF_FLOATS LOAD_FLOATS STEP_0 LOAD_FLOATS STEP_1 LOAD_FLOATS STEP_2 LOAD_FLOATS STEP_3
#define QUAD_OF_HALVES                                                                                                 \
    "ld1 {v8.8h, v9.8h, v10.8h, v11.8h}, [%[encoded]], #64\n\t" WIDEN("v8") STEP_0 WIDEN("v9") STEP_1 WIDEN("v10")     \
        STEP_2 WIDEN("v11") STEP_3
/* v0 sixteen indices; to v10 and v11 the halves of two steps. v6, v7 the table's low and high bytes. */
#define LOOK_UP                                                                                                        \
    "tbl v1.16b, {v6.16b}, v0.16b\n\t"                                                                                 \
    "tbl v0.16b, {v7.16b}, v0.16b\n\t"                                                                                 \
    "zip1 v10.16b, v1.16b, v0.16b\n\t"                                                                                 \
    "zip2 v11.16b, v1.16b, v0.16b\n\t"
/* v8 a quad's indices, v9 fifteens. */
#define QUAD_OF_Q4                                                                                                     \
    "ld1 {v8.16b}, [%[encoded]], #16\n\t"                                                                              \
    "and v0.16b, v8.16b, v9.16b\n\t" LOOK_UP WIDEN("v10") STEP_0 WIDEN("v11") STEP_1                                   \
        "ushr v0.16b, v8.16b, #4\n\t" LOOK_UP WIDEN("v10") STEP_2 WIDEN("v11") STEP_3

#define LOAD_SUMS                                                                                                      \
    "ld1 {v12.4s, v13.4s, v14.4s, v15.4s}, [%[sums]], #64\n\t"                                                         \
    "ld1 {v16.4s, v17.4s, v18.4s, v19.4s}, [%[sums]], #64\n\t"                                                         \
    "ld1 {v20.4s, v21.4s, v22.4s, v23.4s}, [%[sums]], #64\n\t"                                                         \
    "ld1 {v24.4s, v25.4s, v26.4s, v27.4s}, [%[sums]], #64\n\t"                                                         \
    "ld1 {v28.4s, v29.4s, v30.4s, v31.4s}, [%[sums]]\n\t"                                                              \
    "sub %[sums], %[sums], #256\n\t"
#define STORE_SUMS                                                                                                     \
    "st1 {v12.4s, v13.4s, v14.4s, v15.4s}, [%[sums]], #64\n\t"                                                         \
    "st1 {v16.4s, v17.4s, v18.4s, v19.4s}, [%[sums]], #64\n\t"                                                         \
    "st1 {v20.4s, v21.4s, v22.4s, v23.4s}, [%[sums]], #64\n\t"                                                         \
    "st1 {v24.4s, v25.4s, v26.4s, v27.4s}, [%[sums]], #64\n\t"                                                         \
    "st1 {v28.4s, v29.4s, v30.4s, v31.4s}, [%[sums]]\n\t"
/* All quads, two a round. */
#define QUADS(quad)                                                                                                    \
    LOAD_SUMS "tbz %[quads], #0, 1f\n\t" quad "1:\n\t"                                                                 \
              "lsr %[quads], %[quads], #1\n\t"                                                                         \
              "cbz %[quads], 3f\n"                                                                                     \
              "2:\n\t" quad quad "subs %[quads], %[quads], #1\n\t"                                                     \
              "b.ne 2b\n"                                                                                              \
              "3:\n\t" STORE_SUMS
#define SUMS_REGISTERS                                                                                                 \
    "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",    \
        "v28", "v29", "v30", "v31"

/* Each adds `quads` (1 or more) times four inputs to the sums of a panel. */
static void add_floats(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    (void)table;
    __asm__ volatile(QUADS(QUAD_OF_FLOATS)
                     : [encoded] "+r"(encoded), [inputs] "+r"(inputs), [quads] "+r"(quads), [sums] "+r"(sums)
                     :
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", SUMS_REGISTERS);
}

static void add_halves(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    (void)table;
    __asm__ volatile(QUADS(QUAD_OF_HALVES)
                     : [encoded] "+r"(encoded), [inputs] "+r"(inputs), [quads] "+r"(quads), [sums] "+r"(sums)
                     :
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v8", "v9", "v10", "v11", SUMS_REGISTERS);
}

static void add_q4(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    __asm__ volatile("ld1 {v6.16b, v7.16b}, [%[table]]\n\t"
                     "movi v9.16b, #15\n\t" QUADS(QUAD_OF_Q4)
                     : [encoded] "+r"(encoded), [inputs] "+r"(inputs), [quads] "+r"(quads), [sums] "+r"(sums)
                     : [table] "r"(table)
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",
                       SUMS_REGISTERS);
}

/* The inputs that fill no four. */
static void add_rest(const klaus_shape *s, const uint8_t *table, const uint8_t *encoded, const float *inputs,
                     int64_t count, float *sums) {
    float decoded[64];
    const klaus_decoder decode = klaus_full_connect_decoder(s);
    const float *weights = decode != NULL ? decoded : (const float *)(const void *)encoded;
    if (decode != NULL)
        decode(table, encoded, count * WIDTH, decoded);
    for (; count > 0; count--, weights += WIDTH, inputs += ROWS)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < WIDTH; c += 4) {
                float *sum = sums + r * WIDTH + c;
                vst1q_f32(sum, vfmaq_n_f32(vld1q_f32(sum), vld1q_f32(weights + c), inputs[r]));
            }
}

/* A batch that leaves at most one row of a ten empty. */
bool klaus_full_connect_rows_can(const klaus_shape *s) {
    if (!klaus_full_connect_is_sound(s) || s->out_channels % WIDTH != 0 || (s->batch + 1) % ROWS > 1 || s->batch < 2)
        return false;
    const uint32_t stored = klaus_full_connect_stored(s);
    return stored == KLAUS_F32 || stored == KLAUS_F16 || (stored == KLAUS_Q4 && s->codebook_dtype == KLAUS_F16);
}

static int64_t tens_of(const klaus_shape *s) {
    return (s->batch + ROWS - 1) / ROWS;
}

/* All rows, turned. */
static uint64_t turned_bytes(const klaus_shape *s) {
    return klaus_aligned((uint64_t)tens_of(s) * (uint64_t)klaus_shape_inputs_per_row(s) * ROWS * sizeof(float));
}

/* The sums of all panels for one ten. */
uint64_t klaus_full_connect_rows_scratch_bytes(const klaus_shape *s, int32_t parts) {
    (void)parts;
    return turned_bytes(s) + (uint64_t)s->out_channels / WIDTH * SUMS * sizeof(float);
}

static void turn(const klaus_call *call, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    int64_t begin, end;
    klaus_share(inputs, 4, part, parts, &begin, &end);
    for (int64_t ten = 0; ten < tens_of(s); ten++) {
        const float *row[ROWS]; /* the last once more where there are fewer */
        for (int64_t r = 0; r < ROWS; r++)
            row[r] =
                (const float *)call->input[0] + (ten * ROWS + r < s->batch ? ten * ROWS + r : s->batch - 1) * inputs;
        float *to = (float *)call->scratch + (ten * inputs + begin) * ROWS;
        int64_t i = begin;
        for (; i + 4 <= end; i += 4, to += 4 * ROWS) {
            for (int r = 0; r < 8; r += 4) {
                const float32x4x4_t four = {{vld1q_f32(row[r] + i), vld1q_f32(row[r + 1] + i),
                                             vld1q_f32(row[r + 2] + i), vld1q_f32(row[r + 3] + i)}};
                vst4q_lane_f32(to + r, four, 0);
                vst4q_lane_f32(to + ROWS + r, four, 1);
                vst4q_lane_f32(to + 2 * ROWS + r, four, 2);
                vst4q_lane_f32(to + 3 * ROWS + r, four, 3);
            }
            const float32x4x2_t two = {{vld1q_f32(row[8] + i), vld1q_f32(row[9] + i)}};
            vst2q_lane_f32(to + 8, two, 0);
            vst2q_lane_f32(to + ROWS + 8, two, 1);
            vst2q_lane_f32(to + 2 * ROWS + 8, two, 2);
            vst2q_lane_f32(to + 3 * ROWS + 8, two, 3);
        }
        for (; i < end; i++, to += ROWS)
            for (int r = 0; r < ROWS; r++)
                to[r] = row[r][i];
    }
}

/* act(scale * sum + bias) of one panel, `rows` of ten. */
static void finish(const klaus_shape *s, const float *head, const float *sums, int64_t rows, float *output) {
    const klaus_limits limits = klaus_activation_limits(s->activation);
    for (int c = 0; c < WIDTH; c += 4) {
        const float32x4_t scale = vld1q_f32(head + c), bias = vld1q_f32(head + WIDTH + c);
        for (int64_t r = 0; r < rows; r++) {
            const float32x4_t value = vfmaq_f32(bias, vld1q_f32(sums + r * WIDTH + c), scale);
            vst1q_f32(output + r * s->out_channels + c, klaus_limit(value, limits));
        }
    }
}

void klaus_full_connect_rows_run(const klaus_call *call, int32_t phase, int32_t part, int32_t parts) {
    const klaus_shape *s = call->shape;
    if (phase == 0) {
        turn(call, part, parts);
        return;
    }
    const uint32_t stored = klaus_full_connect_stored(s);
    void (*const add)(const uint8_t *, const uint8_t *, const float *, int64_t, float *) =
        stored == KLAUS_F32   ? add_floats
        : stored == KLAUS_F16 ? add_halves
                              : add_q4;
    const uint8_t *table = call->packed, *const panels = table + klaus_full_connect_table_bytes(s);
    const size_t panel_bytes = (size_t)klaus_full_connect_panel_bytes(s, WIDTH), head_bytes = 2 * WIDTH * sizeof(float);
    const int64_t inputs = klaus_shape_inputs_per_row(s);
    float *all_sums = (float *)call->scratch + turned_bytes(s) / sizeof(float);
    int64_t begin, end;
    klaus_share(s->out_channels / WIDTH, 1, part, parts, &begin, &end);
    for (int64_t ten = 0; ten < tens_of(s); ten++) {
        const int64_t first_row = ten * ROWS, rows = s->batch - first_row < ROWS ? s->batch - first_row : ROWS;
        memset(all_sums + begin * SUMS, 0, (size_t)((end - begin) * SUMS) * sizeof(float));
        for (int64_t done = 0; done < inputs; done += BLOCK) {
            const int64_t count = inputs - done < BLOCK ? inputs - done : BLOCK, quads = count / 4;
            const float *x = (const float *)call->scratch + (ten * inputs + done) * ROWS;
            for (int64_t p = begin; p < end; p++) {
                const uint8_t *encoded = panels + (size_t)p * panel_bytes + head_bytes +
                                         (size_t)klaus_full_connect_block_bytes(s, done, WIDTH);
                float *sums = all_sums + p * SUMS;
                if (quads > 0)
                    add(table, encoded, x, quads, sums);
                if (quads * 4 < count)
                    add_rest(s, table, encoded + (size_t)klaus_full_connect_block_bytes(s, quads * 4, WIDTH),
                             x + quads * 4 * ROWS, count - quads * 4, sums);
            }
        }
        for (int64_t p = begin; p < end; p++)
            finish(s, (const float *)(const void *)(panels + (size_t)p * panel_bytes), all_sums + p * SUMS, rows,
                   (float *)call->output + first_row * s->out_channels + p * WIDTH);
    }
}
