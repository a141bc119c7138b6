/* Strips of tiles: pieces of sums by the micro-kernels, put together in float32 where there are more than one. */
#include <string.h>

#include "ops/gemm/gemm_tile_neon_fp16.h"
#include "ops/neon.h"

static void piece_1x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 1, 1);
}

static void piece_2x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 2, 1);
}

static void piece_3x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 3, 1);
}

static void piece_4x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 4, 1);
}

static void piece_5x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 5, 1);
}

static void piece_6x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 6, 1);
}

static void piece_7x8(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 7, 1);
}

static void piece_1x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 1, 2);
}

static void piece_2x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 2, 2);
}

static void piece_3x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 3, 2);
}

static void piece_4x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 4, 2);
}

static void piece_5x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 5, 2);
}

static void piece_6x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 6, 2);
}

static void piece_7x16(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 7, 2);
}

static void piece_1x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 1, 3);
}

static void piece_2x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 2, 3);
}

static void piece_3x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 3, 3);
}

static void piece_4x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 4, 3);
}

static void piece_5x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 5, 3);
}

static void piece_6x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 6, 3);
}

static void piece_7x24(const klaus_gemm_f16_piece *piece) {
    klaus_gemm_f16_body(piece, 7, 3);
}

/* How a sum is cut into pieces: so many taps, or so much of one tap's depth. */
typedef struct cut {
    int32_t taps, depth;
    int32_t pieces;
} cut;

static cut cut_of(int32_t taps, int32_t depth) {
    if (depth <= KLAUS_HALF_TERMS) {
        const int32_t most = KLAUS_HALF_TERMS / depth, pieces = (taps + most - 1) / most;
        return (cut){(taps + pieces - 1) / pieces, depth, pieces};
    }
    const int32_t pieces = (depth + KLAUS_HALF_TERMS - 1) / KLAUS_HALF_TERMS;
    const int32_t length = ((depth + pieces - 1) / pieces + 7) / 8 * 8;
    return (cut){1, length, taps * ((depth + length - 1) / length)};
}

uint64_t klaus_gemm_f16_sums_bytes(int32_t tiles, int32_t taps, int32_t depth) {
    return (uint64_t)tiles * (uint64_t)cut_of(taps, depth).pieces * (KLAUS_GEMM_F16_ROWS * KLAUS_GEMM_F16_WIDTH * 2);
}

static bool is_wide(const klaus_gemm_f16_strip *strip) {
    return *(const uint32_t *)strip->panel != 0;
}

/* The pieces [piece][row][width] of some rows to outputs, the usual way: halves, all channels there. */
__attribute__((always_inline)) static inline void join(const klaus_gemm_f16_strip *strip, const uint16_t *sums,
                                                       int32_t pieces, size_t step, int64_t rows, size_t at,
                                                       const int vectors) {
    const klaus_limits_8h limits = klaus_activation_limits_8h(strip->activation);
    uint16_t *output = (uint16_t *)strip->output + at;
    const uint16_t *addend = strip->addend != NULL ? (const uint16_t *)strip->addend + at : NULL;
    for (; rows > 0; rows--, sums += 8 * vectors, output += strip->stride) {
        float32x4_t low[KLAUS_GEMM_F16_VECTORS], high[KLAUS_GEMM_F16_VECTORS];
        const uint16_t *piece = sums;
        KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) {
            const float16x8_t value = klaus_load_8h(piece + 8 * v);
            low[v] = klaus_low_4s(value);
            high[v] = klaus_high_4s(value);
        }
        int32_t n = pieces - 1;
        do {
            piece += step;
            KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) {
                const float16x8_t value = klaus_load_8h(piece + 8 * v);
                low[v] = vaddq_f32(low[v], klaus_low_4s(value));
                high[v] = vaddq_f32(high[v], klaus_high_4s(value));
            }
        } while (--n > 0);
        if (addend != NULL) {
            KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) {
                const float16x8_t value = klaus_load_8h(addend + 8 * v);
                low[v] = vaddq_f32(low[v], klaus_low_4s(value));
                high[v] = vaddq_f32(high[v], klaus_high_4s(value));
            }
            addend += strip->stride;
        }
        KLAUS_UNROLL_ALL for (int v = 0; v < vectors; v++) {
            float16x8_t value = klaus_narrow_8h(low[v], high[v]);
            if (strip->activation != KLAUS_LINEAR)
                value = klaus_limit_8h(value, limits);
            klaus_store_8h(output + 8 * v, value);
        }
    }
}

__attribute__((noinline)) static void join_8(const klaus_gemm_f16_strip *strip, const uint16_t *sums, int32_t pieces,
                                             size_t step, int64_t rows, size_t at) {
    join(strip, sums, pieces, step, rows, at, 1);
}

__attribute__((noinline)) static void join_16(const klaus_gemm_f16_strip *strip, const uint16_t *sums, int32_t pieces,
                                              size_t step, int64_t rows, size_t at) {
    join(strip, sums, pieces, step, rows, at, 2);
}

__attribute__((noinline)) static void join_24(const klaus_gemm_f16_strip *strip, const uint16_t *sums, int32_t pieces,
                                              size_t step, int64_t rows, size_t at) {
    join(strip, sums, pieces, step, rows, at, 3);
}

/* ... and every other way: scales, float32 results, channels that are not all there. */
__attribute__((noinline)) static void join_some(const klaus_gemm_f16_strip *strip, const uint16_t *sums, int32_t pieces,
                                                size_t step, int64_t rows, size_t at) {
    const float *scale = (const float *)(const void *)((const uint8_t *)strip->panel + 16);
    const float *bias = scale + strip->width;
    const klaus_limits limits = klaus_activation_limits(strip->activation);
    const bool floats = strip->out_dtype == KLAUS_F32, wide = is_wide(strip);
    for (; rows > 0; rows--, sums += strip->width, at += strip->stride)
        for (int32_t c = 0; c < strip->outputs; c += 4) {
            const size_t count = strip->outputs - c < 4 ? (size_t)(strip->outputs - c) : 4, from = at + (size_t)c;
            float32x4_t value = vdupq_n_f32(0);
            for (int32_t n = 0; n < pieces; n++) {
                const uint16x4_t halves = vld1_u16(sums + (size_t)n * step + c);
                value = vaddq_f32(value, vcvt_f32_f16(vreinterpret_f16_u16(halves)));
            }
            if (wide)
                value = vfmaq_f32(vld1q_f32(bias + c), value, vld1q_f32(scale + c));
            float some[4] = {0, 0, 0, 0};
            uint16_t few[4] = {0, 0, 0, 0};
            if (strip->addend != NULL && floats) {
                memcpy(some, (const float *)strip->addend + from, count * sizeof(float));
                value = vaddq_f32(value, vld1q_f32(some));
            } else if (strip->addend != NULL) {
                memcpy(few, (const uint16_t *)strip->addend + from, count * 2);
                value = vaddq_f32(value, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(few))));
            }
            value = klaus_limit(value, limits);
            vst1q_f32(some, value);
            vst1_u16(few, vreinterpret_u16_f16(vcvt_f16_f32(value)));
            if (floats)
                memcpy((float *)strip->output + from, some, count * sizeof(float));
            else
                memcpy((uint16_t *)strip->output + from, few, count * 2);
        }
}

static void join_pieces(const klaus_gemm_f16_strip *strip, int32_t pieces, size_t step, int64_t rows, size_t at) {
    static void (*const ways[3])(const klaus_gemm_f16_strip *, const uint16_t *, int32_t, size_t, int64_t,
                                 size_t) = {join_8, join_16, join_24};
    const bool usual = pieces > 1 && !is_wide(strip) && strip->out_dtype == KLAUS_F16 && strip->outputs == strip->width;
    (usual ? ways[strip->width / 8 - 1] : join_some)(strip, strip->sums, pieces, step, rows, at);
}

/* Pointwise, whole tiles: all tiles of a piece before the next, so that the assembly has the loop. */
static void run_rows(const klaus_gemm_f16_strip *strip, const uint16_t *start, const cut *cut, bool plain) {
    static const uint16_t zeros[KLAUS_GEMM_F16_WIDTH];
    const int32_t width = strip->width;
    klaus_gemm_f16_rows rows = {.tiles = strip->tiles,
                                .width = width,
                                .input = strip->input + strip->offset,
                                .input_step = strip->input_step,
                                .weights = start + width,
                                .start = start,
                                .activation = plain ? strip->activation : KLAUS_LINEAR,
                                .output = plain ? strip->output : strip->sums,
                                .stride = plain ? strip->stride : (size_t)width};
    const int64_t all = (int64_t)strip->tiles * KLAUS_GEMM_F16_ROWS;
    for (int32_t done = 0; done < strip->depth; done += rows.depth) {
        rows.depth = strip->depth - done < cut->depth ? strip->depth - done : cut->depth;
        klaus_gemm_f16_rows_7(&rows);
        rows.input += rows.depth;
        rows.weights += rows.depth * width;
        rows.output += all * width;
        rows.start = zeros;
    }
    if (!plain)
        join_pieces(strip, cut->pieces, (size_t)(all * width), all, 0);
}

void klaus_gemm_f16_run(const klaus_gemm_f16_strip *strip) {
    static void (*const kernels[3][7])(const klaus_gemm_f16_piece *) = {
        {piece_1x8, piece_2x8, piece_3x8, piece_4x8, piece_5x8, piece_6x8, piece_7x8},
        {piece_1x16, piece_2x16, piece_3x16, piece_4x16, piece_5x16, piece_6x16, piece_7x16},
        {piece_1x24, piece_2x24, piece_3x24, piece_4x24, piece_5x24, piece_6x24, piece_7x24},
    };
    static const uint16_t zeros[KLAUS_GEMM_F16_WIDTH];
    const int32_t width = strip->width, rows = strip->rows;
    const uint16_t *start = (const uint16_t *)(const void *)((const uint8_t *)strip->panel +
                                                             klaus_gemm_f16_head_bytes(width) - (size_t)width * 2);
    const cut cut = cut_of(strip->taps, strip->depth);
    /* one piece, and nothing to do with it but what the micro-kernels can */
    const bool plain = cut.pieces == 1 && !is_wide(strip) && strip->out_dtype == KLAUS_F16 && strip->outputs == width;
    const bool assembly =
        rows == KLAUS_GEMM_F16_ROWS && (strip->depth % 8 == 0 || strip->readable) && (!plain || strip->addend == NULL);
    if (assembly && strip->inputs == NULL) {
        run_rows(strip, start, &cut, plain);
        return;
    }
    void (*const kernel)(const klaus_gemm_f16_piece *) =
        assembly && width == KLAUS_GEMM_F16_WIDTH ? klaus_gemm_f16_piece_7x24 : kernels[width / 8 - 1][rows - 1];
    const uint16_t *const *inputs = strip->inputs, *own[KLAUS_GEMM_F16_ROWS];
    const size_t tile_sums = (size_t)(rows * width);
    for (int32_t tile = 0; tile < strip->tiles; tile++) {
        const size_t at = (size_t)tile * (size_t)rows * strip->stride;
        klaus_gemm_f16_piece piece = {.weights = start + width, .start = start, .offset = strip->offset};
        if (strip->inputs == NULL) {
            for (int32_t r = 0; r < rows; r++)
                own[r] = strip->input + (size_t)(tile * rows + r) * strip->input_step;
            inputs = own;
        }
        if (plain) {
            piece.taps = strip->taps;
            piece.depth = strip->depth;
            piece.inputs = inputs;
            piece.activation = strip->activation;
            piece.addend = strip->addend != NULL ? (const uint16_t *)strip->addend + at : NULL;
            piece.output = (uint16_t *)strip->output + at;
            piece.stride = strip->stride;
            kernel(&piece);
            inputs += strip->taps * rows;
            continue;
        }
        piece.output = strip->sums;
        piece.stride = (size_t)width;
        for (int32_t tap = 0; tap < strip->taps; tap += piece.taps) {
            piece.taps = strip->taps - tap < cut.taps ? strip->taps - tap : cut.taps;
            piece.inputs = inputs;
            for (int32_t done = 0; done < strip->depth; done += piece.depth) {
                piece.depth = strip->depth - done < cut.depth ? strip->depth - done : cut.depth;
                piece.offset = strip->offset + (size_t)done;
                kernel(&piece);
                piece.weights += piece.taps * piece.depth * width;
                piece.start = zeros;
                piece.output += tile_sums;
            }
            inputs += piece.taps * rows;
        }
        join_pieces(strip, cut.pieces, tile_sums, rows, at);
    }
}
