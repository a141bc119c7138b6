/* A stand-in for the real library: small, with every kind of file that the build tells apart. */
#ifndef KLAUS_H
#define KLAUS_H
#pragma GCC visibility push(default)
float klaus_dot(const float *a, const float *b, int count);
const char *klaus_system(void);
#pragma GCC visibility pop
#endif
