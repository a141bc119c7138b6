/* Pictures on their way into a session. */
#ifndef KLAUS_ENGINE_PICTURE_H
#define KLAUS_ENGINE_PICTURE_H
#include "engine/session.h"

#define KLAUS_COLOURS 3

/* Refuses what the model does not take and pictures of sizes that cannot be. */
klaus_status klaus_picture_check(const klaus_session *session, const klaus_picture *picture, klaus_error *error);

/* Room for rows x cols x KLAUS_COLOURS numbers. */
klaus_status klaus_tensor_need(klaus_buffer *buffer, int64_t rows, int64_t cols, klaus_error *error);

/* How much of a formed picture ccv's networks scan: whole strides beyond the nominal input. */
klaus_extent klaus_fed_extent(const klaus_model *model, int32_t formed_rows, int32_t formed_cols);

/* A whole picture as ccv's networks scan it, into session->tensor: formed, cropped to whole strides, the mean
 * subtracted; `fed` says how large it became. */
klaus_status klaus_feed_ccv(klaus_session *session, const klaus_picture *picture, klaus_extent *fed,
                            klaus_error *error);

/* Copies rows x cols, from (top, left) on, out of a larger tensor. */
void klaus_cut(const float *from, const klaus_extent *extent, int32_t top, int32_t left, int32_t rows, int32_t cols,
               float *to);

#endif
