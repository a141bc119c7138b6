/* 7 rows x 24 channels of halves: 21 sums, 7 registers of inputs, 4 of weights: all 32 that there are. Eight steps of
 * depth take 7 + 6 loads for 168 multiply-adds. No compiler keeps that many where they are, hence assembly:
 *     v0 .. v6    the rows' inputs, eight steps of depth (only v0 .. v15 can be multiplied by lane)
 *     v7 .. v10   weights, four vectors of the 24 that eight steps have
 *     v11 .. v31  sums: row r has v(11 + 3 r) .. v(13 + 3 r)
 * The weights of a step are three vectors, so that four at a time begin another step each time: every vector of weights
 * is used up, for all rows, before the next four are loaded. Panels of 16 and 8 channels have v18 .. v31 and v25 .. v31
 * for sums. */
#include "ops/gemm/gemm_f16.h"

/* ---- steps of depth ---- */

/* One vector of weights times a lane of all rows. */
#define COLUMN(s0, s1, s2, s3, s4, s5, s6, w, lane)                                                                    \
    "fmla v" s0 ".8h, v" w ".8h, v0.h[" lane "]\n"                                                                     \
    "fmla v" s1 ".8h, v" w ".8h, v1.h[" lane "]\n"                                                                     \
    "fmla v" s2 ".8h, v" w ".8h, v2.h[" lane "]\n"                                                                     \
    "fmla v" s3 ".8h, v" w ".8h, v3.h[" lane "]\n"                                                                     \
    "fmla v" s4 ".8h, v" w ".8h, v4.h[" lane "]\n"                                                                     \
    "fmla v" s5 ".8h, v" w ".8h, v5.h[" lane "]\n"                                                                     \
    "fmla v" s6 ".8h, v" w ".8h, v6.h[" lane "]\n"
#define LOAD_4 "ld1 {v7.8h, v8.8h, v9.8h, v10.8h}, [%[w]], #64\n"

#define FIRST(w, lane) COLUMN("11", "14", "17", "20", "23", "26", "29", w, lane)
#define SECOND(w, lane) COLUMN("12", "15", "18", "21", "24", "27", "30", w, lane)
#define THIRD(w, lane) COLUMN("13", "16", "19", "22", "25", "28", "31", w, lane)
#define FOUR_STEPS(a, b, c, d)                                                                                         \
    LOAD_4 FIRST("7", a) SECOND("8", a) THIRD("9", a) FIRST("10", b) LOAD_4 SECOND("7", b) THIRD("8", b) FIRST("9", c) \
        SECOND("10", c) LOAD_4 THIRD("7", c) FIRST("8", d) SECOND("9", d) THIRD("10", d)
#define EIGHT_STEPS_24 FOUR_STEPS("0", "1", "2", "3") FOUR_STEPS("4", "5", "6", "7")
#define ONE_STEP_24(lane) "ld1 {v7.8h, v8.8h, v9.8h}, [%[w]], #48\n" FIRST("7", lane) SECOND("8", lane) THIRD("9", lane)

#define LEFT(w, lane) COLUMN("18", "20", "22", "24", "26", "28", "30", w, lane)
#define RIGHT(w, lane) COLUMN("19", "21", "23", "25", "27", "29", "31", w, lane)
#define TWO_STEPS(a, b) LOAD_4 LEFT("7", a) RIGHT("8", a) LEFT("9", b) RIGHT("10", b)
#define EIGHT_STEPS_16 TWO_STEPS("0", "1") TWO_STEPS("2", "3") TWO_STEPS("4", "5") TWO_STEPS("6", "7")
#define ONE_STEP_16(lane) "ld1 {v7.8h, v8.8h}, [%[w]], #32\n" LEFT("7", lane) RIGHT("8", lane)

#define ONLY(w, lane) COLUMN("25", "26", "27", "28", "29", "30", "31", w, lane)
#define EIGHT_STEPS_8                                                                                                  \
    LOAD_4 ONLY("7", "0") ONLY("8", "1") ONLY("9", "2") ONLY("10", "3") LOAD_4 ONLY("7", "4") ONLY("8", "5")           \
        ONLY("9", "6") ONLY("10", "7")
#define ONE_STEP_8(lane) "ld1 {v7.8h}, [%[w]], #16\n" ONLY("7", lane)

#define LOAD_ROWS(end)                                                                                                 \
    "ldr q0, [%[p0]]" end "ldr q1, [%[p1]]" end "ldr q2, [%[p2]]" end "ldr q3, [%[p3]]" end "ldr q4, [%[p4]]" end      \
    "ldr q5, [%[p5]]" end "ldr q6, [%[p6]]" end
/* One of up to seven steps behind the last eight. */
#define REST(step) step "subs %[n], %[n], #1\nb.eq 4f\n"
/* A tap's depth; `step` is given the lane. */
#define DEPTH(eight_steps, step)                                                                                       \
    "cbz %[eights], 3f\n"                                                                                              \
    "mov %[n], %[eights]\n"                                                                                            \
    "2:\n" LOAD_ROWS(", #16\n") eight_steps "subs %[n], %[n], #1\n"                                                    \
                                            "b.ne 2b\n"                                                                \
                                            "3:\n"                                                                     \
                                            "cbz %[rest], 4f\n"                                                        \
                                            "mov %[n], %[rest]\n" LOAD_ROWS("\n") REST(step("0")) REST(step("1"))      \
                                                REST(step("2")) REST(step("3")) REST(step("4")) REST(step("5"))        \
                                                    step("6") "4:\n"

/* ---- the sums of all rows: what they begin with, the activation, where they go ---- */

/* `each` is given the registers of a row. */
#define ROWS_24(each)                                                                                                  \
    each("11", "12", "13") each("14", "15", "16") each("17", "18", "19") each("20", "21", "22") each("23", "24", "25") \
        each("26", "27", "28") each("29", "30", "31")
#define START_24(a, b, c) "ld1 {v" a ".8h, v" b ".8h, v" c ".8h}, [%[start]]\n"
#define STORE_24(a, b, c) "st1 {v" a ".8h, v" b ".8h, v" c ".8h}, [%[to]], %[step]\n"
#define LIMIT(a, how, by) how " v" a ".8h, v" a ".8h, " by ".8h\n"
#define LOW_24(a, b, c) LIMIT(a, "fmax", "v7") LIMIT(b, "fmax", "v7") LIMIT(c, "fmax", "v7")
#define HIGH_24(a, b, c) LIMIT(a, "fmin", "v8") LIMIT(b, "fmin", "v8") LIMIT(c, "fmin", "v8")

#define ROWS_16(each)                                                                                                  \
    each("18", "19") each("20", "21") each("22", "23") each("24", "25") each("26", "27") each("28", "29")              \
        each("30", "31")
#define START_16(a, b) "ld1 {v" a ".8h, v" b ".8h}, [%[start]]\n"
#define STORE_16(a, b) "st1 {v" a ".8h, v" b ".8h}, [%[to]], %[step]\n"
#define LOW_16(a, b) LIMIT(a, "fmax", "v7") LIMIT(b, "fmax", "v7")
#define HIGH_16(a, b) LIMIT(a, "fmin", "v8") LIMIT(b, "fmin", "v8")

#define ROWS_8(each) each("25") each("26") each("27") each("28") each("29") each("30") each("31")
#define START_8(a) "ld1 {v" a ".8h}, [%[start]]\n"
#define STORE_8(a) "st1 {v" a ".8h}, [%[to]], %[step]\n"
#define LOW_8(a) LIMIT(a, "fmax", "v7")
#define HIGH_8(a) LIMIT(a, "fmin", "v8")

/* enum klaus_activation: 0 none, 1 max(0, x), 2 min(6, max(0, x)). The half 6 is 0x4600. */
#define FINISH(rows, low, high, store)                                                                                 \
    "cbz %w[activation], 8f\n"                                                                                         \
    "movi v7.8h, #0\n" rows(low) "tbz %w[activation], #1, 8f\n"                                                        \
                                 "movi v8.8h, #0x46, lsl #8\n" rows(high) "8:\n" rows(store)

#define REGISTERS                                                                                                      \
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",       \
        "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"

/* ---- tiles one after another ---- */

#define SKIP(pointer) "add %[" pointer "], %[" pointer "], %[skip]\n"
#define TILES(rows, start, eight_steps, one_step, low, high, store)                                                    \
    "1:\n" rows(start) DEPTH(eight_steps, one_step)                                                                    \
        FINISH(rows, low, high, store) "sub %[w], %[w], %[back]\n" SKIP("p0") SKIP("p1") SKIP("p2") SKIP("p3")         \
            SKIP("p4") SKIP("p5") SKIP("p6") "subs %[tiles], %[tiles], #1\n"                                           \
                                             "b.ne 1b\n"
#define TILE_OPERANDS                                                                                                  \
    [p0] "+r"(p0), [p1] "+r"(p1), [p2] "+r"(p2), [p3] "+r"(p3), [p4] "+r"(p4), [p5] "+r"(p5), [p6] "+r"(p6),           \
        [w] "+r"(weights), [to] "+r"(output), [tiles] "+r"(tiles), [n] "+r"(n)
#define TILE_CONSTANTS                                                                                                 \
    [eights] "r"(eights), [rest] "r"(rest), [start] "r"(rows->start), [step] "r"(2 * rows->stride), [skip] "r"(skip),  \
        [back] "r"(back), [activation] "r"(rows->activation)

void klaus_gemm_f16_rows_7(const klaus_gemm_f16_rows *rows) {
    const size_t input_step = 2 * rows->input_step;
    const char *p0 = (const char *)rows->input, *p1 = p0 + input_step, *p2 = p1 + input_step, *p3 = p2 + input_step;
    const char *p4 = p3 + input_step, *p5 = p4 + input_step, *p6 = p5 + input_step;
    const uint16_t *weights = rows->weights;
    uint16_t *output = rows->output;
    int64_t tiles = rows->tiles, n = 0;
    const int64_t eights = rows->depth / 8, rest = rows->depth % 8;
    const int64_t skip = 7 * (int64_t)input_step - 16 * eights, back = 2 * (int64_t)rows->depth * rows->width;
    if (rows->width == 24)
        __asm__ volatile(TILES(ROWS_24, START_24, EIGHT_STEPS_24, ONE_STEP_24, LOW_24, HIGH_24, STORE_24)
                         : TILE_OPERANDS
                         : TILE_CONSTANTS
                         : "cc", "memory", REGISTERS);
    else if (rows->width == 16)
        __asm__ volatile(TILES(ROWS_16, START_16, EIGHT_STEPS_16, ONE_STEP_16, LOW_16, HIGH_16, STORE_16)
                         : TILE_OPERANDS
                         : TILE_CONSTANTS
                         : "cc", "memory", REGISTERS);
    else
        __asm__ volatile(TILES(ROWS_8, START_8, EIGHT_STEPS_8, ONE_STEP_8, LOW_8, HIGH_8, STORE_8)
                         : TILE_OPERANDS
                         : TILE_CONSTANTS
                         : "cc", "memory", REGISTERS);
}

/* ---- one tile, taps by pointers ---- */

#define LOAD_TWO(a, b) "ldp %[" a "], %[" b "], [%[inputs]], #16\n"
#define ADD_OFFSET(pointer) "add %[" pointer "], %[" pointer "], %[offset]\n"
#define POINT                                                                                                          \
    LOAD_TWO("p0", "p1")                                                                                               \
    LOAD_TWO("p2", "p3")                                                                                               \
    LOAD_TWO("p4", "p5")                                                                                               \
    "ldr %[p6], [%[inputs]], #8\n" ADD_OFFSET("p0") ADD_OFFSET("p1") ADD_OFFSET("p2") ADD_OFFSET("p3")                 \
        ADD_OFFSET("p4") ADD_OFFSET("p5") ADD_OFFSET("p6")

void klaus_gemm_f16_piece_7x24(const klaus_gemm_f16_piece *piece) {
    const char *p0 = NULL, *p1 = NULL, *p2 = NULL, *p3 = NULL, *p4 = NULL, *p5 = NULL, *p6 = NULL;
    const uint16_t *weights = piece->weights;
    const uint16_t *const *inputs = piece->inputs;
    uint16_t *output = piece->output;
    int64_t taps = piece->taps, n = 0;
    __asm__ volatile(
        ROWS_24(START_24) "1:\n" POINT DEPTH(EIGHT_STEPS_24, ONE_STEP_24) "subs %[taps], %[taps], #1\n"
                                                                          "b.ne 1b\n" FINISH(ROWS_24, LOW_24, HIGH_24,
                                                                                             STORE_24)
        : [p0] "+r"(p0), [p1] "+r"(p1), [p2] "+r"(p2), [p3] "+r"(p3), [p4] "+r"(p4), [p5] "+r"(p5), [p6] "+r"(p6),
          [w] "+r"(weights), [to] "+r"(output), [taps] "+r"(taps), [n] "+r"(n), [inputs] "+r"(inputs)
        : [eights] "r"((int64_t)piece->depth / 8), [rest] "r"((int64_t)piece->depth % 8), [start] "r"(piece->start),
          [step] "r"(2 * piece->stride), [offset] "r"(2 * piece->offset), [activation] "r"(piece->activation)
        : "cc", "memory", REGISTERS);
}
