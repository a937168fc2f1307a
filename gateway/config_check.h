/* What no single setting can tell: whether all of them together make sense. Internal to gateway/config*. */
#ifndef WEIR_GATEWAY_CONFIG_CHECK_H
#define WEIR_GATEWAY_CONFIG_CHECK_H

#include "gateway/config_values.h"
#include "gateway/routes.h"

/* Checks listeners against keys, keys against each other, routes against keys and backends, limits against all of them.
 */
bool config_check(const struct config *config, struct config_report *report);

/* A route of the configuration, and where a message about it goes. */
struct config_check_route {
    const struct config *config;
    const struct config_route *route;
    const char *file;
    struct config_report *report;
};

/* Fails with `FILE:LINE: the route "PATH" …`. */
bool config_check_route_fail(const struct config_check_route *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether a glob matches a built-in route or a prefix that is proxied. */
bool config_check_route_exists(const struct config *config, struct span pattern);

/* The built-in route of this path; NULL if there is none. */
const struct route *config_check_find_route(struct span path);

/* In config_check_limits.c: what each limit says, then what a route's dependencies make of limits and cache. */
bool config_check_limits(const struct config *config, const char *file, struct config_report *report);
bool config_check_depends(const struct config_check_route *check);

#endif
