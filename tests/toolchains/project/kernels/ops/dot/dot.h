#ifndef DOT_H
#define DOT_H
float dot_ref(const float *a, const float *b, int count);
float dot_neon(const float *a, const float *b, int count);
float dot_neon64(const float *a, const float *b, int count);
float dot_fp16(const float *a, const float *b, int count);
int dot_int8(const signed char *a, const signed char *b);
int dot_int8_i8mm(const signed char *a, const signed char *b);
const char *os_name(void);
#endif
