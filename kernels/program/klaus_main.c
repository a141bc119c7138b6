/* klaus-run: runs packed models on this device. JSON Lines on stdout, messages on stderr. docs/device-program.md is its
 * manual. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "engine/fail.h"
#include "program/command.h"
#include "program/sink.h"

static const char usage[] =
    "usage: klaus-run COMMAND ...\n"
    "  info [--plan --model M [SESSION]]          this device, the program, and the plan for a model\n"
    "  verify MODEL                               read every byte of a packed model and check it\n"
    "  bench --model M [--input X.f32] [--runs N] [--warmup N] [--patches 1|10] [--profile] [--mark]\n"
    "        [--logits FILE] [--layer-memory] [SESSION]   time passes, or with --patches 10 ten-patch jobs\n"
    "  classify --model M --images BATCH [--top K] [--patches 1|10] [--crop center|none] [SESSION]\n"
    "  activations --model M --input X.f32 --out DIR [SESSION]   one file a layer\n"
    "  pack --model M --out FILE [SESSION]        the model with weights as this device's kernels want them\n"
    "  check [--op OP] [--isa I] [--seed N] [--bench] [--list]   every kernel against its reference\n"
    "  hash FILE...                               SHA-256 of files\n"
    "  help\n"
    "SESSION: [--threads N] [--isa auto|ref|neon|neon_fp16|neon_dotprod|neon_i8mm] [--precision fp32|fp16|int8]\n"
    "         [--memory default|lean] [--variant NAME] [--unfused]\n"
    "Exit codes: 0 pass, 1 a check failed, 2 usage or bad input, 5 internal error.\n";

static const struct command {
    const char *name;
    klaus_status (*run)(int argc, char **argv, klaus_error *error);
} commands[] = {
    {"info", command_info},
    {"verify", command_verify},
    {"bench", command_bench},
    {"classify", command_classify},
    {"activations", command_activations},
    {"check", command_check},
    {"pack", command_pack},
    {"hash", command_hash},
};

/* A device that has too little memory for a model was asked for too much: bad input. */
static int exit_code(klaus_status status) {
    switch (status) {
    case KLAUS_OK:
        return 0;
    case KLAUS_E_CHECK:
        return 1;
    case KLAUS_E_INPUT:
    case KLAUS_E_MEMORY:
        return 2;
    default:
        return 5;
    }
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file beyond a limit is a failed write, which is told */
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        fputs(usage, stderr);
        return 0;
    }
    klaus_error error = {KLAUS_OK, ""};
    klaus_status status = KLAUS_E_INPUT;
    const struct command *command = NULL;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            command = &commands[i];
        }
    }
    if (command != NULL) {
        status = command->run(argc, argv, &error);
    } else if (argc > 1) {
        klaus_fail(&error, KLAUS_E_INPUT, "'%.80s' is no command; `klaus-run help` lists them", name);
    } else {
        fputs(usage, stderr);
        return exit_code(KLAUS_E_INPUT);
    }
    if (!sink_works()) {
        status =
            klaus_fail(&error, KLAUS_E_INTERNAL, "stdout cannot be written to; is its reader gone, the disk full?");
    }
    if (status != KLAUS_OK) {
        fprintf(stderr, "klaus-run: %s%s%s\n", command != NULL ? command->name : "", command != NULL ? ": " : "",
                error.message);
    }
    return exit_code(status);
}
