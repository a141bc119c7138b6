/* A plugin for qemu's user mode (TCG plugin interface, version 1: qemu 4.2 to 8.2) that counts what a 64-bit ARM
 * program executes, by class.
 *
 *   qemu-aarch64 -plugin instructions.so,out=FILE PROGRAM
 *
 * The program marks a point by the system call getpriority(0x4b4c, TAG), which fails and does nothing else. What was
 * executed since the mark before becomes a line of FILE: the tag, then one number a column of the first line. The last
 * line's tag is `exit`.
 *
 * Each translated block has one counter, which qemu itself increments; a mark multiplies it by what the block holds.
 * Counters are not atomic: one busy thread. The few declarations of qemu's that are used stand here, so that no header
 * of its is needed to build this. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

#define QEMU_INTERFACE 1
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_INLINE_ADD = 0 };

typedef void (*translated_function)(qemu_id, struct qemu_plugin_tb *);
typedef void (*syscall_function)(qemu_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t);
typedef void (*exit_function)(qemu_id, void *);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_id, translated_function);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_id, syscall_function);
void qemu_plugin_register_atexit_cb(qemu_id, exit_function, void *);

EXPORT int qemu_plugin_version = QEMU_INTERFACE;
EXPORT int qemu_plugin_install(qemu_id id, const void *info, int argc, char **argv);

#define GETPRIORITY 141
#define MARK 0x4b4c

/* Columns behind the classes. */
enum { LOAD_BYTES = CLASS_COUNT, STORE_BYTES, ACCESSES, COLUMNS };
static const char *const more_names[] = {"vload_bytes", "vstore_bytes", "accesses"};

typedef struct block {
    struct block *next;
    uint64_t runs, counted; /* all; at the mark before */
    uint32_t holds[COLUMNS];
} block;

static block *blocks;
static FILE *out;

static void add(uint32_t *holds, uint32_t word) {
    const klaus_decoded decoded = klaus_decode(word);
    holds[decoded.class]++;
    holds[ACCESSES] += (decoded.bytes + 7) / 8; /* of 64 bits: a wider one is several, a narrower one is one */
    if (decoded.class == CLASS_VLOAD) {
        holds[LOAD_BYTES] += decoded.bytes;
    } else if (decoded.class == CLASS_VSTORE) {
        holds[STORE_BYTES] += decoded.bytes;
    }
}

static void translated(qemu_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    block *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        fprintf(stderr, "instructions.so: no memory for another block\n");
        exit(3);
    }
    const size_t count = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof(word));
        add(made->holds, word);
    }
    made->next = blocks;
    blocks = made;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_INLINE_ADD, &made->runs, 1);
}

static void mark(const char *tag) {
    uint64_t sums[COLUMNS] = {0};
    for (block *each = blocks; each != NULL; each = each->next) {
        const uint64_t runs = each->runs - each->counted;
        each->counted = each->runs;
        for (int column = 0; runs != 0 && column < COLUMNS; column++) {
            sums[column] += runs * each->holds[column];
        }
    }
    fputs(tag, out);
    for (int column = 0; column < COLUMNS; column++) {
        fprintf(out, "\t%" PRIu64, sums[column]);
    }
    fputc('\n', out);
}

static void called(qemu_id id, unsigned cpu, int64_t number, uint64_t which, uint64_t who, uint64_t a3, uint64_t a4,
                   uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == GETPRIORITY && (uint32_t)which == MARK) {
        char tag[16];
        snprintf(tag, sizeof(tag), "%" PRIu32, (uint32_t)who);
        mark(tag);
    }
}

static void ended(qemu_id id, void *context) {
    (void)id, (void)context;
    mark("exit");
    fclose(out);
}

int qemu_plugin_install(qemu_id id, const void *info, int argc, char **argv) {
    (void)info;
    const char *path = NULL;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            path = argv[i] + 4;
        }
    }
    out = path == NULL ? NULL : fopen(path, "w");
    if (out == NULL) {
        fprintf(stderr, "instructions.so: out=%s cannot be written\n", path == NULL ? "" : path);
        return 1;
    }
    fputs("tag", out);
    for (int class = 0; class < CLASS_COUNT; class++) {
        fprintf(out, "\t%s", klaus_class_names[class]);
    }
    for (int column = CLASS_COUNT; column < COLUMNS; column++) {
        fprintf(out, "\t%s", more_names[column - CLASS_COUNT]);
    }
    fputc('\n', out);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
