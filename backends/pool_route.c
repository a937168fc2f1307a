/* Who serves a model: worked out when it is first asked for, kept until the fleet changes. */
#include "backends/pool_own.h"
#include <stdlib.h>

static const char *default_backend(const struct pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->members[i]->server->settings->is_default)
            return pool->members[i]->server->settings->name;
    return pool->count != 0 ? pool->members[0]->server->settings->name : "";
}

static const struct fleet_alias *find_alias(const struct pool *pool, struct span model)
{
    const struct fleet_settings *settings = fleet_settings(pool->fleet);
    for (size_t i = 0; i < settings->alias_count; i++)
        if (span_eq(span_of(settings->aliases[i].name), model))
            return &settings->aliases[i];
    return NULL;
}

/* Which rule of the backend's `models:` a model falls under. */
static const char *pattern_of(const struct backend_settings *settings, struct span model)
{
    const char *found = settings->model_count == 0 ? "*" : NULL;
    for (size_t i = 0; i < settings->model_count; i++) {
        struct span pattern = span_of(settings->models[i].pattern);
        if (span_eq(pattern, model))
            return settings->models[i].pattern;
        if (found == NULL && glob_match(pattern, model))
            found = settings->models[i].pattern;
    }
    return found != NULL ? found : "";
}

/* Adds who serves `model`. `whatever`: the one named backend may serve it whatever its models are. */
static void add_options(struct pool *pool, struct pool_route *route, struct span model, const char *only, bool whatever,
                        unsigned step)
{
    for (size_t i = 0; i < pool->count && route->count < POOL_OPTIONS_MAX; i++) {
        struct pool_member *member = pool->members[i];
        const struct backend_settings *settings = member->server->settings;
        struct span upstream_model = model;
        if (only != NULL && strcmp(settings->name, only) != 0)
            continue;
        if (!whatever && (member->names != NULL ? !model_names_has(member->names, model)
                                                : !backend_serves(settings, model, &upstream_model)))
            continue;
        member->users++;
        route->options[route->count++] = (struct pool_option){.server = member->server,
                                                              .member = member,
                                                              .model = model,
                                                              .upstream_model = upstream_model,
                                                              .pattern = pattern_of(settings, model),
                                                              .step = step};
    }
}

static struct pool_route *route_create(struct pool *pool, struct span model, const char *only, uint64_t hash)
{
    const struct fleet_alias *alias = only == NULL ? find_alias(pool, model) : NULL;
    size_t steps = alias != NULL ? alias->step_count : 1, most = steps * pool->count;
    if (most > POOL_OPTIONS_MAX)
        most = POOL_OPTIONS_MAX;
    struct pool_route *route = h2o_mem_alloc(sizeof(*route) + most * sizeof(route->options[0]));
    *route = (struct pool_route){.refs = 1,
                                 .hash = hash,
                                 .model = span_dup(model),
                                 .model_len = model.len,
                                 .only = only != NULL ? strdup(only) : NULL};
    struct span own = {route->model, model.len};
    for (size_t i = 0; alias != NULL && i < alias->step_count; i++)
        add_options(pool, route, span_of(alias->steps[i].model), alias->steps[i].backend, false, (unsigned)i);
    if (alias == NULL && only == NULL && model.len == 0)
        add_options(pool, route, own, default_backend(pool), true, 0);
    else if (alias == NULL)
        add_options(pool, route, own, only, only != NULL, 0);
    return route;
}

struct pool_route *pool_route_find(struct pool *pool, struct span model, const char *only)
{
    uint64_t hash = balance_hash(model.base, model.len, only != NULL ? balance_hash(only, strlen(only), 1) : 0);
    struct pool_route **kept = &pool->routes[hash & (POOL_ROUTES_KEPT - 1)], *route = *kept;
    if (route == NULL || route->hash != hash || !span_eq((struct span){route->model, route->model_len}, model) ||
        (only == NULL ? route->only != NULL : route->only == NULL || strcmp(only, route->only) != 0)) {
        route = route_create(pool, model, only, hash);
        if (route->count == 0) { /* names that mean nothing must not push out those that do */
            pool_route_release(route);
            return NULL;
        }
        if (*kept != NULL)
            pool_route_release(*kept);
        *kept = route;
    }
    route->refs++;
    return route;
}

void pool_route_release(struct pool_route *route)
{
    if (--route->refs != 0)
        return;
    for (size_t i = 0; i < route->count; i++)
        pool_member_release(route->options[i].member);
    free(route->model);
    free(route->only);
    free(route);
}

void pool_routes_forget(struct pool *pool)
{
    for (size_t i = 0; i < POOL_ROUTES_KEPT; i++) {
        if (pool->routes[i] != NULL)
            pool_route_release(pool->routes[i]);
        pool->routes[i] = NULL;
    }
}
