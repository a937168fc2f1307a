#include "gateway/site.h"
#include "gateway/listen_tls.h"
#include <h2o/memory.h>
#include <openssl/crypto.h>
#include <stdlib.h>

/* `limits` may be NULL. */
static void set_depends(struct site_route *route, const enum depend_id *depends, char *const *limits, size_t count)
{
    route->depend_count = 0;
    for (size_t i = 0; i < count && depends[i] != 0; i++) {
        route->depend_limit[route->depend_count] = limits != NULL ? limits[i] : NULL;
        route->depends[route->depend_count++] = depends[i];
    }
}

static void add_configured(struct site *site, const struct config_route *configured)
{
    if (configured->proxy != NULL) {
        const struct route *pass = NULL;
        for (size_t i = 0; i < route_count; i++)
            if (span_eq(routes[i].path, SPAN("/v1/files/*")))
                pass = &routes[i];
        struct site_route *route = &site->routes[site->route_count++];
        *route = (struct site_route){.route = *pass, .proxy = configured->proxy};
        route->route.path = span_of(configured->path);
        route->route.summary = "passed on to one backend";
        route->timeouts = configured->has_timeouts ? &configured->timeouts : NULL;
        set_depends(route, pass->depends, NULL, DEPENDS_MAX);
        if (configured->has_depends)
            set_depends(route, configured->depends, configured->depend_limit, configured->depend_count);
        return;
    }
    for (size_t i = 0; i < site->route_count; i++) {
        struct site_route *route = &site->routes[i];
        if (!span_eq(route->route.path, span_of(configured->path)))
            continue;
        route->query_key = configured->query_key;
        if (configured->has_depends)
            set_depends(route, configured->depends, configured->depend_limit, configured->depend_count);
        if (configured->has_timeouts)
            route->timeouts = &configured->timeouts;
    }
}

struct site *site_create(struct config *config)
{
    static _Atomic uint64_t sites;
    struct site *site = h2o_mem_alloc(sizeof(*site));
    *site = (struct site){
        ._refs = 1, .number = atomic_fetch_add_explicit(&sites, 1, memory_order_relaxed) + 1, .config = config};
    site->routes = h2o_mem_alloc((route_count + config->route_count) * sizeof(site->routes[0]));
    for (size_t i = 0; i < route_count; i++) {
        if (routes[i].depends[0] == DEPEND_ADMIN_KEY && config->admin.key_count == 0)
            continue;
        struct site_route *route = &site->routes[site->route_count++];
        *route = (struct site_route){.route = routes[i]};
        set_depends(route, routes[i].depends, NULL, DEPENDS_MAX);
    }
    for (size_t i = 0; i < config->route_count; i++)
        add_configured(site, &config->routes[i]);
    site->fleet = fleet_create(&config->fleet);
    for (size_t i = 0; i < config->backend_count; i++)
        fleet_add(site->fleet, &config->backends[i], NULL, NULL, NULL);
    site->identities = h2o_mem_alloc((config->key_count + 1) * sizeof(site->identities[0]));
    for (size_t i = 0; i < config->key_count; i++) {
        const struct config_key *key = &config->keys[i];
        struct identity *identity = identity_create(key->name);
        identity->models = (const char *const *)key->models;
        identity->model_count = key->model_count;
        identity->routes = (const char *const *)key->routes;
        identity->route_count = key->route_count;
        identity->expires = key->expires;
        identity->key = key;
        site->identities[i] = identity;
    }
    site->admins = h2o_mem_alloc((config->admin.key_count + 1) * sizeof(site->admins[0]));
    for (size_t i = 0; i < config->admin.key_count; i++)
        site->admins[i] = identity_create(config->admin.keys[i].name);
    return site;
}

/* The addresses of a configuration, that of administration last. NULL beyond them. */
static const struct config_listen *address_at(const struct config *config, size_t i)
{
    if (i < config->listen_count)
        return &config->listen[i];
    return i == config->listen_count && config->admin.listen.address != NULL ? &config->admin.listen : NULL;
}

bool site_load_tls(struct site *site, char *error, size_t error_size)
{
    const struct config_listen *listen;
    size_t size = (site->config->listen_count + 1) * sizeof(site->tls[0]);
    site->tls = h2o_mem_alloc(size);
    memset(site->tls, 0, size);
    for (size_t i = 0; (listen = address_at(site->config, i)) != NULL; i++)
        if (listen->tls_cert != NULL && (site->tls[i] = listen_tls_create(listen, error, error_size)) == NULL)
            return false;
    return true;
}

SSL_CTX *site_tls(const struct site *site, const char *address, bool *known)
{
    const struct config_listen *listen;
    *known = true;
    for (size_t i = 0; (listen = address_at(site->config, i)) != NULL; i++)
        if (strcmp(listen->address, address) == 0)
            return site->tls != NULL ? site->tls[i] : NULL;
    *known = false;
    return NULL;
}

struct site *site_retain(struct site *site)
{
    atomic_fetch_add_explicit(&site->_refs, 1, memory_order_relaxed);
    return site;
}

void site_release(struct site *site)
{
    if (site == NULL || atomic_fetch_sub_explicit(&site->_refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < site->config->key_count; i++)
        identity_release(site->identities[i]);
    for (size_t i = 0; i < site->config->admin.key_count; i++)
        identity_release(site->admins[i]);
    free(site->admins);
    for (size_t i = 0; site->tls != NULL && i <= site->config->listen_count; i++)
        SSL_CTX_free(site->tls[i]);
    free(site->tls);
    fleet_destroy(site->fleet);
    free(site->identities);
    free(site->limit_keys);
    free(site->routes);
    config_release(site->config);
    free(site);
}

const struct site_route *site_route_find(const struct site *site, struct span path)
{
    const struct site_route *best = NULL;
    for (size_t i = 0; i < site->route_count; i++) {
        const struct site_route *route = &site->routes[i];
        if (span_eq(route->route.path, path))
            return route;
        if (route_covers(route->route.path, path) && (best == NULL || route->route.path.len > best->route.path.len))
            best = route;
    }
    return best;
}

bool site_route_is_at(const struct site *site, const struct site_route *route, bool admin_address)
{
    if (site->config->admin.listen.address == NULL)
        return true;
    if (route->route.depends[0] == DEPEND_ADMIN_KEY)
        return admin_address;
    return !admin_address || (route->route.depends[0] == DEPEND_PUBLIC && route->proxy == NULL);
}

struct identity *site_admin_find(const struct site *site, const unsigned char hash[32])
{
    struct identity *found = NULL;
    for (size_t i = 0; i < site->config->admin.key_count; i++)
        if (CRYPTO_memcmp(site->config->admin.keys[i].hash, hash, 32) == 0)
            found = site->admins[i];
    return found;
}

struct identity *site_identity_find(const struct site *site, const unsigned char hash[32])
{
    struct identity *found = NULL;
    for (size_t i = 0; i < site->config->key_count; i++)
        if (CRYPTO_memcmp(site->config->keys[i].hash, hash, 32) == 0)
            found = site->identities[i];
    return found;
}
