/* 7 rows x 24 channels of halves: 21 sums, 7 registers of inputs, 4 of weights: all 32 that there are. Eight steps of
 * depth take 7 + 6 loads for 168 multiply-adds. No compiler keeps that many where they are, hence assembly:
 *     v0 .. v6    the rows' inputs, eight steps of depth (only v0 .. v15 can be multiplied by lane)
 *     v7 .. v10   weights, four vectors of the 24 that eight steps have
 *     v11 .. v31  sums: row r has v(11 + 3 r) .. v(13 + 3 r)
 * The weights of a step are three vectors, so that four at a time begin another step each time: every vector of weights
 * is used up, for all rows, before the next four are loaded. */
#include "ops/gemm/gemm_f16.h"

/* One vector of weights times a lane of all rows. */
#define COLUMN(s0, s1, s2, s3, s4, s5, s6, w, lane)                                                                    \
    "fmla v" s0 ".8h, v" w ".8h, v0.h[" lane "]\n"                                                                     \
    "fmla v" s1 ".8h, v" w ".8h, v1.h[" lane "]\n"                                                                     \
    "fmla v" s2 ".8h, v" w ".8h, v2.h[" lane "]\n"                                                                     \
    "fmla v" s3 ".8h, v" w ".8h, v3.h[" lane "]\n"                                                                     \
    "fmla v" s4 ".8h, v" w ".8h, v4.h[" lane "]\n"                                                                     \
    "fmla v" s5 ".8h, v" w ".8h, v5.h[" lane "]\n"                                                                     \
    "fmla v" s6 ".8h, v" w ".8h, v6.h[" lane "]\n"
#define FIRST(w, lane) COLUMN("11", "14", "17", "20", "23", "26", "29", w, lane)
#define SECOND(w, lane) COLUMN("12", "15", "18", "21", "24", "27", "30", w, lane)
#define THIRD(w, lane) COLUMN("13", "16", "19", "22", "25", "28", "31", w, lane)
#define LOAD_4 "ld1 {v7.8h, v8.8h, v9.8h, v10.8h}, [%[w]], #64\n"
#define FOUR_STEPS(a, b, c, d)                                                                                         \
    LOAD_4 FIRST("7", a) SECOND("8", a) THIRD("9", a) FIRST("10", b) LOAD_4 SECOND("7", b) THIRD("8", b) FIRST("9", c) \
        SECOND("10", c) LOAD_4 THIRD("7", c) FIRST("8", d) SECOND("9", d) THIRD("10", d)
#define EIGHT_STEPS FOUR_STEPS("0", "1", "2", "3") FOUR_STEPS("4", "5", "6", "7")
#define ONE_STEP(lane) "ld1 {v7.8h, v8.8h, v9.8h}, [%[w]], #48\n" FIRST("7", lane) SECOND("8", lane) THIRD("9", lane)

/* The sums of all rows; `each` is given the three registers of one. */
#define ALL_ROWS(each)                                                                                                 \
    each("11", "12", "13") each("14", "15", "16") each("17", "18", "19") each("20", "21", "22") each("23", "24", "25") \
        each("26", "27", "28") each("29", "30", "31")
#define START(a, b, c) "ld1 {v" a ".8h, v" b ".8h, v" c ".8h}, [%[start]]\n"
#define STORE(a, b, c) "st1 {v" a ".8h, v" b ".8h, v" c ".8h}, [%[to]], %[step]\n"
#define NOT_BELOW(a, b, c)                                                                                             \
    "fmax v" a ".8h, v" a ".8h, v7.8h\n"                                                                               \
    "fmax v" b ".8h, v" b ".8h, v7.8h\n"                                                                               \
    "fmax v" c ".8h, v" c ".8h, v7.8h\n"
#define NOT_ABOVE(a, b, c)                                                                                             \
    "fmin v" a ".8h, v" a ".8h, v8.8h\n"                                                                               \
    "fmin v" b ".8h, v" b ".8h, v8.8h\n"                                                                               \
    "fmin v" c ".8h, v" c ".8h, v8.8h\n"
/* enum klaus_activation: 0 none, 1 max(0, x), 2 min(6, max(0, x)). The half 6 is 0x4600. */
#define FINISH                                                                                                         \
    "cbz %w[activation], 8f\n"                                                                                         \
    "movi v7.8h, #0\n" ALL_ROWS(NOT_BELOW) "tbz %w[activation], #1, 8f\n"                                              \
                                           "movi v8.8h, #0x46, lsl #8\n" ALL_ROWS(NOT_ABOVE) "8:\n" ALL_ROWS(STORE)
#define SUMS                                                                                                           \
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",       \
        "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"

void klaus_gemm_f16_rows_7x24(const klaus_gemm_f16_rows *rows) {
    const size_t input_step = 2 * rows->input_step;
    const char *p0 = (const char *)rows->input, *p1 = p0 + input_step, *p2 = p1 + input_step, *p3 = p2 + input_step;
    const char *p4 = p3 + input_step, *p5 = p4 + input_step, *p6 = p5 + input_step;
    const uint16_t *weights = rows->weights;
    uint16_t *output = rows->output;
    int64_t tiles = rows->tiles, eights = 0;
    const int64_t depth_bytes = 2 * (int64_t)rows->depth;
    __asm__ volatile("1:\n" ALL_ROWS(START) "mov %[n], %[eights]\n"
                                            "2:\n"
                                            "ldr q0, [%[p0]], #16\n"
                                            "ldr q1, [%[p1]], #16\n"
                                            "ldr q2, [%[p2]], #16\n"
                                            "ldr q3, [%[p3]], #16\n"
                                            "ldr q4, [%[p4]], #16\n"
                                            "ldr q5, [%[p5]], #16\n"
                                            "ldr q6, [%[p6]], #16\n" EIGHT_STEPS "subs %[n], %[n], #1\n"
                                            "b.ne 2b\n" FINISH "sub %[w], %[w], %[back]\n"
                                            "add %[p0], %[p0], %[skip]\n"
                                            "add %[p1], %[p1], %[skip]\n"
                                            "add %[p2], %[p2], %[skip]\n"
                                            "add %[p3], %[p3], %[skip]\n"
                                            "add %[p4], %[p4], %[skip]\n"
                                            "add %[p5], %[p5], %[skip]\n"
                                            "add %[p6], %[p6], %[skip]\n"
                                            "subs %[tiles], %[tiles], #1\n"
                                            "b.ne 1b\n"
                     : [p0] "+r"(p0), [p1] "+r"(p1), [p2] "+r"(p2), [p3] "+r"(p3), [p4] "+r"(p4), [p5] "+r"(p5),
                       [p6] "+r"(p6), [w] "+r"(weights), [to] "+r"(output), [tiles] "+r"(tiles), [n] "+r"(eights)
                     : [eights] "r"(depth_bytes / 16), [start] "r"(rows->start), [step] "r"(2 * rows->stride),
                       [skip] "r"(7 * (int64_t)input_step - depth_bytes), [back] "r"(24 * depth_bytes),
                       [activation] "r"(rows->activation)
                     : "cc", "memory", SUMS);
}

void klaus_gemm_f16_piece_7x24(const klaus_gemm_f16_piece *piece) {
    const char *p0 = NULL, *p1 = NULL, *p2 = NULL, *p3 = NULL, *p4 = NULL, *p5 = NULL, *p6 = NULL;
    const uint16_t *weights = piece->weights;
    const uint16_t *const *inputs = piece->inputs;
    uint16_t *output = piece->output;
    int64_t taps = piece->taps, n = 0;
    __asm__ volatile(
        ALL_ROWS(
            START) "1:\n"
                   "ldp %[p0], %[p1], [%[inputs]], #16\n"
                   "ldp %[p2], %[p3], [%[inputs]], #16\n"
                   "ldp %[p4], %[p5], [%[inputs]], #16\n"
                   "ldr %[p6], [%[inputs]], #8\n"
                   "add %[p0], %[p0], %[offset]\n"
                   "add %[p1], %[p1], %[offset]\n"
                   "add %[p2], %[p2], %[offset]\n"
                   "add %[p3], %[p3], %[offset]\n"
                   "add %[p4], %[p4], %[offset]\n"
                   "add %[p5], %[p5], %[offset]\n"
                   "add %[p6], %[p6], %[offset]\n"
                   "cbz %[eights], 3f\n"
                   "mov %[n], %[eights]\n"
                   "2:\n"
                   "ldr q0, [%[p0]], #16\n"
                   "ldr q1, [%[p1]], #16\n"
                   "ldr q2, [%[p2]], #16\n"
                   "ldr q3, [%[p3]], #16\n"
                   "ldr q4, [%[p4]], #16\n"
                   "ldr q5, [%[p5]], #16\n"
                   "ldr q6, [%[p6]], #16\n" EIGHT_STEPS "subs %[n], %[n], #1\n"
                   "b.ne 2b\n"
                   "3:\n"
                   "cbz %[rest], 4f\n"
                   "ldr q0, [%[p0]]\n"
                   "ldr q1, [%[p1]]\n"
                   "ldr q2, [%[p2]]\n"
                   "ldr q3, [%[p3]]\n"
                   "ldr q4, [%[p4]]\n"
                   "ldr q5, [%[p5]]\n"
                   "ldr q6, [%[p6]]\n"
                   "subs %[n], %[rest], #1\n" ONE_STEP(
                       "0") "b.eq 4f\n"
                            "subs %[n], %[n], #1\n" ONE_STEP(
                                "1") "b.eq 4f\n"
                                     "subs %[n], %[n], #1\n" ONE_STEP(
                                         "2") "b.eq 4f\n"
                                              "subs %[n], %[n], #1\n" ONE_STEP(
                                                  "3") "b.eq 4f\n"
                                                       "subs %[n], %[n], #1\n" ONE_STEP(
                                                           "4") "b.eq 4f\n"
                                                                "subs %[n], %[n], #1\n" ONE_STEP(
                                                                    "5") "b.eq 4f\n" ONE_STEP("6") "4:\n"
                                                                                                   "subs %[taps], "
                                                                                                   "%[taps], #1\n"
                                                                                                   "b.ne 1b\n" FINISH
        : [p0] "+r"(p0), [p1] "+r"(p1), [p2] "+r"(p2), [p3] "+r"(p3), [p4] "+r"(p4), [p5] "+r"(p5), [p6] "+r"(p6),
          [w] "+r"(weights), [to] "+r"(output), [taps] "+r"(taps), [n] "+r"(n), [inputs] "+r"(inputs)
        : [eights] "r"((int64_t)piece->depth / 8), [rest] "r"((int64_t)piece->depth % 8), [start] "r"(piece->start),
          [step] "r"(2 * piece->stride), [offset] "r"(2 * piece->offset), [activation] "r"(piece->activation)
        : "cc", "memory", SUMS);
}
