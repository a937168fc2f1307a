/* The YAML file into the configuration: one const table of fields. Internal to gateway/config*. */
#ifndef WEIR_GATEWAY_CONFIG_FILE_H
#define WEIR_GATEWAY_CONFIG_FILE_H

#include "gateway/config_values.h"

#define CONFIG_FILE_MAX_BYTES (1 << 20)

/* Where the file is looked for if none is named, in this order. */
#define CONFIG_USUAL_COUNT 2
extern const char *const config_usual[CONFIG_USUAL_COUNT];

/* Reads the file's `text` (its bytes are overwritten afterwards by the caller) into `config`, which holds the defaults.
 * `name` is what messages call it. On failure config may be half filled. */
bool config_file_parse(struct config *config, const char *name, struct span text, char *(*getenv_fn)(const char *),
                       struct config_report *report);

#endif
