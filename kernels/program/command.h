/* What the commands of klaus-run share. One file a command; each returns a status, with `error` filled where it is not
 * KLAUS_OK. */
#ifndef KLAUS_PROGRAM_COMMAND_H
#define KLAUS_PROGRAM_COMMAND_H
#include "klaus/klaus.h"
#include "program/arguments.h"

#define MAX_TOP 1000

klaus_status command_info(int argc, char **argv, klaus_error *error);
klaus_status command_verify(int argc, char **argv, klaus_error *error);
klaus_status command_bench(int argc, char **argv, klaus_error *error);
klaus_status command_classify(int argc, char **argv, klaus_error *error);
klaus_status command_activations(int argc, char **argv, klaus_error *error);
klaus_status command_pack(int argc, char **argv, klaus_error *error);
klaus_status command_check(int argc, char **argv, klaus_error *error);
klaus_status command_hash(int argc, char **argv, klaus_error *error);

/* For ARGUMENT_CHOICE; positions are the values of the enums of klaus.h. */
extern const char *const isa_words[];
extern const char *const precision_words[];
extern const char *const memory_words[];

/* The options that every command with a session takes. */
typedef struct session_arguments {
    const char *model;
    int64_t threads;
    int32_t isa, precision, memory;
    const char *variant;
    bool unfused, mark, watch;
} session_arguments;

#define SESSION_ARGUMENTS_DEFAULT {NULL, 1, KLAUS_ISA_AUTO, KLAUS_FP32, KLAUS_MEMORY_DEFAULT, NULL, false, false, false}
#define SESSION_ARGUMENT_COUNT 7

/* Writes SESSION_ARGUMENT_COUNT rows to `table`. */
void session_arguments_describe(session_arguments *values, bool model_required, argument *table);

/* A model and a session on it. */
typedef struct opened {
    klaus_model *model;
    klaus_session *session;
    klaus_description net;
    uint64_t open_ns, session_ns;
} opened;

klaus_status open_session(const session_arguments *arguments, opened *result, klaus_error *error);
void close_session(opened *result);

/* Refuses operands where a command takes none. */
klaus_status no_operands(const operands *rest, klaus_error *error);

/* Values of the network's input tensor from a file that holds exactly these, all finite. */
klaus_status read_tensor(const char *path, const klaus_description *net, float **values, klaus_error *error);

/* The field "top" of a record; k at most MAX_TOP. */
void sink_top(const klaus_model *model, const float *probabilities, int32_t outputs, int32_t k);

#endif
