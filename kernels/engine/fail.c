#include "engine/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Paths and names end up in terminals and logs: no byte of them may act as a control sequence. */
static void neutralise(char *text) {
    for (; *text != '\0'; text++) {
        const unsigned char byte = (unsigned char)*text;
        if (byte < 0x20 || byte == 0x7f) {
            *text = '?';
        }
    }
}

/* A message that was cut must not end inside a UTF-8 sequence. */
static void trim_utf8(char *text) {
    size_t length = strlen(text);
    size_t start = length;
    while (start > 0 && length - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80) {
        start--;
    }
    if (start == 0) {
        return;
    }
    const unsigned char lead = (unsigned char)text[start - 1];
    const size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (wanted > 1 && length - (start - 1) < wanted) {
        text[start - 1] = '\0';
    }
}

klaus_status klaus_fail(klaus_error *error, klaus_status status, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof(error->message), format, arguments);
        va_end(arguments);
        neutralise(error->message);
        trim_utf8(error->message);
        error->status = status;
    }
    return status;
}

void klaus_fail_prefix(klaus_error *error, const char *prefix) {
    if (error == NULL) {
        return;
    }
    char message[sizeof(error->message)];
    memcpy(message, error->message, sizeof(message));
    /* A long path must not push the reason out of the line. */
    klaus_fail(error, error->status, "%.200s: %s", prefix, message);
}
