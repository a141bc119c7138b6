/* JSON Lines on stdout: one object a record, written and flushed whole. docs/device-program.md lists the records. */
#ifndef KLAUS_PROGRAM_SINK_H
#define KLAUS_PROGRAM_SINK_H
#include <stdbool.h>
#include <stdint.h>

/* One object at a time: begin, fields, end. Arrays and objects nest. */
void sink_begin(const char *record);
void sink_text(const char *key, const char *value);
/* A string that need not be terminated or be UTF-8; what is not becomes U+FFFD. */
void sink_bytes(const char *key, const char *value, uint64_t length);
void sink_int(const char *key, int64_t value);
void sink_uint(const char *key, uint64_t value);
/* %.9g; null for what JSON cannot say. */
void sink_number(const char *key, double value);
void sink_bool(const char *key, bool value);
void sink_open_array(const char *key);
void sink_close_array(void);
void sink_open_object(const char *key);
void sink_close_object(void);
void sink_end(void);

/* A line that is a JSON object already. */
void sink_line(const char *line);

/* False once a line could not be written (a closed pipe, a full disk, no memory). */
bool sink_works(void);

#endif
