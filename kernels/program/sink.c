#include "program/sink.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text.h"

/* The record that is being made. One program, one stdout, one thread that writes to it. */
static struct {
    char *text;
    size_t length, capacity;
    bool broken;
    bool comma; /* something stands before in this object or array */
} line;

static void append(const char *text, size_t length) {
    if (line.broken) {
        return;
    }
    if (line.length + length > line.capacity) {
        const size_t capacity = 2 * (line.length + length) + 256;
        char *grown = realloc(line.text, capacity);
        if (grown == NULL) {
            line.broken = true;
            return;
        }
        line.text = grown;
        line.capacity = capacity;
    }
    memcpy(line.text + line.length, text, length);
    line.length += length;
}

static void append_text(const char *text) {
    append(text, strlen(text));
}

static void append_escape(uint32_t character) {
    char escape[8];
    snprintf(escape, sizeof(escape), "\\u%04" PRIx32, character);
    append_text(escape);
}

/* Control characters, C1 and DEL included, are escaped: a line may be shown on a terminal as it is. */
static void append_string(const char *text, size_t length) {
    append_text("\"");
    for (size_t at = 0; at < length;) {
        uint32_t character = 0;
        const size_t size = klaus_text_read(text + at, length - at, &character);
        if (size == 0) {
            append_text("\\ufffd");
            at++;
            continue;
        }
        if (character == '"' || character == '\\') {
            append_text("\\");
            append(text + at, 1);
        } else if (klaus_text_is_control(character)) {
            append_escape(character);
        } else {
            append(text + at, size);
        }
        at += size;
    }
    append_text("\"");
}

static void append_key(const char *key) {
    if (line.comma) {
        append_text(",");
    }
    line.comma = true;
    if (key != NULL) {
        append_string(key, strlen(key));
        append_text(":");
    }
}

void sink_begin(const char *record) {
    line.length = 0;
    line.comma = false;
    append_text("{");
    sink_text("record", record);
}

void sink_text(const char *key, const char *value) {
    sink_bytes(key, value, strlen(value));
}

void sink_bytes(const char *key, const char *value, uint64_t length) {
    append_key(key);
    append_string(value, (size_t)length);
}

void sink_int(const char *key, int64_t value) {
    char number[32];
    append_key(key);
    snprintf(number, sizeof(number), "%" PRId64, value);
    append_text(number);
}

void sink_uint(const char *key, uint64_t value) {
    char number[32];
    append_key(key);
    snprintf(number, sizeof(number), "%" PRIu64, value);
    append_text(number);
}

void sink_number(const char *key, double value) {
    char number[32] = "null";
    append_key(key);
    if (isfinite(value)) {
        snprintf(number, sizeof(number), "%.9g", value);
    }
    append_text(number);
}

void sink_bool(const char *key, bool value) {
    append_key(key);
    append_text(value ? "true" : "false");
}

static void open_bracket(const char *key, const char *bracket) {
    append_key(key);
    append_text(bracket);
    line.comma = false;
}

static void close_bracket(const char *bracket) {
    append_text(bracket);
    line.comma = true;
}

void sink_open_array(const char *key) {
    open_bracket(key, "[");
}

void sink_close_array(void) {
    close_bracket("]");
}

void sink_open_object(const char *key) {
    open_bracket(key, "{");
}

void sink_close_object(void) {
    close_bracket("}");
}

static void write_out(const char *text, size_t length) {
    if (!line.broken && (fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0)) {
        line.broken = true;
    }
}

void sink_end(void) {
    append_text("}\n");
    write_out(line.text, line.length);
}

void sink_line(const char *text) {
    line.length = 0;
    append_text(text);
    append_text("\n");
    write_out(line.text, line.length);
}

bool sink_works(void) {
    return !line.broken;
}
