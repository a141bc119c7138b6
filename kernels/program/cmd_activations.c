#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/fail.h"
#include "os/os.h"
#include "program/command.h"
#include "program/sink.h"
#include "program/whole_file.h"

typedef struct dump {
    const klaus_model *model;
    const char *folder;
    klaus_error error;
} dump;

static int32_t write_layer(void *user, int32_t layer, const float *values, int32_t rows, int32_t cols,
                           int32_t channels) {
    dump *to = user;
    char name[32];
    char path[KLAUS_MAX_PATH];
    klaus_layer_description facts;
    snprintf(name, sizeof(name), "layer-%02" PRId32 ".f32", layer);
    if (snprintf(path, sizeof(path), "%s/%s", to->folder, name) >= (int)sizeof(path)) {
        klaus_fail(&to->error, KLAUS_E_INPUT, "%.200s...: the path is too long", to->folder);
        return 1;
    }
    const uint64_t count = (uint64_t)rows * (uint64_t)cols * (uint64_t)channels;
    if (write_floats(path, values, count, &to->error) != KLAUS_OK) {
        return 1;
    }
    klaus_describe_layer(to->model, layer, &facts);
    sink_begin("activation");
    sink_int("layer", layer);
    sink_text("name", facts.name);
    sink_text("file", name);
    sink_int("rows", rows);
    sink_int("cols", cols);
    sink_int("channels", channels);
    sink_end();
    return 0;
}

klaus_status command_activations(int argc, char **argv, klaus_error *error) {
    session_arguments session = SESSION_ARGUMENTS_DEFAULT;
    const char *input_path = NULL;
    const char *folder = NULL;
    argument table[SESSION_ARGUMENT_COUNT + 2] = {
        {"--input", ARGUMENT_TEXT, &input_path, 0, 0, NULL, true},
        {"--out", ARGUMENT_TEXT, &folder, 0, 0, NULL, true},
    };
    session_arguments_describe(&session, true, table + 2);
    operands rest;
    klaus_status status = arguments_read(table, SESSION_ARGUMENT_COUNT + 2, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    session.unfused = true; /* every layer is to be seen */
    opened net;
    status = open_session(&session, &net, error);
    if (status != KLAUS_OK) {
        return status;
    }
    float *input = NULL;
    dump to = {net.model, folder, {KLAUS_OK, ""}};
    status = read_tensor(input_path, &net.net, &input, error);
    if (status == KLAUS_OK) {
        status = klaus_os_make_folder(folder, error);
    }
    if (status == KLAUS_OK) {
        status = klaus_run_layers(net.session, input, write_layer, &to, error);
        if (to.error.status != KLAUS_OK) { /* why the run was stopped */
            *error = to.error;
            status = to.error.status;
        }
    }
    free(input);
    close_session(&net);
    return status;
}
