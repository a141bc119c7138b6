#define squares_start 1.0f
