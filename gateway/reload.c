#include "gateway/reload.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/added_backends.h"
#include "gateway/limit.h"
#include "gateway/worker.h"
#include <stdio.h>
#include <stdlib.h>

static bool same_addresses(const struct config *a, const struct config *b)
{
    bool same = a->listen_count == b->listen_count;
    for (size_t i = 0; same && i < a->listen_count; i++) {
        same = false;
        for (size_t j = 0; !same && j < b->listen_count; j++)
            same = strcmp(a->listen[i].address, b->listen[j].address) == 0;
    }
    return same;
}

static bool same_redis(const struct config *a, const struct config *b)
{
    if (a->redis.on != b->redis.on || !a->redis.on)
        return a->redis.on == b->redis.on;
    return redis_url_equal(&a->redis.url, &b->redis.url) && strcmp(a->redis.prefix, b->redis.prefix) == 0 &&
           a->redis.timeout_us == b->redis.timeout_us;
}

/* What has changed and stays as it was. */
static void tell_what_stays(const struct config *before, const struct config *now)
{
    const struct {
        bool changed;
        const char *name;
    } facts[] = {
        {!same_addresses(before, now), "listen"},
        {before->workers != now->workers, "workers"},
        {before->limit_memory != now->limit_memory, "limit_memory"},
        {before->cache.on && now->cache.on &&
             (before->cache.max_bytes != now->cache.max_bytes || before->cache.max_entry != now->cache.max_entry),
         "the sizes of the cache"},
        {!same_redis(before, now), "redis"},
        {before->supervise != now->supervise, "supervise"},
    };
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
        if (facts[i].changed)
            log_text(LOG_WARN, "reload: %s stays as it was; a change takes an upgrade (SIGUSR2) or a restart",
                     facts[i].name);
}

static struct site *load(struct server *server, char *error, size_t error_size)
{
    struct config *config = config_load(&server->options, getenv, error, error_size);
    if (config == NULL)
        return NULL;
    if (!config_tls_check(config, error, error_size)) {
        config_release(config);
        return NULL;
    }
    struct site *site = site_create(config);
    if (!site_load_tls(site, error, error_size)) {
        site_release(site);
        return NULL;
    }
    return site;
}

bool reload(struct server *server, char *error, size_t error_size)
{
    pthread_mutex_lock(&server->reloading);
    struct site *site = load(server, error, error_size);
    if (site == NULL) {
        pthread_mutex_unlock(&server->reloading);
        log_text(LOG_ERROR, "reload: %s; the configuration in use stays", error);
        return false;
    }
    tell_what_stays(server->site->config, site->config);
    server_create_stores(server, site->config);
    site->limit_keys = limit_keys_create(site->config, &server->limit_secret);
    added_backends_keep(site, server->site->fleet);
    fleet_inherit(site->fleet, server->site->fleet, clock_us());
    log_set(site->config->log_level, site->config->log_format);
    for (size_t i = 0; i < server->worker_count; i++)
        worker_tell_site(server->workers[i], site);
    site_release(server->site);
    server->site = site;
    log_text(LOG_INFO, "reload: the new configuration holds for new requests");
    pthread_mutex_unlock(&server->reloading);
    return true;
}
