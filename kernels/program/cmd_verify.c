#include "engine/fail.h"
#include "engine/sha256.h"
#include "os/os.h"
#include "program/command.h"
#include "program/sink.h"

static klaus_status hash_file(const char *path, char hex[KLAUS_SHA256_HEX_BYTES], klaus_error *error) {
    klaus_mapping file;
    const klaus_status status = klaus_os_map(path, &file, error);
    if (status == KLAUS_OK) {
        klaus_sha256 hash;
        uint8_t digest[KLAUS_SHA256_BYTES];
        klaus_sha256_begin(&hash);
        klaus_sha256_add(&hash, file.bytes, file.size);
        klaus_sha256_end(&hash, digest);
        klaus_sha256_hex(digest, hex);
        klaus_os_unmap(&file);
    }
    return status;
}

klaus_status command_verify(int argc, char **argv, klaus_error *error) {
    operands rest;
    klaus_status status = arguments_read(NULL, 0, argc, argv, &rest, error);
    if (status != KLAUS_OK) {
        return status;
    }
    if (rest.count != 1) {
        return klaus_fail(error, KLAUS_E_INPUT, "name one packed model: klaus-run verify MODEL");
    }
    const char *path = rest.texts[0];
    klaus_model *model = NULL;
    char hex[KLAUS_SHA256_HEX_BYTES];
    status = klaus_open(path, &model, error);
    if (status != KLAUS_OK) {
        return status;
    }
    status = hash_file(path, hex, error);
    if (status == KLAUS_OK) {
        klaus_description net;
        klaus_describe(model, &net);
        int32_t unchecked = 0;
        status = klaus_verify(model, &unchecked, error);
        sink_begin("verify");
        sink_text("model", path);
        sink_bool("ok", status == KLAUS_OK);
        sink_uint("file_bytes", net.file_bytes);
        sink_text("sha256", hex);
        sink_int("layers", net.layer_count);
        sink_text("name", net.name);
        sink_bool("seeded", net.seeded != 0);
        sink_int("unchecked", unchecked);
        sink_end();
    }
    klaus_close(model);
    if (status != KLAUS_OK) {
        klaus_fail_prefix(error, path);
    }
    return status;
}
