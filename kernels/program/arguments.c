#include "program/arguments.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fail.h"

static klaus_status refuse(klaus_error *error, const argument *option, const char *found) {
    if (option->kind == ARGUMENT_NUMBER) {
        return klaus_fail(error, KLAUS_E_INPUT, "%s: '%.80s' is not a whole number from %" PRId64 " to %" PRId64,
                          option->name, found, option->low, option->high);
    }
    char words[200] = "";
    size_t used = 0;
    for (const char *const *word = option->words; *word != NULL && used < sizeof(words); word++) {
        used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s", used > 0 ? ", " : "", *word);
    }
    return klaus_fail(error, KLAUS_E_INPUT, "%s: '%.80s' is none of %s", option->name, found, words);
}

static klaus_status set_number(const argument *option, const char *text, klaus_error *error) {
    char *end = NULL;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    const bool digits = (text[0] >= '0' && text[0] <= '9') || text[0] == '-';
    if (!digits || *end != '\0' || errno != 0 || number < option->low || number > option->high) {
        return refuse(error, option, text);
    }
    *(int64_t *)option->value = number;
    return KLAUS_OK;
}

static klaus_status set_value(const argument *option, const char *text, klaus_error *error) {
    if (option->kind == ARGUMENT_NUMBER) {
        return set_number(option, text, error);
    }
    if (option->kind == ARGUMENT_TEXT) {
        if (text[0] == '\0') {
            return klaus_fail(error, KLAUS_E_INPUT, "%s: its value is empty", option->name);
        }
        *(const char **)option->value = text;
        return KLAUS_OK;
    }
    for (int32_t i = 0; option->words[i] != NULL; i++) {
        if (strcmp(option->words[i], text) == 0) {
            *(int32_t *)option->value = i;
            return KLAUS_OK;
        }
    }
    return refuse(error, option, text);
}

/* The option that `text` names, alone or followed by "=VALUE" (then `value` points at VALUE). */
static const argument *find(const argument *table, int32_t count, const char *text, const char **value) {
    for (int32_t i = 0; i < count; i++) {
        const size_t length = strlen(table[i].name);
        if (strncmp(text, table[i].name, length) == 0 && (text[length] == '\0' || text[length] == '=')) {
            *value = text[length] == '=' ? text + length + 1 : NULL;
            return &table[i];
        }
    }
    return NULL;
}

klaus_status arguments_read(const argument *table, int32_t count, int argc, char **argv, operands *rest,
                            klaus_error *error) {
    bool options = true;
    bool seen[ARGUMENTS_MOST] = {false};
    int32_t kept = 0;
    if (count > ARGUMENTS_MOST) {
        return klaus_fail(error, KLAUS_E_INTERNAL, "a command has more than %d options", ARGUMENTS_MOST);
    }
    rest->texts = (const char *const *)(argv + 2);
    for (int at = 2; at < argc; at++) {
        char *text = argv[at];
        if (!options || text[0] != '-' || text[1] == '\0') {
            argv[2 + kept++] = text;
            continue;
        }
        if (strcmp(text, "--") == 0) {
            options = false;
            continue;
        }
        const char *value = NULL;
        const argument *option = find(table, count, text, &value);
        if (option == NULL) {
            return klaus_fail(error, KLAUS_E_INPUT, "%.80s: no such option; `klaus-run help` lists them", text);
        }
        if (option->kind == ARGUMENT_FLAG) {
            if (value != NULL) {
                return klaus_fail(error, KLAUS_E_INPUT, "%s takes no value", option->name);
            }
            *(bool *)option->value = true;
            continue;
        }
        if (value == NULL && at + 1 < argc) {
            value = argv[++at];
        } else if (value == NULL) {
            return klaus_fail(error, KLAUS_E_INPUT, "%s: its value is missing", option->name);
        }
        if (seen[option - table]) {
            return klaus_fail(error, KLAUS_E_INPUT, "%s is given twice; it has one value", option->name);
        }
        seen[option - table] = true;
        const klaus_status status = set_value(option, value, error);
        if (status != KLAUS_OK) {
            return status;
        }
    }
    rest->count = kept;
    for (int32_t i = 0; i < count; i++) {
        if (table[i].required && *(const char **)table[i].value == NULL) {
            return klaus_fail(error, KLAUS_E_INPUT, "%s is missing; `klaus-run help` shows how it is used",
                              table[i].name);
        }
    }
    return KLAUS_OK;
}
