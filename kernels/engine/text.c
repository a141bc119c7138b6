#include "engine/text.h"

#include <string.h>

enum { MAX_DEPTH = 32 };

size_t klaus_text_read(const char *text, size_t length, uint32_t *character) {
    const uint8_t *bytes = (const uint8_t *)text;
    const uint8_t lead = bytes[0];
    const size_t size = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (size == 1) {
        *character = lead;
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4 || length < size) {
        return 0;
    }
    uint32_t value = lead & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (bytes[i] & 0x3fu);
    }
    if (value < smallest[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *character = value;
    return size;
}

bool klaus_text_is_control(uint32_t character) {
    return character < 0x20 || (character >= 0x7f && character <= 0x9f) ||
           (character >= 0x2028 && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
}

bool klaus_text_clean(const char *text, size_t length, const char *allowed) {
    for (size_t at = 0; at < length;) {
        uint32_t character = 0;
        const size_t size = klaus_text_read(text + at, length - at, &character);
        if (size == 0 || character == 0) {
            return false;
        }
        if (klaus_text_is_control(character) && (character > 0x7f || strchr(allowed, (int)character) == NULL)) {
            return false;
        }
        at += size;
    }
    return true;
}

typedef struct json {
    const char *next, *end;
    char *name;
    size_t name_bytes;
} json;

static void skip_space(json *in) {
    while (in->next < in->end && (*in->next == ' ' || *in->next == '\t' || *in->next == '\n' || *in->next == '\r')) {
        in->next++;
    }
}

static bool take(json *in, char wanted) {
    skip_space(in);
    if (in->next < in->end && *in->next == wanted) {
        in->next++;
        return true;
    }
    return false;
}

static int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    const char lower = (char)(digit | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool read_hex4(json *in, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = in->next < in->end ? hex_digit(*in->next) : -1;
        if (digit < 0) {
            return false;
        }
        *unit = *unit << 4 | (uint32_t)digit;
        in->next++;
    }
    return true;
}

/* Where a string is written to: always zero-terminated, cut before the first character that does not fit. */
typedef struct cut_text {
    char *text;
    size_t capacity, length;
    bool full;
} cut_text;

static void append_character(cut_text *out, uint32_t c) {
    char bytes[4];
    size_t size = 0;
    if (c < 0x80) {
        bytes[size++] = (char)c;
    } else if (c < 0x800) {
        bytes[size++] = (char)(0xc0 | c >> 6);
        bytes[size++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        bytes[size++] = (char)(0xe0 | c >> 12);
        bytes[size++] = (char)(0x80 | (c >> 6 & 0x3f));
        bytes[size++] = (char)(0x80 | (c & 0x3f));
    } else {
        bytes[size++] = (char)(0xf0 | c >> 18);
        bytes[size++] = (char)(0x80 | (c >> 12 & 0x3f));
        bytes[size++] = (char)(0x80 | (c >> 6 & 0x3f));
        bytes[size++] = (char)(0x80 | (c & 0x3f));
    }
    if (out->full || out->capacity - out->length <= size) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->length, bytes, size);
    out->length += size;
    out->text[out->length] = '\0';
}

static bool read_escape(json *in, uint32_t *character) {
    static const char codes[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    if (in->next >= in->end) {
        return false;
    }
    const char code = *in->next++;
    if (code != 'u') {
        const char *found = code == '\0' ? NULL : strchr(codes, code);
        if (found == NULL) {
            return false;
        }
        *character = (uint32_t)values[found - codes];
        return true;
    }
    uint32_t low = 0;
    if (!read_hex4(in, character)) {
        return false;
    }
    if (*character >= 0xdc00 && *character <= 0xdfff) {
        return false;
    }
    if (*character < 0xd800 || *character > 0xdbff) {
        return true;
    }
    if (in->end - in->next < 6 || in->next[0] != '\\' || in->next[1] != 'u') {
        return false;
    }
    in->next += 2;
    if (!read_hex4(in, &low) || low < 0xdc00 || low > 0xdfff) {
        return false;
    }
    *character = 0x10000 + ((*character - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static bool read_string(json *in, cut_text *out) {
    if (!take(in, '"')) {
        return false;
    }
    out->text[0] = '\0';
    while (in->next < in->end) {
        uint32_t character = 0;
        const size_t size = klaus_text_read(in->next, (size_t)(in->end - in->next), &character);
        if (size == 0 || character < 0x20) {
            return false;
        }
        in->next += size;
        if (character == '"') {
            return true;
        }
        if (character == '\\' && !read_escape(in, &character)) {
            return false;
        }
        append_character(out, character);
    }
    return false;
}

static bool read_digits(json *in) {
    const char *start = in->next;
    while (in->next < in->end && *in->next >= '0' && *in->next <= '9') {
        in->next++;
    }
    return in->next > start;
}

static bool read_number(json *in) {
    if (in->next < in->end && *in->next == '-') {
        in->next++;
    }
    const char *start = in->next;
    if (!read_digits(in) || (*start == '0' && in->next - start > 1)) {
        return false;
    }
    if (in->next < in->end && *in->next == '.') {
        in->next++;
        if (!read_digits(in)) {
            return false;
        }
    }
    if (in->next < in->end && (*in->next == 'e' || *in->next == 'E')) {
        in->next++;
        if (in->next < in->end && (*in->next == '+' || *in->next == '-')) {
            in->next++;
        }
        return read_digits(in);
    }
    return true;
}

static bool read_word(json *in, const char *word) {
    const size_t length = strlen(word);
    if ((size_t)(in->end - in->next) < length || memcmp(in->next, word, length) != 0) {
        return false;
    }
    in->next += length;
    return true;
}

static bool read_value(json *in, int depth);

static bool read_array(json *in, int depth) {
    if (take(in, ']')) {
        return true;
    }
    do {
        if (!read_value(in, depth + 1)) {
            return false;
        }
    } while (take(in, ','));
    return take(in, ']');
}

static bool read_object(json *in, int depth) {
    if (take(in, '}')) {
        return true;
    }
    do {
        char key_text[8];
        cut_text key = {key_text, sizeof(key_text), 0, false};
        if (!read_string(in, &key) || !take(in, ':')) {
            return false;
        }
        skip_space(in);
        const bool wanted = depth == 0 && !key.full && strcmp(key_text, "name") == 0;
        if (wanted && in->next < in->end && *in->next == '"') {
            cut_text name = {in->name, in->name_bytes, 0, false};
            if (!read_string(in, &name)) {
                return false;
            }
        } else if (!read_value(in, depth + 1)) {
            return false;
        }
    } while (take(in, ','));
    return take(in, '}');
}

static bool read_value(json *in, int depth) {
    skip_space(in);
    if (in->next >= in->end || depth > MAX_DEPTH) {
        return false;
    }
    char ignored_text[8];
    cut_text ignored = {ignored_text, sizeof(ignored_text), 0, false};
    switch (*in->next) {
    case '{':
        in->next++;
        return read_object(in, depth);
    case '[':
        in->next++;
        return read_array(in, depth);
    case '"':
        return read_string(in, &ignored);
    case 't':
        return read_word(in, "true");
    case 'f':
        return read_word(in, "false");
    case 'n':
        return read_word(in, "null");
    default:
        return read_number(in);
    }
}

bool klaus_text_json_object(const char *text, size_t length, char *name, size_t name_bytes) {
    json in = {text, text + length, name, name_bytes};
    name[0] = '\0';
    skip_space(&in);
    if (in.next >= in.end || *in.next != '{' || !read_value(&in, 0)) {
        return false;
    }
    skip_space(&in);
    return in.next == in.end;
}
