#include "cpu.h"
#include "engine/fail.h"
#include "klaus/format.h"
#include "os/os.h"
#include "program/command.h"
#include "program/sink.h"

#include <inttypes.h>
#include <stdio.h>

static void sink_device(void) {
    const klaus_cpu *cpu = klaus_cpu_here();
    klaus_memory_figures memory;
    char midr[16];
    klaus_os_memory(&memory);
    snprintf(midr, sizeof(midr), "0x%08" PRIx32, cpu->midr);
    sink_begin("info");
    sink_text("version", klaus_version());
    sink_text("target", klaus_os_target());
    sink_text("arch", klaus_os_arch());
    sink_int("cpus", klaus_os_cpu_count());
    sink_text("core", cpu->core);
    sink_text("core_class", klaus_core_class_name(cpu->core_class));
    sink_text("midr", midr);
    sink_open_array("isa");
    for (int32_t isa = KLAUS_ISA_REF; isa_words[isa] != NULL; isa++) {
        if (klaus_cpu_has(cpu, (klaus_isa)isa)) {
            sink_text(NULL, isa_words[isa]);
        }
    }
    sink_close_array();
    sink_int("format_version", KLAUS_FORMAT_VERSION);
    sink_uint("page_bytes", klaus_os_page_bytes());
    sink_uint("memory_bytes", memory.total_bytes);
    sink_end();
}

static void sink_step(void *user, const char *line) {
    (void)user;
    sink_line(line);
}

klaus_status command_info(int argc, char **argv, klaus_error *error) {
    session_arguments session = SESSION_ARGUMENTS_DEFAULT;
    bool plan = false;
    argument table[SESSION_ARGUMENT_COUNT + 1] = {{"--plan", ARGUMENT_FLAG, &plan, 0, 0, NULL, false}};
    session_arguments_describe(&session, false, table + 1);
    operands rest;
    klaus_status status = arguments_read(table, SESSION_ARGUMENT_COUNT + 1, argc, argv, &rest, error);
    if (status == KLAUS_OK) {
        status = no_operands(&rest, error);
    }
    if (status != KLAUS_OK) {
        return status;
    }
    if (plan != (session.model != NULL)) {
        return klaus_fail(error, KLAUS_E_INPUT, "--plan and --model M belong together");
    }
    sink_device();
    if (plan) {
        opened net;
        status = open_session(&session, &net, error);
        if (status == KLAUS_OK) {
            status = klaus_plan(net.session, sink_step, NULL);
            close_session(&net);
        }
    }
    return status;
}
