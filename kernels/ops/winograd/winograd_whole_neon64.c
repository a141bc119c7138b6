/* The multiplies of whole blocks, eight tiles times twelve or eight channels. Four steps of depth ("a quad") take two
 * loads of inputs and three or two of weights. In assembly, as a load of four registers wants four neighbours, which
 * the compiler, with all 32 in use, finds only by moving the others about. The first quad's first step multiplies
 * without adding, so that sums need not be zeroed.
 *
 * Registers: v0 - v3 weights, v4 - v7 two steps' inputs, v8 + width / 4 * tile + column the sums. */
#include "ops/winograd/winograd_whole_neon64.h"

/* A vector of weights times all tiles, whose inputs are `a` and `b`. */
#define TIMES(operation, w, a, b, s0, s1, s2, s3, s4, s5, s6, s7)                                                      \
    operation " " s0 ".4s, " w ".4s, " a ".s[0]\n\t" operation " " s1 ".4s, " w ".4s, " a ".s[1]\n\t" operation " " s2 \
              ".4s, " w ".4s, " a ".s[2]\n\t" operation " " s3 ".4s, " w ".4s, " a ".s[3]\n\t" operation " " s4        \
              ".4s, " w ".4s, " b ".s[0]\n\t" operation " " s5 ".4s, " w ".4s, " b ".s[1]\n\t" operation " " s6        \
              ".4s, " w ".4s, " b ".s[2]\n\t" operation " " s7 ".4s, " w ".4s, " b ".s[3]\n\t"
#define OF_12_COLUMN_0(operation, w, a, b)                                                                             \
    TIMES(operation, w, a, b, "v8", "v11", "v14", "v17", "v20", "v23", "v26", "v29")
#define OF_12_COLUMN_1(operation, w, a, b)                                                                             \
    TIMES(operation, w, a, b, "v9", "v12", "v15", "v18", "v21", "v24", "v27", "v30")
#define OF_12_COLUMN_2(operation, w, a, b)                                                                             \
    TIMES(operation, w, a, b, "v10", "v13", "v16", "v19", "v22", "v25", "v28", "v31")
#define OF_8_COLUMN_0(operation, w, a, b)                                                                              \
    TIMES(operation, w, a, b, "v8", "v10", "v12", "v14", "v16", "v18", "v20", "v22")
#define OF_8_COLUMN_1(operation, w, a, b)                                                                              \
    TIMES(operation, w, a, b, "v9", "v11", "v13", "v15", "v17", "v19", "v21", "v23")

#define INPUTS "ld1 {v4.4s, v5.4s, v6.4s, v7.4s}, [%[inputs]], #64\n\t"
#define WEIGHTS "ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [%[weights]], #64\n\t"
/* `first` is the first step's operation. */
#define QUAD_12(first)                                                                                                 \
    INPUTS WEIGHTS OF_12_COLUMN_0(first, "v0", "v4", "v5") OF_12_COLUMN_1(first, "v1", "v4", "v5")                     \
        OF_12_COLUMN_2(first, "v2", "v4", "v5") OF_12_COLUMN_0("fmla", "v3", "v6", "v7")                               \
            WEIGHTS OF_12_COLUMN_1("fmla", "v0", "v6", "v7") OF_12_COLUMN_2("fmla", "v1", "v6", "v7")                  \
                INPUTS OF_12_COLUMN_0("fmla", "v2", "v4", "v5") OF_12_COLUMN_1("fmla", "v3", "v4", "v5")               \
                    WEIGHTS OF_12_COLUMN_2("fmla", "v0", "v4", "v5") OF_12_COLUMN_0("fmla", "v1", "v6", "v7")          \
                        OF_12_COLUMN_1("fmla", "v2", "v6", "v7") OF_12_COLUMN_2("fmla", "v3", "v6", "v7")
#define QUAD_8(first)                                                                                                  \
    INPUTS WEIGHTS OF_8_COLUMN_0(first, "v0", "v4", "v5") OF_8_COLUMN_1(first, "v1", "v4", "v5")                       \
        OF_8_COLUMN_0("fmla", "v2", "v6", "v7") OF_8_COLUMN_1("fmla", "v3", "v6", "v7")                                \
            INPUTS WEIGHTS OF_8_COLUMN_0("fmla", "v0", "v4", "v5") OF_8_COLUMN_1("fmla", "v1", "v4", "v5")             \
                OF_8_COLUMN_0("fmla", "v2", "v6", "v7") OF_8_COLUMN_1("fmla", "v3", "v6", "v7")
/* One step. */
#define STEP_12                                                                                                        \
    "ld1 {v4.4s, v5.4s}, [%[inputs]], #32\n\t"                                                                         \
    "ld1 {v0.4s, v1.4s, v2.4s}, [%[weights]], #48\n\t" OF_12_COLUMN_0("fmla", "v0", "v4", "v5")                        \
        OF_12_COLUMN_1("fmla", "v1", "v4", "v5") OF_12_COLUMN_2("fmla", "v2", "v4", "v5")
#define STEP_8                                                                                                         \
    "ld1 {v4.4s, v5.4s}, [%[inputs]], #32\n\t"                                                                         \
    "ld1 {v0.4s, v1.4s}, [%[weights]], #32\n\t" OF_8_COLUMN_0("fmla", "v0", "v4", "v5")                                \
        OF_8_COLUMN_1("fmla", "v1", "v4", "v5")

#define ZERO(register) "movi " register ".4s, #0\n\t"
#define ZEROS_8                                                                                                        \
    ZERO("v8")                                                                                                         \
    ZERO("v9")                                                                                                         \
    ZERO("v10")                                                                                                        \
    ZERO("v11")                                                                                                        \
    ZERO("v12")                                                                                                        \
    ZERO("v13")                                                                                                        \
    ZERO("v14")                                                                                                        \
    ZERO("v15") ZERO("v16") ZERO("v17") ZERO("v18") ZERO("v19") ZERO("v20") ZERO("v21") ZERO("v22") ZERO("v23")
#define ZEROS_12 ZEROS_8 ZERO("v24") ZERO("v25") ZERO("v26") ZERO("v27") ZERO("v28") ZERO("v29") ZERO("v30") ZERO("v31")
#define STORES_8                                                                                                       \
    "st1 {v8.4s, v9.4s, v10.4s, v11.4s}, [%[to]], #64\n\t"                                                             \
    "st1 {v12.4s, v13.4s, v14.4s, v15.4s}, [%[to]], #64\n\t"                                                           \
    "st1 {v16.4s, v17.4s, v18.4s, v19.4s}, [%[to]], #64\n\t"                                                           \
    "st1 {v20.4s, v21.4s, v22.4s, v23.4s}, [%[to]], #64\n\t"
#define STORES_12                                                                                                      \
    STORES_8 "st1 {v24.4s, v25.4s, v26.4s, v27.4s}, [%[to]], #64\n\t"                                                  \
             "st1 {v28.4s, v29.4s, v30.4s, v31.4s}, [%[to]], #64\n\t"

/* The quads of a position, two a round after one or two; `count` is the depth less four. */
#define QUADS(quad)                                                                                                    \
    quad("fmul") "lsr %[count], %[count], #2\n\t"                                                                      \
                 "tbz %[count], #0, 1f\n\t" quad("fmla") "1:\n\t"                                                      \
                                                         "lsr %[count], %[count], #1\n\t"                              \
                                                         "cbz %[count], 3f\n"                                          \
                                                         "2:\n\t" quad("fmla")                                         \
                                                             quad("fmla") "subs %[count], %[count], #1\n\t"            \
                                                                          "b.ne 2b\n"                                  \
                                                                          "3:\n\t"

/* All positions: quads, where there are, then single steps. */
#define POSITIONS(quad, step, zeros, stores)                                                                           \
    "0:\n\t"                                                                                                           \
    "ldrsw %[depth], [%[depths]], #4\n\t"                                                                              \
    "subs %[count], %[depth], #4\n\t"                                                                                  \
    "b.lt 4f\n\t" QUADS(quad) "ands %[count], %[depth], #3\n\t"                                                        \
                              "b.eq 6f\n\t"                                                                            \
                              "b 5f\n"                                                                                 \
                              "4:\n\t" zeros "mov %[count], %[depth]\n"                                                \
                              "5:\n\t" step "subs %[count], %[count], #1\n\t"                                          \
                              "b.ne 5b\n"                                                                              \
                              "6:\n\t" stores "cmp %[depths], %[end]\n\t"                                              \
                              "b.ne 0b\n\t"

#define OPERANDS                                                                                                       \
    : [inputs] "+r"(inputs), [weights] "+r"(weights), [to] "+r"(to), [depths] "+r"(depths), [depth] "=&r"(depth),      \
      [count] "=&r"(count)                                                                                             \
    : [end] "r"(end)                                                                                                   \
    : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",   \
      "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",  \
      "v31"

void klaus_winograd_multiply_8x12(const klaus_winograd_product *product) {
    const float *inputs = product->inputs, *weights = product->weights;
    const int32_t *depths = product->depths, *const end = depths + product->positions;
    float *to = product->sums;
    int64_t depth, count;
    __asm__ volatile(POSITIONS(QUAD_12, STEP_12, ZEROS_12, STORES_12) OPERANDS);
}

void klaus_winograd_multiply_8x8(const klaus_winograd_product *product) {
    const float *inputs = product->inputs, *weights = product->weights;
    const int32_t *depths = product->depths, *const end = depths + product->positions;
    float *to = product->sums;
    int64_t depth, count;
    __asm__ volatile(POSITIONS(QUAD_8, STEP_8, ZEROS_8, STORES_8) OPERANDS);
}
