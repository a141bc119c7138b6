#include "engine/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/text.h"

/* Paths and names end up in terminals and logs: no byte of them may act as a control sequence, and a message that was
 * cut must not end inside a character. */
static void neutralise(char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        uint32_t character = 0;
        const size_t read = klaus_text_read(text, left, &character);
        const size_t size = read > 0 ? read : 1;
        if (read == 0 || klaus_text_is_control(character)) {
            memset(text, '?', size);
        }
        text += size;
        left -= size;
    }
}

klaus_status klaus_fail(klaus_error *error, klaus_status status, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof(error->message), format, arguments);
        va_end(arguments);
        neutralise(error->message);
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
