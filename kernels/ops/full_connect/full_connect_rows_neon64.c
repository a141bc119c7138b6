/* Full connect for ten rows of input at once: weights go from their packed form through registers into the sums, each
 * decoded once for all rows. The packed layout is that of full_connect_gemm.h with panels of 8.
 *
 * Phase 0 turns the rows: [ten rows][input][12], where the last two of twelve numbers are not used. Phase 1 takes as
 * many inputs as the first cache holds, and for these one panel after the other, its sums waiting in scratch memory.
 *
 * In assembly, as loads of three and four registers want neighbours, which the compiler finds only by moving others.
 * Registers: v0, v1 a step's weights, v2 - v4 its inputs, v12 + 2 * row the sums, the rest what the decoding needs. */
#include "ops/full_connect/full_connect_rows.h"

#include <string.h>

#include "ops/full_connect/full_connect.h"
#include "ops/full_connect/full_connect_gemm.h"
#include "ops/neon.h"
#include "ops/shape.h"

#define ROWS 10
#define TURNED 12 /* numbers of an input */
#define WIDTH 8
#define SUMS (ROWS * WIDTH)
#define BLOCK (2 * KLAUS_FULL_CONNECT_BLOCK) /* inputs that are taken at once */

#define TIMES(low, high, input)                                                                                        \
    "fmla " low ".4s, v0.4s, " input "\n\t"                                                                            \
    "fmla " high ".4s, v1.4s, " input "\n\t"
#define STEP                                                                                                           \
    "ld1 {v2.4s, v3.4s, v4.4s}, [%[inputs]], #48\n\t" TIMES("v12", "v13", "v2.s[0]") TIMES("v14", "v15", "v2.s[1]")    \
        TIMES("v16", "v17", "v2.s[2]") TIMES("v18", "v19", "v2.s[3]") TIMES("v20", "v21", "v3.s[0]")                   \
            TIMES("v22", "v23", "v3.s[1]") TIMES("v24", "v25", "v3.s[2]") TIMES("v26", "v27", "v3.s[3]")               \
                TIMES("v28", "v29", "v4.s[0]") TIMES("v30", "v31", "v4.s[1]")
#define STEP_OF_HALVES(halves)                                                                                         \
    "fcvtl v0.4s, " halves ".4h\n\t"                                                                                   \
    "fcvtl2 v1.4s, " halves ".8h\n\t" STEP

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
#define LOOP "0:\n\t"
#define END_OF_LOOP                                                                                                    \
    "subs %[quads], %[quads], #1\n\t"                                                                                  \
    "b.ne 0b\n\t"
#define SUMS_REGISTERS                                                                                                 \
    "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",    \
        "v28", "v29", "v30", "v31"

/* Each adds `quads` (1 or more) times four inputs to the sums of a panel. */
static void add_floats(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    (void)table;
    __asm__ volatile(LOAD_SUMS LOOP "ld1 {v0.4s, v1.4s}, [%[encoded]], #32\n\t" STEP
                                    "ld1 {v0.4s, v1.4s}, [%[encoded]], #32\n\t" STEP
                                    "ld1 {v0.4s, v1.4s}, [%[encoded]], #32\n\t" STEP
                                    "ld1 {v0.4s, v1.4s}, [%[encoded]], #32\n\t" STEP END_OF_LOOP STORE_SUMS
                     : [encoded] "+r"(encoded), [inputs] "+r"(inputs), [quads] "+r"(quads), [sums] "+r"(sums)
                     :
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", SUMS_REGISTERS);
}

static void add_halves(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    (void)table;
    __asm__ volatile(LOAD_SUMS LOOP "ld1 {v8.8h, v9.8h, v10.8h, v11.8h}, [%[encoded]], #64\n\t" STEP_OF_HALVES("v8")
                         STEP_OF_HALVES("v9") STEP_OF_HALVES("v10") STEP_OF_HALVES("v11") END_OF_LOOP STORE_SUMS
                     : [encoded] "+r"(encoded), [inputs] "+r"(inputs), [quads] "+r"(quads), [sums] "+r"(sums)
                     :
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v8", "v9", "v10", "v11", SUMS_REGISTERS);
}

/* v5, v6 the table's low and high bytes, v8 32 indices, v10 and v11 the halves of two steps. */
static void add_q4(const uint8_t *table, const uint8_t *encoded, const float *inputs, int64_t quads, float *sums) {
    __asm__ volatile("ld1 {v5.16b, v6.16b}, [%[table]]\n\t"
                     "movi v7.16b, #15\n\t" LOAD_SUMS LOOP "ld1 {v8.16b}, [%[encoded]], #16\n\t"
                     "and v9.16b, v8.16b, v7.16b\n\t"
                     "tbl v11.16b, {v5.16b}, v9.16b\n\t"
                     "tbl v9.16b, {v6.16b}, v9.16b\n\t"
                     "zip1 v10.16b, v11.16b, v9.16b\n\t"
                     "zip2 v11.16b, v11.16b, v9.16b\n\t" STEP_OF_HALVES("v10")
                         STEP_OF_HALVES("v11") "ushr v9.16b, v8.16b, #4\n\t"
                                               "tbl v11.16b, {v5.16b}, v9.16b\n\t"
                                               "tbl v9.16b, {v6.16b}, v9.16b\n\t"
                                               "zip1 v10.16b, v11.16b, v9.16b\n\t"
                                               "zip2 v11.16b, v11.16b, v9.16b\n\t" STEP_OF_HALVES("v10")
                                                   STEP_OF_HALVES("v11") END_OF_LOOP STORE_SUMS
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
    for (; count > 0; count--, weights += WIDTH, inputs += TURNED)
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

static uint64_t aligned(uint64_t bytes) {
    return (bytes + KLAUS_ALIGNMENT - 1) / KLAUS_ALIGNMENT * KLAUS_ALIGNMENT;
}

/* All rows, turned. */
static uint64_t turned_bytes(const klaus_shape *s) {
    return aligned((uint64_t)tens_of(s) * (uint64_t)klaus_shape_inputs_per_row(s) * TURNED * sizeof(float));
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
    for (int64_t ten = 0; ten < tens_of(s); ten++)
        for (int64_t four = 0; four < TURNED; four += 4) {
            const float *row[4]; /* the last once more where there are fewer */
            for (int64_t r = 0; r < 4; r++) {
                const int64_t at = ten * ROWS + (four + r < ROWS ? four + r : ROWS - 1);
                row[r] = (const float *)call->input[0] + (at < s->batch ? at : s->batch - 1) * inputs;
            }
            float *to = (float *)call->scratch + (ten * inputs + begin) * TURNED + four;
            int64_t i = begin;
            for (; i + 4 <= end; i += 4, to += 4 * TURNED) {
                const float32x4x4_t rows = {
                    {vld1q_f32(row[0] + i), vld1q_f32(row[1] + i), vld1q_f32(row[2] + i), vld1q_f32(row[3] + i)}};
                vst4q_lane_f32(to, rows, 0);
                vst4q_lane_f32(to + TURNED, rows, 1);
                vst4q_lane_f32(to + 2 * TURNED, rows, 2);
                vst4q_lane_f32(to + 3 * TURNED, rows, 3);
            }
            for (; i < end; i++, to += TURNED)
                for (int r = 0; r < 4; r++)
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
            const float *x = (const float *)call->scratch + (ten * inputs + done) * TURNED;
            for (int64_t p = begin; p < end; p++) {
                const uint8_t *encoded = panels + (size_t)p * panel_bytes + head_bytes +
                                         (size_t)klaus_full_connect_block_bytes(s, done, WIDTH);
                float *sums = all_sums + p * SUMS;
                if (quads > 0)
                    add(table, encoded, x, quads, sums);
                if (quads * 4 < count)
                    add_rest(s, table, encoded + (size_t)klaus_full_connect_block_bytes(s, quads * 4, WIDTH),
                             x + quads * 4 * TURNED, count - quads * 4, sums);
            }
        }
        for (int64_t p = begin; p < end; p++)
            finish(s, (const float *)(const void *)(panels + (size_t)p * panel_bytes), all_sums + p * SUMS, rows,
                   (float *)call->output + first_row * s->out_channels + p * WIDTH);
    }
}
