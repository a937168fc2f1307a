#include "base/redis_error.h"
#include <stdio.h>

static const struct {
    const char *word;
    enum redis_error error;
} words[] = {
    {"NOSCRIPT", REDIS_ERROR_SCRIPT},   {"OOM", REDIS_ERROR_REFUSED},        {"MISCONF", REDIS_ERROR_REFUSED},
    {"BUSY", REDIS_ERROR_REFUSED},      {"NOREPLICAS", REDIS_ERROR_REFUSED}, {"NOPERM", REDIS_ERROR_REFUSED},
    {"LOADING", REDIS_ERROR_UNFIT},     {"READONLY", REDIS_ERROR_UNFIT},     {"NOAUTH", REDIS_ERROR_UNFIT},
    {"MASTERDOWN", REDIS_ERROR_UNFIT},  {"MOVED", REDIS_ERROR_UNFIT},        {"ASK", REDIS_ERROR_UNFIT},
    {"CLUSTERDOWN", REDIS_ERROR_UNFIT}, {"CROSSSLOT", REDIS_ERROR_UNFIT},    {"UNBLOCKED", REDIS_ERROR_UNFIT},
    {"WRONGPASS", REDIS_ERROR_UNFIT},
};

enum redis_error redis_error_of(struct span text)
{
    static const struct span in_script = SPAN("ERR Error running script"), full = SPAN("ERR max number of clients");
    /* Redis before 7 wraps the errors of a script's commands: "ERR Error running script …: -OOM command not …". */
    if (span_starts(text, in_script)) {
        const char *minus = memmem(text.base, text.len, " -", 2);
        if (minus != NULL)
            text = span_skip(text, (size_t)(minus - text.base) + 2);
    }
    if (span_starts(text, full))
        return REDIS_ERROR_UNFIT;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct span word = span_of(words[i].word);
        if (span_starts(text, word) && (text.len == word.len || text.base[word.len] == ' '))
            return words[i].error;
    }
    return REDIS_ERROR_COMMAND;
}

void redis_error_print(struct span text, const char *secret, char *out, size_t size)
{
    size_t len = 0;
    if (text.len != 0 && secret != NULL && secret[0] != '\0' &&
        memmem(text.base, text.len, secret, strlen(secret)) != NULL)
        text = SPAN("an error that repeats the password");
    for (; len < text.len && len + 1 < size && text.base[len] != '\r' && text.base[len] != '\n'; len++)
        out[len] = text.base[len] >= ' ' && text.base[len] < 0x7f ? text.base[len] : '?';
    if (size != 0)
        out[len] = '\0';
}
