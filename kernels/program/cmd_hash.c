#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/fail.h"
#include "engine/sha256.h"
#include "program/command.h"
#include "program/sink.h"

/* Read, not mapped: a file that shrinks meanwhile gives another hash, not a signal. */
static klaus_status hash_one(const char *path, klaus_error *error) {
    static uint8_t block[1 << 16];
    klaus_sha256 hash;
    uint8_t digest[KLAUS_SHA256_BYTES];
    char hex[KLAUS_SHA256_HEX_BYTES];
    ssize_t got = 0;
    struct stat facts;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.300s: cannot be opened: %s", path, strerror(errno));
    }
    if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        close(file);
        return klaus_fail(error, KLAUS_E_INPUT, "%.300s: is not a regular file", path);
    }
    klaus_sha256_begin(&hash);
    do {
        got = read(file, block, sizeof(block));
        if (got > 0) {
            klaus_sha256_add(&hash, block, (size_t)got);
        }
    } while (got > 0 || (got < 0 && errno == EINTR));
    const int reason = errno;
    close(file);
    if (got < 0) {
        return klaus_fail(error, KLAUS_E_INPUT, "%.300s: cannot be read: %s", path, strerror(reason));
    }
    const uint64_t bytes = hash.total_bytes;
    klaus_sha256_end(&hash, digest);
    klaus_sha256_hex(digest, hex);
    sink_begin("hash");
    sink_text("file", path);
    sink_text("sha256", hex);
    sink_uint("bytes", bytes);
    sink_end();
    return KLAUS_OK;
}

klaus_status command_hash(int argc, char **argv, klaus_error *error) {
    operands rest;
    klaus_status status = arguments_read(NULL, 0, argc, argv, &rest, error);
    if (status == KLAUS_OK && rest.count == 0) {
        status = klaus_fail(error, KLAUS_E_INPUT, "name files: klaus-run hash FILE...");
    }
    if (status != KLAUS_OK) {
        return status;
    }
    /* One file that cannot be read does not keep the others from being hashed; the first is reported. */
    for (int32_t i = 0; i < rest.count; i++) {
        klaus_error here = {KLAUS_OK, ""};
        if (hash_one(rest.texts[i], &here) != KLAUS_OK && status == KLAUS_OK) {
            *error = here;
            status = here.status;
        }
    }
    return status;
}
