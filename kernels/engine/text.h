/* Checks of text that a packed model carries: UTF-8 and JSON. */
#ifndef KLAUS_ENGINE_TEXT_H
#define KLAUS_ENGINE_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one character of UTF-8 from `length` > 0 bytes; returns its length, 0 where the bytes are none. */
size_t klaus_text_read(const char *text, size_t length, uint32_t *character);

/* True for characters that could act on a terminal or break a line: below U+0020, U+007F to U+009F, line and paragraph
 * separators, and those that turn the direction of writing. */
bool klaus_text_is_control(uint32_t character);

/* True for well-formed UTF-8 (no surrogates, no overlong forms) without control characters except those in `allowed`
 * (ASCII; may be ""). */
bool klaus_text_clean(const char *text, size_t length, const char *allowed);

/* True where the text is one JSON object (RFC 8259), at most 32 levels deep. Copies the string behind the key "name"
 * of the outermost object into `name`, cut to whole characters, or "" where there is none. */
bool klaus_text_json_object(const char *text, size_t length, char *name, size_t name_bytes);

#endif
