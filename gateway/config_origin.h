/* What the file says about one setting, as it stands there: for `weir env`, which tells where values come from.
 * Internal to gateway/config* and gateway/cli_env.c. */
#ifndef WEIR_GATEWAY_CONFIG_ORIGIN_H
#define WEIR_GATEWAY_CONFIG_ORIGIN_H

#include "base/strbuf.h"

/* The file that `weir run` reads if none is named: ./weir.yaml, else /etc/weir/weir.yaml. NULL: there is neither. */
const char *config_origin_usual(void);

/* Looks a key up ("log_level", "cache.ttl"). Appends its text as it stands, ${NAME} unexpanded, or "3 entries" for a
 * list or a mapping (*is_list then). Returns its line, 0 if the file does not have it or cannot be read as YAML. */
int config_origin_find(const char *file, const char *key, struct strbuf *shown, bool *is_list);

#endif
