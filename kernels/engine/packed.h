/* Weights in the layouts of kernels: found in the file, kept from an earlier plan, or packed. */
#ifndef KLAUS_ENGINE_PACKED_H
#define KLAUS_ENGINE_PACKED_H
#include "engine/session.h"

/* Bytes that klaus_packed_find would have to allocate for a step: 0 where the weights are in the file or held. */
uint64_t klaus_packed_missing(const klaus_session *session, const klaus_step *step);

/* Sets step->packed, packing the weights if nobody did so before. The pages of the file that they were made from are
 * given back, so that a model is never in memory twice. */
klaus_status klaus_packed_find(klaus_session *session, klaus_step *step, klaus_error *error);

/* Memory of all weights that the session packed; frees it. */
uint64_t klaus_packed_bytes(const klaus_session *session);
void klaus_packed_free(klaus_session *session);

#endif
