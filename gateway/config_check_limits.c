#include "gateway/config_check.h"
#include "ratelimit/store.h"
#include <stdarg.h>
#include <stdio.h>

_Static_assert(CONFIG_LIMITS_PER_ROUTE <= STORE_ASKS_MAX, "a request's limits are decided on together");

bool config_limit_applies(const struct config_limit *limit, struct span path)
{
    for (size_t i = 0; i < limit->route_count; i++) {
        if (glob_match(span_of(limit->routes[i]), path))
            return true;
    }
    return limit->route_count == 0;
}

/* ---- each limit by itself ---- */

/* A limit and where a message about it goes. */
struct limit_check {
    const struct config *config;
    const struct config_limit *limit;
    const char *file;
    struct config_report *report;
};

static bool limit_fail(const struct limit_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool limit_fail(const struct limit_check *check, const char *format, ...)
{
    char what[400];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (check->limit->line == 0)
        return config_fail(check->report, "the limit of --limit (or WEIR_LIMIT) %s", what);
    return config_fail(check->report, "%s:%d: the limit \"%s\" %s", check->file, check->limit->line, check->limit->name,
                       what);
}

/* Cost and message mean something to limits on requests alone. */
static bool check_requests(const struct limit_check *check)
{
    const struct config_limit *limit = check->limit;
    bool requests = false;

    for (size_t i = 0; i < limit->count; i++) {
        const struct limit *item = &limit->limits[i];
        if (item->unit != LIMIT_REQUESTS)
            continue;
        requests = true;
        if (item->amount != 0 && limit->cost > item->amount)
            return limit_fail(check, "has a cost of %llu, which %llu can never pay for, expected at most %llu",
                              (unsigned long long)limit->cost, (unsigned long long)item->amount,
                              (unsigned long long)item->amount);
    }
    if (!requests && (limit->cost != 1 || limit->message != NULL))
        return limit_fail(check, "counts tokens, and its \"%s\" means something for requests only, expected none",
                          limit->cost != 1 ? "cost" : "message");
    return true;
}

/* Messages are counted where weir passes them on without looking into them. */
static bool check_per_message(const struct limit_check *check)
{
    const struct config_limit *limit = check->limit;

    if (!limit->per_message)
        return true;
    for (size_t i = 0; i < limit->count; i++) {
        if (limit->limits[i].unit != LIMIT_REQUESTS)
            return limit_fail(check, "counts tokens per message, expected a number of messages such as 100/minute");
    }
    if (limit->route_count != 1 || strcmp(limit->routes[0], "/v1/realtime") != 0)
        return limit_fail(check, "is per message, which only one route has, expected routes: [/v1/realtime]");
    if (limit->by == LIMIT_BY_USER)
        return limit_fail(check, "is per message, which names no user, expected another \"by\"");
    return true;
}

static bool check_exempt(const struct limit_check *check)
{
    const struct config *config = check->config;

    for (size_t i = 0; i < check->limit->exempt_key_count; i++) {
        const char *name = check->limit->exempt_keys[i];
        bool found = false;
        for (size_t j = 0; !found && j < config->key_count; j++)
            found = strcmp(config->keys[j].name, name) == 0;
        if (!found)
            return limit_fail(check, "exempts the key \"%.64s\", which does not exist, expected the name of a key",
                              name);
    }
    return true;
}

static bool depends_on(const struct config_route *route, const struct config_limit *limit)
{
    for (size_t i = 0; i < route->depend_count; i++) {
        if (route->depends[i] == DEPEND_LIMIT &&
            (route->depend_limit[i] == NULL || strcmp(route->depend_limit[i], limit->name) == 0))
            return true;
    }
    return false;
}

static bool is_public(const struct route *route)
{
    return route->depends[0] == DEPEND_PUBLIC;
}

/* Somebody who names one route thinks that it is limited: its dependencies must not say otherwise. */
static bool check_named_route(const struct limit_check *check, const char *path)
{
    const struct config *config = check->config;
    const struct route *known = config_check_find_route(span_of(path));

    for (size_t i = 0; i < config->route_count; i++) {
        const struct config_route *route = &config->routes[i];
        if (!route->has_depends || strcmp(route->path, path) != 0)
            continue;
        if (depends_on(route, check->limit))
            return true; /* the rest is config_check_depends' */
        return limit_fail(
            check, "names the route \"%.80s\", whose \"depends\" in line %d have no \"limit\", expected it there", path,
            route->line);
    }
    if (known != NULL && is_public(known) && check->limit->by == LIMIT_BY_API_KEY)
        return limit_fail(check, "is by api_key and names the public route \"%.80s\", expected another \"by\"", path);
    return true;
}

static bool check_routes(const struct limit_check *check)
{
    for (size_t i = 0; i < check->limit->route_count; i++) {
        const char *pattern = check->limit->routes[i];
        if (!config_check_route_exists(check->config, span_of(pattern)))
            return limit_fail(check,
                              "names the route \"%.80s\", which does not exist, expected such as /v1/chat/completions "
                              "or /v1/*",
                              pattern);
        if (!check_named_route(check, pattern))
            return false;
    }
    return true;
}

/* ---- all limits of one route together ---- */

/* What `limits` have been counted so far for one route; by-key limits apart, because a key's own replace them. */
struct sum {
    size_t others, by_key;
    const struct config_limit *last;
};

static void add(struct sum *sum, const struct config_limit *limit)
{
    *(limit->by == LIMIT_BY_API_KEY ? &sum->by_key : &sum->others) += limit->count;
    sum->last = limit;
}

static const struct config_route *find_configured(const struct config *config, struct span path)
{
    for (size_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].has_depends && span_eq(span_of(config->routes[i].path), path))
            return &config->routes[i];
    }
    return NULL;
}

static bool check_sum(const struct config *config, struct span path, const char *file, struct config_report *report)
{
    const struct config_route *route = find_configured(config, path);
    struct sum sum = {0, 0, NULL};
    size_t own = 0;

    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        bool named = false, all = route == NULL;
        for (size_t j = 0; route != NULL && j < route->depend_count; j++) {
            const char *name = route->depends[j] == DEPEND_LIMIT ? route->depend_limit[j] : NULL;
            all = all || (route->depends[j] == DEPEND_LIMIT && name == NULL);
            named = named || (name != NULL && strcmp(name, limit->name) == 0);
        }
        if (named || (all && config_limit_applies(limit, path)))
            add(&sum, limit);
    }
    for (size_t i = 0; i < config->key_count; i++)
        own = config->keys[i].limit_count > own ? config->keys[i].limit_count : own;
    /* A key's own are at most LIMIT_LIST_MAX, so that without others they always fit. */
    size_t total = sum.others + (sum.by_key > own ? sum.by_key : own);
    if (sum.last == NULL || total <= CONFIG_LIMITS_PER_ROUTE)
        return true;
    const struct limit_check check = {config, sum.last, file, report};
    return limit_fail(&check,
                      "is one too many: a request to \"%.*s\" would have to pass %zu limits, expected at most %d",
                      (int)path.len, path.base, total, CONFIG_LIMITS_PER_ROUTE);
}

bool config_check_limits(const struct config *config, const char *file, struct config_report *report)
{
    for (size_t i = 0; i < config->limit_count; i++) {
        const struct limit_check check = {config, &config->limits[i], file, report};
        if (!check_requests(&check) || !check_per_message(&check) || !check_exempt(&check) || !check_routes(&check))
            return false;
    }
    for (size_t i = 0; i < route_count; i++) {
        if (!check_sum(config, routes[i].path, file, report))
            return false;
    }
    for (size_t i = 0; i < config->route_count; i++) {
        if (!check_sum(config, span_of(config->routes[i].path), file, report))
            return false;
    }
    return true;
}

/* ---- the order of a route's dependencies ---- */

static const struct config_limit *find_limit(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->limit_count; i++) {
        if (strcmp(config->limits[i].name, name) == 0)
            return &config->limits[i];
    }
    return NULL;
}

static bool limit_missing(const struct config_check_route *check, const char *name)
{
    const struct config *config = check->config;
    char names[160] = "no \"limit:\" without \"limits\"";

    for (size_t i = 0, len = 0; i < config->limit_count && len < sizeof(names); i++)
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%slimit:%s", i != 0 ? " or " : "",
                                config->limits[i].name);
    return config_check_route_fail(check, "depends on \"limit:%.64s\", which does not exist, expected %s", name, names);
}

static bool has(const struct config_route *route, size_t from, size_t to, enum depend_id id)
{
    for (size_t i = from; i < to; i++) {
        if (route->depends[i] == id)
            return true;
    }
    return false;
}

/* A limit that this dependency runs and that needs the key; NULL if there is none. */
static const struct config_limit *limit_by_key(const struct config *config, const struct config_route *route, size_t at)
{
    const char *name = route->depend_limit[at];

    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        if (limit->by == LIMIT_BY_API_KEY &&
            (name != NULL ? strcmp(name, limit->name) == 0 : config_limit_applies(limit, span_of(route->path))))
            return limit;
    }
    return NULL;
}

static const struct config_key *key_with_limit(const struct config *config)
{
    for (size_t i = 0; i < config->key_count; i++) {
        if (config->keys[i].limit_count != 0)
            return &config->keys[i];
    }
    return NULL;
}

static const struct config_key *key_with_max_streams(const struct config *config)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (config->keys[i].max_streams != 0)
            return &config->keys[i];
    return NULL;
}

static bool check_limit(const struct config_check_route *check, size_t at)
{
    const struct config *config = check->config;
    const struct config_route *route = check->route;
    const char *name = route->depend_limit[at];
    const struct config_limit *limit = name != NULL ? find_limit(config, name) : NULL;
    bool keyed = has(route, 0, route->depend_count, DEPEND_API_KEY);

    if (name != NULL && limit == NULL)
        return limit_missing(check, name);
    for (size_t i = 0; limit != NULL && i < route->depend_count; i++) {
        if (route->depends[i] == DEPEND_LIMIT && route->depend_limit[i] == NULL &&
            config_limit_applies(limit, span_of(route->path)))
            return config_check_route_fail(
                check, "depends on \"limit:%s\", which \"limit\" runs there too, expected one of them", name);
    }
    if (has(route, 0, at, DEPEND_API_KEY))
        return true;
    limit = limit_by_key(config, route, at);
    if (limit != NULL && !keyed)
        return config_check_route_fail(
            check, "runs the limit \"%s\", which is by api_key, without \"api_key\", expected another \"by\"",
            limit->name);
    if (limit != NULL)
        return config_check_route_fail(
            check, "runs the limit \"%s\", which is by api_key, before \"api_key\", expected \"api_key\" first",
            limit->name);
    const struct config_key *key = key_with_limit(config);
    if (name == NULL && keyed && key != NULL)
        return config_check_route_fail(
            check,
            "has \"limit\" before \"api_key\" although the key \"%s\" has a limit of its own, expected "
            "\"api_key\" first",
            key->name);
    key = key_with_max_streams(config);
    if (route->proxy == NULL && keyed && key != NULL && !has(route, at + 1, route->depend_count, DEPEND_LIMIT))
        return config_check_route_fail(
            check,
            "has no \"limit\" behind \"api_key\" although the key \"%s\" has \"max_streams\", expected \"api_key\" "
            "first",
            key->name);
    return true;
}

static bool check_cache(const struct config_check_route *check, size_t at)
{
    const struct config_route *route = check->route;
    const struct route *known = config_check_find_route(span_of(route->path));

    if (known == NULL || known->body == NULL)
        return config_check_route_fail(check, "has no answers that \"cache\" could keep, expected no \"cache\"");
    if (!check->config->cache.shared && check->config->key_count != 0 &&
        has(route, at, route->depend_count, DEPEND_API_KEY))
        return config_check_route_fail(check, "has \"cache\" before \"api_key\", expected \"api_key\" first (or the "
                                              "cache's scope: shared)");
    /* A hit answers at once: what stands behind it would not be asked. */
    if (has(route, at, route->depend_count, DEPEND_LIMIT))
        return config_check_route_fail(check, "has \"cache\" before a limit, expected \"cache\" behind it");
    if (has(route, at, route->depend_count, DEPEND_VALIDATE))
        return config_check_route_fail(check, "has \"cache\" before \"validate\", expected \"cache\" behind it");
    return true;
}

bool config_check_depends(const struct config_check_route *check)
{
    const struct config_route *route = check->route;

    for (size_t i = 0; i < route->depend_count; i++) {
        if ((route->depends[i] == DEPEND_LIMIT && !check_limit(check, i)) ||
            (route->depends[i] == DEPEND_CACHE && !check_cache(check, i)))
            return false;
    }
    return true;
}
