#include "gateway/server.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "gateway/cli.h"
#include "gateway/crash.h"
#include "gateway/http2_guard.h"
#include "gateway/http2_rules.h"
#include "gateway/limit.h"
#include "gateway/notify.h"
#include "gateway/signals.h"
#include "gateway/worker.h"
#include <h2o/hostinfo.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* Name look-ups block a thread each; a slow resolver must not hold up the names that it knows. */
#define RESOLVER_THREADS 16
#define LOG_FLUSH_MS 2000

#define MALLOC_LARGE (1 << 20) /* what gets pages of its own, */
#define MALLOC_SPARE (4 << 20) /* and what else may lie free at the end of each thread's memory */

static void close_listeners(struct server *server)
{
    for (size_t i = 0; i < server->listener_count; i++)
        listener_close(&server->listeners[i]);
    free(server->listeners);
}

static bool start_workers(struct server *server, struct site *site)
{
    for (unsigned i = 0; i < site->config->workers; i++)
        server->workers[server->worker_count++] = worker_create(server, i, site);
    for (size_t i = 0; i < server->worker_count; i++) {
        char error[512];
        if (!worker_start(server->workers[i], error, sizeof(error))) {
            cli_fail("%s", error);
            return false;
        }
    }
    return true;
}

static bool any_limits(const struct config *config)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (config->keys[i].limit_count != 0 || config->keys[i].max_streams != 0)
            return true;
    return config->limit_count != 0 || config->max_streams != 0;
}

void server_create_stores(struct server *server, const struct config *config)
{
    if (any_limits(config) && server->limits == NULL)
        server->limits = store_create(config->limit_memory);
    if (config->cache.on && server->cache == NULL) {
        struct cache_memory_settings settings = {.max_bytes = config->cache.max_bytes,
                                                 .max_entry = config->cache.max_entry,
                                                 .ttl_us = config->redis.on ? config->cache.memory_ttl_us : 0};
        redis_purge_origin_init(&server->purge_origin);
        server->cache = cache_memory_create(&settings);
    }
}

static void destroy_stores(struct server *server)
{
    clients_destroy(server->clients);
    if (server->limits != NULL)
        store_destroy(server->limits);
    if (server->cache != NULL)
        cache_memory_destroy(server->cache);
    redis_state_dispose(&server->redis);
}

/* Each client and each backend connection wants a descriptor. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The first model that a person can try: a plain name of a backend; NULL if the backends alone know. */
static const char *first_model(const struct config *config)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *backend = &config->backends[i];
        if (backend->model_count == 0)
            return backend->url.kind == BACKEND_DEMO ? "demo" : NULL;
        for (size_t m = 0; m < backend->model_count; m++)
            if (strchr(backend->models[m].pattern, '*') == NULL)
                return backend->models[m].pattern;
    }
    return NULL;
}

/* The address by which this machine reaches a listener that may serve on all of its addresses. */
static void reachable(const char *display, char *out, size_t size)
{
    static const struct span all = SPAN("0.0.0.0:"), all6 = SPAN("[::]:");
    struct span text = span_of(display);
    if (span_starts(text, all))
        snprintf(out, size, "127.0.0.1:%s", display + all.len);
    else if (span_starts(text, all6))
        snprintf(out, size, "[::1]:%s", display + all6.len);
    else
        snprintf(out, size, "%s", display);
}

/* What a person who starts weir by hand wants to see: where it is and how to try it. */
static void greet(const struct server *server, const struct config *config)
{
    const char *scheme = config->listen[0].tls_cert != NULL ? "https" : "http";
    const char *unix_path = server->listeners[0].unix_path, *model = first_model(config);
    char address[sizeof(server->listeners[0].display)];
    reachable(server->listeners[0].display, address, sizeof(address));
    printf("weir %s serves on", WEIR_VERSION);
    for (size_t i = 0; i < server->listener_count; i++)
        printf("%s %s%s", i != 0 ? "," : "", server->listeners[i].display,
               i >= config->listen_count            ? " (admin)"
               : config->listen[i].tls_cert != NULL ? " (TLS)"
                                                    : "");
    printf(" with %u worker%s\n", config->workers, config->workers == 1 ? "" : "s");
    if (unix_path == NULL)
        printf("  base URL: %s://%s/v1\n", scheme, address);
    printf("  model:    %s\n", model != NULL ? model : "(one of your backend's)");
    printf("  try:      curl -N %s%s%s%s%s://%s/v1/chat/completions -H 'Content-Type: application/json' %s"
           "-d '{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'\n",
           unix_path != NULL ? "--unix-socket " : "", unix_path != NULL ? unix_path : "", unix_path != NULL ? " " : "",
           config->listen[0].tls_cert != NULL ? "-k " : "", scheme, unix_path != NULL ? "localhost" : address,
           config->key_count != 0 ? "-H \"Authorization: Bearer $KEY\" " : "", model != NULL ? model : "MODEL");
    if (fflush(stdout) != 0) { /* a full disk or a reader that left: serving does not depend on it */
        __fpurge(stdout);
        clearerr(stdout);
    }
}

static void dispose(struct server *server, struct site *first)
{
    close_listeners(server);
    destroy_stores(server);
    site_release(server->site);
    site_release(first);
    pthread_mutex_destroy(&server->reloading);
}

int server_run(struct config *config, const struct config_options *options, struct handover *handover)
{
    char error[512];
    struct server server = {.started_us = clock_us(), .options = *options, .first = config};
    struct site *site = site_create(config); /* the listeners refer to it until the end */
    server.site = site_retain(site);
    server.supervised = handover->role == HANDOVER_SERVE;
    pthread_mutex_init(&server.reloading, NULL);
    signals_block();
    signal(SIGPIPE, SIG_IGN);
    crash_report_on();
    raise_descriptor_limit();
    h2o_hostinfo_max_threads = RESOLVER_THREADS;
    /* libh2o would put large bodies into files under /tmp, which may be read-only or full, and prompts are nobody
     * else's business. */
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    /* Left to itself malloc takes the first large block that is freed as a reason to keep all that follow, between
     * small ones, for ever. What is large goes back at once; large_buffer.h keeps what is wanted again. */
    mallopt(M_MMAP_THRESHOLD, MALLOC_LARGE);
    mallopt(M_TRIM_THRESHOLD, MALLOC_SPARE);
    key_secret_random(&server.limit_secret);
    ids_random(server.cache_secret, sizeof(server.cache_secret));
    ids_random(&server.gateway, sizeof(server.gateway));
    atomic_init(&server.gateways, 1);
    server.clients = clients_create();
    server_create_stores(&server, config);
    site->limit_keys = limit_keys_create(config, &server.limit_secret);
    if (config->redis.on)
        redis_state_init(&server.redis, &config->redis.url, config->workers);
    if (!site_load_tls(site, error, sizeof(error))) {
        cli_fail("%s", error);
        dispose(&server, site);
        return 1;
    }
    /* A thread that was started cannot be taken back; if one is not ready the process ends, and only the sockets
     * matter. */
    if (!listener_open_all(&server.listeners, &server.listener_count, config, handover, error, sizeof(error))) {
        cli_fail("%s", error);
        dispose(&server, site);
        return 1;
    }
    if (!start_workers(&server, site)) {
        dispose(&server, site);
        return 1;
    }
    handover_settle(handover);
    log_start(config->log_level, config->log_format, STDERR_FILENO);
    if (http2_guard_fits())
        http2_rules_init();
    else
        log_text(LOG_ERROR, "libh2o is not the version 2.2.5 that weir knows how to guard: HTTP/2 is not served");
    for (size_t i = 0; i < server.worker_count; i++)
        worker_go(server.workers[i]);
    signals_start(&server);
    greet(&server, config);
    notify_send("READY=1");
    handover_ready(handover);
    for (size_t i = 0; i < server.worker_count; i++)
        worker_wait(server.workers[i]);
    atomic_store(&server.ended, true);
    signals_stop();
    log_text(LOG_INFO, "ended");
    log_stop(LOG_FLUSH_MS);
    for (size_t i = 0; i < server.worker_count; i++)
        worker_destroy(server.workers[i]);
    dispose(&server, site);
    return 0;
}
