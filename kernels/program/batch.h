/* A batch of pictures in a mapped file. */
#ifndef KLAUS_PROGRAM_BATCH_H
#define KLAUS_PROGRAM_BATCH_H
#include "klaus/klaus.h"
#include "os/os.h"

typedef struct batch {
    klaus_mapping file;
    uint32_t count;
    size_t next; /* where the picture that batch_next() reads next begins */
} batch;

typedef struct batch_picture {
    const char *id; /* not terminated */
    uint32_t id_bytes;
    klaus_picture picture;
} batch_picture;

/* Maps the file and checks all of it: after that batch_next() cannot fail. */
klaus_status batch_open(const char *path, batch *pictures, klaus_error *error);
void batch_close(batch *pictures);
void batch_next(batch *pictures, batch_picture *picture);

#endif
