/* The parts of opening a packed model; model.c calls them in this order. */
#ifndef KLAUS_ENGINE_CHECKS_H
#define KLAUS_ENGINE_CHECKS_H
#include "engine/sections.h"

/* model->network, already copied, is one that the engine can run. */
klaus_status klaus_check_network(const klaus_model *model, klaus_error *error);

/* Fills model->layers, data, codebooks, weight_count and tail. */
klaus_status klaus_read_layers(klaus_model *model, const klaus_section_index *index, klaus_error *error);

static inline bool klaus_is_dimension(int32_t value) {
    return value >= 1 && value <= KLAUS_MAX_DIMENSION;
}

#endif
