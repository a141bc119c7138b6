#include <inttypes.h>
#include <stdlib.h>

#include "engine/fail.h"
#include "program/batch.h"
#include "program/command.h"
#include "program/sink.h"

static const char *const crop_words[] = {"none", "center", NULL};

static klaus_status classify_all(const opened *net, batch *pictures, int32_t patches, int32_t crop, int32_t top,
                                 klaus_error *error) {
    float *probabilities = malloc((size_t)net->net.outputs * sizeof(*probabilities));
    klaus_status status = KLAUS_OK;
    if (probabilities == NULL) {
        status = klaus_fail(error, KLAUS_E_MEMORY, "no memory for %d probabilities", net->net.outputs);
    }
    for (uint32_t i = 0; i < pictures->count && status == KLAUS_OK; i++) {
        batch_picture picture;
        klaus_timing timing;
        batch_next(pictures, &picture);
        status = klaus_classify(net->session, &picture.picture, patches, crop, probabilities, &timing, error);
        if (status != KLAUS_OK) {
            char which[64];
            klaus_error named;
            klaus_fail(&named, status, "picture %" PRIu32 " (%.*s)", i,
                       picture.id_bytes < 30 ? (int)picture.id_bytes : 30, picture.id);
            for (size_t k = 0; k < sizeof(which); k++) {
                which[k] = named.message[k];
            }
            which[sizeof(which) - 1] = '\0';
            klaus_fail_prefix(error, which);
            break;
        }
        sink_begin("picture");
        sink_bytes("id", picture.id, picture.id_bytes);
        sink_uint("preprocess_ns", timing.preprocess_ns);
        sink_uint("forward_ns", timing.forward_ns);
        sink_top(net->model, probabilities, net->net.outputs, top);
        sink_end();
        if (!sink_works()) {
            break;
        }
    }
    free(probabilities);
    return status;
}

klaus_status command_classify(int argc, char **argv, klaus_error *error) {
    session_arguments session = SESSION_ARGUMENTS_DEFAULT;
    const char *batch_path = NULL;
    int64_t top = 5;
    int64_t patches = 0;
    int32_t crop = 1;
    argument table[SESSION_ARGUMENT_COUNT + 4] = {
        {"--images", ARGUMENT_TEXT, &batch_path, 0, 0, NULL, true},
        {"--top", ARGUMENT_NUMBER, &top, 1, MAX_TOP, NULL, false},
        {"--patches", ARGUMENT_NUMBER, &patches, 1, 10, NULL, false},
        {"--crop", ARGUMENT_CHOICE, &crop, 0, 0, crop_words, false},
    };
    session_arguments_describe(&session, true, table + 4);
    operands rest;
    klaus_status status = arguments_read(table, SESSION_ARGUMENT_COUNT + 4, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    opened net;
    if (status == KLAUS_OK) {
        status = open_session(&session, &net, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    batch pictures;
    status = batch_open(batch_path, &pictures, error);
    if (status == KLAUS_OK) {
        status =
            classify_all(&net, &pictures, patches == 0 ? net.net.patches : (int32_t)patches, crop, (int32_t)top, error);
        batch_close(&pictures);
    }
    close_session(&net);
    return status;
}
