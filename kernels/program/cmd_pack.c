#include <stdio.h>

#include "engine/fail.h"
#include "program/command.h"
#include "program/sink.h"
#include "program/whole_file.h"

static int32_t write_more(void *user, const void *bytes, size_t size) {
    return whole_file_write(user, bytes, size) ? 0 : 1;
}

klaus_status command_pack(int argc, char **argv, klaus_error *error) {
    session_arguments session = SESSION_ARGUMENTS_DEFAULT;
    const char *path = NULL;
    argument table[SESSION_ARGUMENT_COUNT + 1] = {{"--out", ARGUMENT_TEXT, &path, 0, 0, NULL, true}};
    session_arguments_describe(&session, true, table + 1);
    operands rest;
    klaus_status status = arguments_read(table, SESSION_ARGUMENT_COUNT + 1, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    opened net;
    status = open_session(&session, &net, error);
    if (status != KLAUS_OK) {
        return status;
    }
    /* A model file with a wrong byte would be written anew with a digest that says it is right. */
    status = klaus_verify(net.model, NULL, error);
    whole_file file;
    if (status == KLAUS_OK) {
        status = whole_file_open(&file, path, error);
    }
    if (status == KLAUS_OK) {
        int32_t sections = 0;
        status = klaus_write_packed(net.session, write_more, &file, &sections, error);
        const uint64_t bytes = file.bytes;
        status = whole_file_close(&file, file.reason != 0 ? KLAUS_OK : status, error); /* it knows why better */
        if (status == KLAUS_OK) {
            sink_begin("pack");
            sink_text("file", path);
            sink_uint("bytes", bytes);
            sink_int("sections", sections);
            sink_end();
        }
    }
    close_session(&net);
    return status;
}
