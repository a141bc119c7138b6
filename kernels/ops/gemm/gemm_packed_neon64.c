/* 7 x 12 for 32 vector registers: 21 sums, 7 registers of inputs, 4 of weights. A quad takes two loads of inputs and
 * three of weights for 84 multiply-adds. In assembly, as a load of four registers wants four neighbours, which the
 * compiler, with all 32 in use, finds only by moving the others about.
 *
 * Registers: v0 - v3 weights, v4 - v10 a quad of rows 0 .. 6, v11 + 3 * row + column the sums. */
#include "klaus/format.h"
#include "ops/gemm/gemm_packed.h"
#include "ops/neon.h"

#define TILE_ROWS 7

/* A vector of weights times one lane of all rows. */
#define TIMES(weights, lane, s0, s1, s2, s3, s4, s5, s6)                                                               \
    "fmla " s0 ".4s, " weights ".4s, v4.s[" lane "]\n\t"                                                               \
    "fmla " s1 ".4s, " weights ".4s, v5.s[" lane "]\n\t"                                                               \
    "fmla " s2 ".4s, " weights ".4s, v6.s[" lane "]\n\t"                                                               \
    "fmla " s3 ".4s, " weights ".4s, v7.s[" lane "]\n\t"                                                               \
    "fmla " s4 ".4s, " weights ".4s, v8.s[" lane "]\n\t"                                                               \
    "fmla " s5 ".4s, " weights ".4s, v9.s[" lane "]\n\t"                                                               \
    "fmla " s6 ".4s, " weights ".4s, v10.s[" lane "]\n\t"
#define COLUMN_0(weights, lane) TIMES(weights, lane, "v11", "v14", "v17", "v20", "v23", "v26", "v29")
#define COLUMN_1(weights, lane) TIMES(weights, lane, "v12", "v15", "v18", "v21", "v24", "v27", "v30")
#define COLUMN_2(weights, lane) TIMES(weights, lane, "v13", "v16", "v19", "v22", "v25", "v28", "v31")

#define LOAD_INPUTS                                                                                                    \
    "ld1 {v4.4s, v5.4s, v6.4s, v7.4s}, [%[inputs]], #64\n\t"                                                           \
    "ld1 {v8.4s, v9.4s, v10.4s}, [%[inputs]], #48\n\t"
#define LOAD_WEIGHTS "ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [%[weights]], #64\n\t"

#define QUAD_12                                                                                                        \
    LOAD_INPUTS LOAD_WEIGHTS COLUMN_0("v0", "0") COLUMN_1("v1", "0") COLUMN_2("v2", "0") COLUMN_0("v3", "1")           \
        LOAD_WEIGHTS COLUMN_1("v0", "1") COLUMN_2("v1", "1") COLUMN_0("v2", "2") COLUMN_1("v3", "2")                   \
            LOAD_WEIGHTS COLUMN_2("v0", "2") COLUMN_0("v1", "3") COLUMN_1("v2", "3") COLUMN_2("v3", "3")
#define QUAD_8                                                                                                         \
    LOAD_INPUTS LOAD_WEIGHTS COLUMN_0("v0", "0") COLUMN_1("v1", "0") COLUMN_0("v2", "1") COLUMN_1("v3", "1")           \
        LOAD_WEIGHTS COLUMN_0("v0", "2") COLUMN_1("v1", "2") COLUMN_0("v2", "3") COLUMN_1("v3", "3")
#define QUAD_4 LOAD_INPUTS LOAD_WEIGHTS COLUMN_0("v0", "0") COLUMN_0("v1", "1") COLUMN_0("v2", "2") COLUMN_0("v3", "3")

/* All quads, two a round. */
#define QUADS(quad)                                                                                                    \
    "lsr %[count], %[quads], #1\n\t"                                                                                   \
    "cbz %[count], 2f\n"                                                                                               \
    "1:\n\t" quad quad "subs %[count], %[count], #1\n\t"                                                               \
    "b.ne 1b\n"                                                                                                        \
    "2:\n\t"                                                                                                           \
    "tbz %[quads], #0, 3f\n\t" quad "3:\n\t"

/* A row's sums as a list of registers. */
#define ROW_12(a, b, c) "{" a ".4s, " b ".4s, " c ".4s}"
#define ROW_8(a, b, c) "{" a ".4s, " b ".4s}"
#define ROW_4(a, b, c) "{" a ".4s}"
/* `operation` before and after each row's list. */
#define ROWS(row, before, after)                                                                                       \
    before row("v11", "v12", "v13") after before row("v14", "v15", "v16") after before row("v17", "v18", "v19")        \
        after before row("v20", "v21", "v22") after before row("v23", "v24", "v25")                                    \
            after before row("v26", "v27", "v28") after before row("v29", "v30", "v31") after

/* One addend row after the other, in the weights' registers. */
#define ADD_12(a, b, c)                                                                                                \
    "ld1 {v0.4s, v1.4s, v2.4s}, [%[addend]], %[stride]\n\t"                                                            \
    "fadd " a ".4s, " a ".4s, v0.4s\n\t"                                                                               \
    "fadd " b ".4s, " b ".4s, v1.4s\n\t"                                                                               \
    "fadd " c ".4s, " c ".4s, v2.4s\n\t"
#define ADD_8(a, b, c)                                                                                                 \
    "ld1 {v0.4s, v1.4s}, [%[addend]], %[stride]\n\t"                                                                   \
    "fadd " a ".4s, " a ".4s, v0.4s\n\t"                                                                               \
    "fadd " b ".4s, " b ".4s, v1.4s\n\t"
#define ADD_4(a, b, c)                                                                                                 \
    "ld1 {v0.4s}, [%[addend]], %[stride]\n\t"                                                                          \
    "fadd " a ".4s, " a ".4s, v0.4s\n\t"
#define LIMIT_12(operation, a, b, c)                                                                                   \
    operation " " a ".4s, " a ".4s, v0.4s\n\t" operation " " b ".4s, " b ".4s, v0.4s\n\t" operation " " c ".4s, " c    \
              ".4s, v0.4s\n\t"
#define LIMIT_8(operation, a, b, c)                                                                                    \
    operation " " a ".4s, " a ".4s, v0.4s\n\t" operation " " b ".4s, " b ".4s, v0.4s\n\t"
#define LIMIT_4(operation, a, b, c) operation " " a ".4s, " a ".4s, v0.4s\n\t"
#define LOW_12(a, b, c) LIMIT_12("fmax", a, b, c)
#define LOW_8(a, b, c) LIMIT_8("fmax", a, b, c)
#define LOW_4(a, b, c) LIMIT_4("fmax", a, b, c)
#define HIGH_12(a, b, c) LIMIT_12("fmin", a, b, c)
#define HIGH_8(a, b, c) LIMIT_8("fmin", a, b, c)
#define HIGH_4(a, b, c) LIMIT_4("fmin", a, b, c)

/* All tiles of a panel. */
#define TILES(quad, row, add, low, high)                                                                               \
    "0:\n\t"                                                                                                           \
    "mov %[weights], %[first]\n\t" ROWS(row, "ld1 ", ", [%[bias]]\n\t") QUADS(quad) "cbz %[addend], 4f\n\t" ROWS(      \
        add, "", "") "4:\n\t"                                                                                          \
                     "cbz %w[activation], 5f\n\t"                                                                      \
                     "movi v0.4s, #0\n\t" ROWS(                                                                        \
                         low, "", "") "tbz %w[activation], #1, 5f\n\t"                                                 \
                                      "fmov v0.4s, #6.0\n\t" ROWS(high, "", "") "5:\n\t" ROWS(                         \
                                          row, "st1 ",                                                                 \
                                          ", [%[output]], %[stride]\n\t") "subs %[tiles], %[tiles], #1\n\t"            \
                                                                          "b.ne 0b\n\t"

#define PANEL_OPERANDS                                                                                                 \
    : [inputs] "+r"(inputs), [weights] "=&r"(weights), [addend] "+r"(addend), [output] "+r"(output),                   \
      [tiles] "+r"(tiles), [count] "=&r"(count)                                                                        \
    : [first] "r"(panel->weights), [bias] "r"(panel->bias), [quads] "r"(panel->quads),                                 \
      [stride] "r"(panel->stride * sizeof(float)), [activation] "r"(panel->activation)                                 \
    : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",   \
      "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",  \
      "v31"

_Static_assert(KLAUS_LINEAR == 0 && KLAUS_RELU == 1 && KLAUS_RELU6 == 2, "the assembly tests these numbers' bits");

static void multiply_12(const klaus_gemm_panel *panel) {
    const float *inputs = panel->inputs, *addend = panel->addend, *weights;
    float *output = panel->output;
    int64_t tiles = panel->tiles, count;
    __asm__ volatile(TILES(QUAD_12, ROW_12, ADD_12, LOW_12, HIGH_12) PANEL_OPERANDS);
}

static void multiply_8(const klaus_gemm_panel *panel) {
    const float *inputs = panel->inputs, *addend = panel->addend, *weights;
    float *output = panel->output;
    int64_t tiles = panel->tiles, count;
    __asm__ volatile(TILES(QUAD_8, ROW_8, ADD_8, LOW_8, HIGH_8) PANEL_OPERANDS);
}

static void multiply_4(const klaus_gemm_panel *panel) {
    const float *inputs = panel->inputs, *addend = panel->addend, *weights;
    float *output = panel->output;
    int64_t tiles = panel->tiles, count;
    __asm__ volatile(TILES(QUAD_4, ROW_4, ADD_4, LOW_4, HIGH_4) PANEL_OPERANDS);
}

static void multiply(const klaus_gemm_panel *panel) {
    if (panel->width == 12)
        multiply_12(panel);
    else if (panel->width == 8)
        multiply_8(panel);
    else
        multiply_4(panel);
}

/* Two quads a round: a pair of registers from each row. */
static float *pack(const float *const *rows, size_t offset, int64_t quads, float *to) {
    const float *r0 = rows[0] + offset, *r1 = rows[1] + offset, *r2 = rows[2] + offset, *r3 = rows[3] + offset,
                *r4 = rows[4] + offset, *r5 = rows[5] + offset, *r6 = rows[6] + offset;
    int64_t count;
    __asm__ volatile("lsr %[count], %[quads], #1\n\t"
                     "cbz %[count], 2f\n"
                     "1:\n\t"
                     "ldp q0, q8, [%[r0]], #32\n\t"
                     "ldp q1, q9, [%[r1]], #32\n\t"
                     "ldp q2, q10, [%[r2]], #32\n\t"
                     "ldp q3, q11, [%[r3]], #32\n\t"
                     "ldp q4, q12, [%[r4]], #32\n\t"
                     "ldp q5, q13, [%[r5]], #32\n\t"
                     "ldp q6, q14, [%[r6]], #32\n\t"
                     "st1 {v0.4s, v1.4s, v2.4s, v3.4s}, [%[to]], #64\n\t"
                     "st1 {v4.4s, v5.4s, v6.4s}, [%[to]], #48\n\t"
                     "st1 {v8.4s, v9.4s, v10.4s, v11.4s}, [%[to]], #64\n\t"
                     "st1 {v12.4s, v13.4s, v14.4s}, [%[to]], #48\n\t"
                     "subs %[count], %[count], #1\n\t"
                     "b.ne 1b\n"
                     "2:\n\t"
                     "tbz %[quads], #0, 3f\n\t"
                     "ldr q0, [%[r0]]\n\t"
                     "ldr q1, [%[r1]]\n\t"
                     "ldr q2, [%[r2]]\n\t"
                     "ldr q3, [%[r3]]\n\t"
                     "ldr q4, [%[r4]]\n\t"
                     "ldr q5, [%[r5]]\n\t"
                     "ldr q6, [%[r6]]\n\t"
                     "st1 {v0.4s, v1.4s, v2.4s, v3.4s}, [%[to]], #64\n\t"
                     "st1 {v4.4s, v5.4s, v6.4s}, [%[to]], #48\n"
                     "3:\n\t"
                     : [r0] "+r"(r0), [r1] "+r"(r1), [r2] "+r"(r2), [r3] "+r"(r3), [r4] "+r"(r4), [r5] "+r"(r5),
                       [r6] "+r"(r6), [to] "+r"(to), [count] "=&r"(count)
                     : [quads] "r"(quads)
                     : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v8", "v9", "v10", "v11", "v12", "v13",
                       "v14");
    return to;
}

/* The last four floats of a tap overlap those before. */
static void lay_out(const float *const *rows, size_t offset, int32_t taps, int32_t depth, float *to, int64_t line) {
    for (; taps > 0; taps--, rows += TILE_ROWS, to += depth) {
        /* Read at once: for all the compiler knows, a store might change them. */
        const float *from[TILE_ROWS];
        for (int r = 0; r < TILE_ROWS; r++)
            from[r] = rows[r] + offset;
#pragma clang loop unroll(disable)
        for (intptr_t i = 0; i < depth && depth >= 4; i += 4) {
            const intptr_t at = i < depth - 4 ? i : depth - 4;
            float *place = to + at;
#pragma clang loop unroll(full)
            for (int r = 0; r < TILE_ROWS; r++)
                klaus_store_step(&place, vld1q_f32(from[r] + at), line);
        }
#pragma clang loop unroll(disable)
        for (intptr_t i = 0; i < depth && depth < 4; i++)
            for (int r = 0; r < TILE_ROWS; r++)
                to[r * line + i] = from[r][i];
    }
}

const klaus_gemm_packed_kernel klaus_gemm_f32_neon_packed_7x12 = {.rows = TILE_ROWS,
                                                                  .width = 12,
                                                                  .pack = pack,
                                                                  .lay_out = lay_out,
                                                                  .multiply = multiply,
                                                                  .rest = &klaus_gemm_f32_neon_7x12};
