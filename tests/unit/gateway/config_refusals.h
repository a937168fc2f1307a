/* Configurations that are refused: what a load starts from, and the exact message. */
#ifndef WEIR_TESTS_CONFIG_REFUSALS_H
#define WEIR_TESTS_CONFIG_REFUSALS_H

#include "gateway/config_loader.h"

struct bad {
    struct given given;
    const char *error;
};

/* A file alone. */
#define YAML(text, message)                                                                                            \
    {                                                                                                                  \
        {.yaml = (text)}, (message)                                                                                    \
    }
/* Options alone. */
#define OPTIONS(message, ...)                                                                                          \
    {                                                                                                                  \
        {.options = {__VA_ARGS__}}, (message)                                                                          \
    }
/* Variables alone. */
#define ENV(message, ...)                                                                                              \
    {                                                                                                                  \
        {.env = {__VA_ARGS__}}, (message)                                                                              \
    }

#define DURATION "expected a duration such as 300ms, 15s, 10m, 1h or 1d"
#define ADDRESS "expected [HOST]:PORT or unix:PATH, such as 127.0.0.1:8080"
#define NO_KEY(address)                                                                                                \
    "no API key is set and " address                                                                                   \
    " can be reached from other machines; require a key with --api-key (WEIR_API_KEY, \"keys\" in the file), or "      \
    "serve everybody with --open (WEIR_OPEN=true)"

static inline void check_bad(const struct bad *bad)
{
    char error[1024];
    struct config *config = load(&bad->given, error);

    ck_assert_msg(config == NULL, "accepted, expected: %s", bad->error);
    ck_assert_str_eq(error, bad->error);
}

#endif
