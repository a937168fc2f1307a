#include "gateway/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/recycle.h"
#include "gateway/http2_guard.h"
#include "gateway/http_call.h"
#include "gateway/limit.h"
#include "gateway/worker_listen.h"
#include "gateway/ws_bridge.h"
#include "gateway/ws_loop.h"
#include "stream/stream.h"
#include <errno.h>
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <signal.h>
#include <unistd.h>

#define LOOP_WAIT_MAX_MS 1000
#define DRAIN_STEP_US 50000
#define GOAWAY_US 1500000 /* libh2o's second GOAWAY follows a second after the first */

struct order {
    h2o_multithread_message_t super;
    enum worker_order order;
    struct site *site; /* counted; of WORKER_SITE */
};

static void on_order(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages);
static void on_drain_step(struct deadline *deadline);
static void on_due(h2o_timeout_entry_t *entry);

/* What libh2o keeps of the configuration. */
static void set_bounds(struct worker *worker)
{
    const struct config *config = worker->site->config;
    worker->globalconf.max_request_entity_size = config->max_body;
    worker->globalconf.http1.req_timeout = config->request_timeout_us / 1000;
    worker->globalconf.http2.idle_timeout = config->request_timeout_us / 1000;
}

static void init_h2o(struct worker *worker)
{
    h2o_socket_buffer_prototype.allocator.max = RECYCLE_MAX; /* 16 are few */
    h2o_config_init(&worker->globalconf);
    worker->connections.serve_http2 = http2_guard_fits();
    worker->globalconf.server_name = h2o_iovec_init(H2O_STRLIT("")); /* http_reply's: libh2o would print it, dearly */
    set_bounds(worker);
    worker->globalconf.http1.upgrade_to_http2 = 0; /* see connection.c */
    h2o_hostconf_t *host = h2o_config_register_host(&worker->globalconf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    http_call_register(host);
    h2o_context_init(&worker->ctx, h2o_evloop_create(), &worker->globalconf);
}

struct worker *worker_create(struct server *server, unsigned index, struct site *site)
{
    struct worker *worker = h2o_mem_alloc(sizeof(*worker));
    memset(worker, 0, sizeof(*worker));
    worker->server = server;
    worker->index = index;
    worker->site = site_retain(site);
    worker->drain_step.cb = on_drain_step;
    worker->due.cb = on_due;
    pthread_mutex_init(&worker->lock, NULL);
    sem_init(&worker->told, 0, 0);
    sem_init(&worker->go, 0, 0);
    h2o_linklist_init_anchor(&worker->calls);
    h2o_linklist_init_anchor(&worker->ws_sessions);
    deadlines_init(&worker->deadlines);
    telemetry_init(&worker->telemetry);
    worker->keyer = cache_keyer_create(site->config->redis.on ? NULL : server->cache_secret);
    redis_worker_init(&worker->redis_worker);
    worker->completion_average = 256;
    worker->turned_us = clock_us();
    return worker;
}

/* ---- the backends ---- */

/* The connections to the backends of one configuration. They stay, with it, for as long as requests use them. */
struct worker_pool {
    struct worker_pool *next; /* in the worker's list */
    struct worker *worker;
    struct site *site; /* counted */
    struct pool *pool;
};

/* Called from any thread. */
static void wake(void *ctx)
{
    worker_tell(ctx, WORKER_WAKE);
}

/* Requests that waited for a backend have got a place, in one of the pools. */
static void deliver(struct worker *worker)
{
    for (struct worker_pool *kept = worker->pools, *next; kept != NULL; kept = next) {
        next = kept->next;
        pool_deliver(kept->pool);
    }
}

static void on_pool_gone(void *ctx)
{
    struct worker_pool *kept = ctx;
    struct worker_pool **slot = &kept->worker->pools;
    while (*slot != kept)
        slot = &(*slot)->next;
    *slot = kept->next;
    site_release(kept->site);
    free(kept);
}

/* NULL with worker->error. */
static struct pool *make_pool(struct worker *worker, struct site *site)
{
    struct fleet_line line = {.wake = wake, .ctx = worker};
    struct pool *pool =
        pool_create(site->fleet, &worker->ctx, &worker->deadlines, &line, worker->error, sizeof(worker->error));
    if (pool == NULL)
        return NULL;
    struct worker_pool *kept = h2o_mem_alloc(sizeof(*kept));
    *kept = (struct worker_pool){.next = worker->pools, .worker = worker, .site = site_retain(site), .pool = pool};
    worker->pools = kept;
    pool_on_gone(pool, on_pool_gone, kept);
    return pool;
}

/* One worker asks the backends for their health and their models. */
static void look_after(struct worker *worker)
{
    prober_destroy(worker->prober);
    worker->prober =
        worker->index == 0 && worker->drain_by_us == 0 ? prober_create(worker->pool, &worker->deadlines) : NULL;
}

/* ---- making ready ---- */

/* Once the link is there. */
static void prepare_cache(struct worker *worker)
{
    const struct config *config = worker->site->config, *first = worker->server->first;
    struct cache_memory *memory = worker->server->cache;
    struct redis_cache_settings settings = {
        .link = worker->redis,
        .deadlines = &worker->deadlines,
        .memory = memory,
        .prefix = span_of(first->redis.prefix),
        .timeout_us = first->redis.timeout_us,
        .ttl_us = config->cache.ttl_us,
    };
    if (memory == NULL || worker->redis == NULL)
        return;
    worker->cache_redis = redis_cache_create(&settings);
    if (worker->index == 0)
        worker->purge_watch = redis_purge_watch_create(worker->redis, &worker->deadlines, memory, settings.prefix,
                                                       &worker->server->purge_origin);
}

/* Everything of libh2o's is made on the worker's own thread: its buffers come from, and go back to, lists of the
 * thread that they were made on. */
static bool prepare(struct worker *worker)
{
    init_h2o(worker);
    h2o_multithread_register_receiver(worker->ctx.queue, &worker->mailbox, on_order);
    if (!connections_init(worker)) {
        snprintf(worker->error, sizeof(worker->error), "cannot make an epoll set: %s", strerror(errno));
        return false;
    }
    const struct config *config = worker->site->config;
    if (config->redis.on) {
        redis_worker_start(&worker->redis_worker, &worker->server->redis, &config->redis.url, config->redis.timeout_us,
                           &worker->ctx, &worker->deadlines);
        worker->redis = worker->redis_worker.link;
        limit_redis_start(worker);
    }
    worker_listen_prepare(worker);
    prepare_cache(worker);
    worker->pool = make_pool(worker, worker->site);
    if (worker->pool == NULL)
        return false;
    look_after(worker);
    return true;
}

/* ---- orders and the drain ---- */

void worker_tell(struct worker *worker, enum worker_order order)
{
    pthread_mutex_lock(&worker->lock);
    if (!worker->ended) {
        struct order *message = h2o_mem_alloc(sizeof(*message));
        *message = (struct order){.order = order};
        h2o_multithread_send_message(&worker->mailbox, &message->super);
    }
    pthread_mutex_unlock(&worker->lock);
}

void worker_tell_site(struct worker *worker, struct site *site)
{
    pthread_mutex_lock(&worker->lock);
    if (!worker->ended) {
        struct order *message = h2o_mem_alloc(sizeof(*message));
        *message = (struct order){.order = WORKER_SITE, .site = site_retain(site)};
        h2o_multithread_send_message(&worker->mailbox, &message->super);
    }
    pthread_mutex_unlock(&worker->lock);
}

/* Takes over the reference to `site`. */
static void change_site(struct worker *worker, struct site *site)
{
    struct pool *pool = make_pool(worker, site);
    if (pool == NULL) {
        log_text(LOG_ERROR, "reload: %s; worker %u keeps the configuration in use", worker->error, worker->index);
        site_release(site);
        return;
    }
    pool_release(worker->pool);
    site_release(worker->site);
    worker->pool = pool;
    worker->site = site;
    look_after(worker);
    if (worker->cache_redis == NULL)
        prepare_cache(worker);
    else
        redis_cache_set_ttl(worker->cache_redis, site->config->cache.ttl_us);
    if (worker->limits == NULL)
        limit_redis_start(worker);
    set_bounds(worker);
    worker->ctx.http1.req_timeout.timeout = worker->globalconf.http1.req_timeout;
    worker->ctx.http2.idle_timeout.timeout = worker->globalconf.http2.idle_timeout;
    worker_listen_take_site(worker);
}

static void on_order(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    struct worker *worker = H2O_STRUCT_FROM_MEMBER(struct worker, mailbox, receiver);
    while (!h2o_linklist_is_empty(messages)) {
        struct order *message = H2O_STRUCT_FROM_MEMBER(struct order, super.link, messages->next);
        h2o_linklist_unlink(&message->super.link);
        uint64_t now = clock_us();
        if (message->order == WORKER_WAKE) {
            deliver(worker);
        } else if (message->order == WORKER_SITE) {
            change_site(worker, message->site);
        } else if (message->order == WORKER_STOP) {
            worker->drain_by_us = now;
        } else if (worker->drain_by_us == 0) {
            worker->drain_by_us = now + worker->site->config->drain_timeout_us;
            worker->draining_since_us = now;
            look_after(worker);
            worker_listen_end(worker);
            h2o_context_request_shutdown(&worker->ctx);
            ws_sessions_drain(worker);
        }
        if (worker->drain_by_us != 0)
            deadline_arm(&worker->deadlines, &worker->drain_step, now);
        free(message);
    }
}

static void on_drain_step(struct deadline *deadline)
{
    struct worker *worker = H2O_STRUCT_FROM_MEMBER(struct worker, drain_step, deadline);
    uint64_t now = clock_us();
    if (worker->connections.count == 0) {
        worker->stopped = true;
        return;
    }
    if (now >= worker->drain_by_us && worker->told_drained)
        connections_close_all(worker);
    else if (now >= worker->drain_by_us) {
        http_calls_abort(worker);
        ws_sessions_close(worker);
    } else
        connections_close_idle(worker, now >= worker->draining_since_us + GOAWAY_US);
    worker->told_drained = now >= worker->drain_by_us;
    deadline_arm(&worker->deadlines, &worker->drain_step, now + DRAIN_STEP_US);
}

/* ---- the thread ---- */

static void on_due(h2o_timeout_entry_t *entry)
{
    struct worker *worker = H2O_STRUCT_FROM_MEMBER(struct worker, due, entry);
    deadlines_run(&worker->deadlines, clock_us());
}

/* Serves until the drain is over. */
static void serve(struct worker *worker)
{
    h2o_loop_t *loop = worker->ctx.loop;
    worker_listen_begin(worker);
    while (!worker->stopped) {
        uint64_t now = clock_us();
        int wait = deadlines_wait_ms(&worker->deadlines, now, LOOP_WAIT_MAX_MS);
        atomic_store_explicit(&worker->turned_us, now, memory_order_relaxed);
        connections_turn(worker);
        /* Deadlines run among the loop's own timeouts: it looks after what they have written at once, not after
         * waiting. */
        if (wait == 0 && !h2o_timeout_is_linked(&worker->due))
            h2o_timeout_link(loop, &worker->ctx.zero_timeout, &worker->due);
        if (h2o_evloop_run(loop, ws_loop_wait_ms(worker->ws_loop, wait)) != 0 && errno != EINTR) {
            log_text(LOG_ERROR, "the event loop failed: %s", strerror(errno));
            abort();
        }
        ws_loop_run(worker->ws_loop);
    }
    worker_listen_end(worker);
    worker_listen_dispose(worker);
}

/* Undoes `prepare`, on the same thread. */
static void dispose(struct worker *worker)
{
    h2o_loop_t *loop = worker->ctx.loop;
    pthread_mutex_lock(&worker->lock);
    worker->ended = true;
    pthread_mutex_unlock(&worker->lock);
    h2o_evloop_run(loop, 0); /* orders that came at the last moment: libh2o wants none left */
    ws_loop_destroy(worker->ws_loop);
    connections_dispose(worker);
    redis_purge_watch_destroy(worker->purge_watch);
    redis_cache_close(worker->cache_redis);
    limit_redis_stop(worker);
    redis_worker_stop(&worker->redis_worker);
    worker->redis = NULL;
    prober_destroy(worker->prober);
    pool_release(worker->pool);
    deadlines_run(&worker->deadlines, clock_us()); /* pools go by it */
    h2o_timeout_unlink(&worker->due);
    h2o_timeout_unlink(&worker->ctx.http2._graceful_shutdown_timeout);
    h2o_evloop_run(loop, 0); /* frees the sockets closed last */
    /* The context, its queue and its loop stay until the process ends: libh2o cannot call a name's look-up back, and
     * the thread that does it will report to them, whoever has asked. */
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    worker->prepared = prepare(worker);
    sem_post(&worker->told);
    while (sem_wait(&worker->go) != 0)
        ;
    serve(worker);
    dispose(worker);
    sem_post(&worker->told);
    /* libh2o caches memory for each thread and has no way to give it back. The thread stays until the process ends,
     * which is now, so that tools that look for leaks see the cache as what it is. */
    while (pause() == -1)
        ;
    return NULL;
}

static void wait_until_told(struct worker *worker)
{
    while (sem_wait(&worker->told) != 0)
        ;
}

bool worker_start(struct worker *worker, char *error, size_t error_size)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    if (pthread_create(&worker->thread, NULL, run, worker) != 0)
        abort();
    pthread_detach(worker->thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    wait_until_told(worker);
    if (!worker->prepared)
        snprintf(error, error_size, "%s", worker->error);
    return worker->prepared;
}

void worker_go(struct worker *worker)
{
    sem_post(&worker->go);
}

void worker_wait(struct worker *worker)
{
    wait_until_told(worker);
}

static struct worker *ended; /* main thread only */

void worker_destroy(struct worker *worker)
{
    telemetry_dispose(&worker->telemetry);
    cache_keyer_destroy(worker->keyer);
    redis_cache_destroy(worker->cache_redis);
    redis_worker_dispose(&worker->redis_worker);
    deadlines_dispose(&worker->deadlines);
    site_release(worker->site);
    pthread_mutex_destroy(&worker->lock);
    sem_destroy(&worker->told);
    sem_destroy(&worker->go);
    /* Its libh2o context, which is in it, may still be reported to; see dispose. */
    worker->next_ended = ended;
    ended = worker;
}

struct worker *worker_of(h2o_req_t *req)
{
    return H2O_STRUCT_FROM_MEMBER(struct worker, ctx, req->conn->ctx);
}
