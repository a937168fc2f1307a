/* What options and environment say, as text, with its origin: the layer that beats the file. Internal to
 * gateway/config*. */
#ifndef WEIR_GATEWAY_CONFIG_ENV_H
#define WEIR_GATEWAY_CONFIG_ENV_H

#include "gateway/config_values.h"

enum input_id {
    INPUT_CONFIG,
    INPUT_LISTEN,
    INPUT_TLS_CERT,
    INPUT_TLS_KEY,
    INPUT_BACKEND,
    INPUT_API_KEY,
    INPUT_OPEN,
    INPUT_SUPERVISE,
    INPUT_WORKERS,
    INPUT_LOG_LEVEL,
    INPUT_LOG_FORMAT,
    INPUT_DRAIN_TIMEOUT,
    INPUT_LIMIT,
    INPUT_CACHE_TTL,
    INPUT_REDIS,
    INPUT_COUNT,
};

/* One setting; a single value is a list of one. Values are copies. */
struct config_input {
    char **items; /* none: not given */
    size_t count;
    const char *source; /* "--listen", "WEIR_LISTEN", "WEIR_API_KEY_FILE" */
};

/* What a setting is called in the environment: "WEIR_LISTEN". */
const char *config_input_variable(enum input_id id);

/* The variable that names a file with its values, such as "WEIR_API_KEY_FILE"; NULL: there is none. */
const char *config_input_file_variable(enum input_id id);

/* Whether what such a variable says is plainly a file's name. What is not may be the secret itself, and is not told. */
bool config_input_is_file(const char *path);

/* Gathers all settings, an option before its variable. Zero `inputs` before; dispose of them also after a failure. */
bool config_inputs_read(struct config_input inputs[INPUT_COUNT], const struct config_options *options,
                        char *(*getenv_fn)(const char *), struct config_report *report);

/* Overwrites (they may be keys) and frees the values. */
void config_inputs_dispose(struct config_input inputs[INPUT_COUNT]);

#endif
