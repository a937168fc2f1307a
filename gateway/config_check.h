/* What no single setting can tell: whether all of them together make sense. Internal to gateway/config*. */
#ifndef WEIR_GATEWAY_CONFIG_CHECK_H
#define WEIR_GATEWAY_CONFIG_CHECK_H

#include "gateway/config_values.h"

/* Checks listeners against keys, keys against each other, routes against keys and backends. */
bool config_check(const struct config *config, struct config_report *report);

#endif
