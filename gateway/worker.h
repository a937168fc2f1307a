/* A worker: one thread with its own h2o context, loop, deadlines, connections to backends and metrics. Its members
 * belong to that thread but for what is said otherwise. */
#ifndef WEIR_GATEWAY_WORKER_H
#define WEIR_GATEWAY_WORKER_H

#include "backends/pool.h"
#include "backends/probe.h"
#include "base/deadline.h"
#include "cache/redis_cache.h"
#include "gateway/clients.h"
#include "gateway/connection.h"
#include "gateway/limit_clients.h"
#include "gateway/listener.h"
#include "gateway/redis_state.h"
#include "gateway/security.h"
#include "gateway/site.h"
#include "gateway/telemetry.h"
#include "gateway/uploads.h"
#include "ratelimit/redis_store.h"
#include "ratelimit/store.h"
#include <h2o.h>
#include <pthread.h>
#include <semaphore.h>

struct server;
struct ws_loop;

/* Shared by all workers; made before they start, destroyed after they ended. */
struct server {
    struct worker *workers[CONFIG_WORKERS_MAX];
    size_t worker_count;
    const struct config *first;    /* the configuration at the start, which stays until the end */
    struct config_options options; /* of the command line, for the next configuration */
    struct site *site;             /* counted; the newest, under `reloading` once workers run */
    pthread_mutex_t reloading;     /* guards site and the making of stores */
    bool supervised;
    struct listener *listeners;
    size_t listener_count;
    struct store *_Atomic limits; /* counts of limits and leases; NULL: there are none. A reload may make it */
    struct key_secret limit_secret;
    uint64_t gateway;                   /* random: what tells this process from others that share a Redis */
    atomic_uint gateways;               /* how many do, this one included, when last counted */
    struct cache_memory *_Atomic cache; /* NULL: off; likewise */
    unsigned char cache_secret[CACHE_SECRET_LEN];
    struct redis_state redis; /* only with a Redis in the configuration */
    struct redis_purge_origin purge_origin;
    struct clients *clients; /* what is remembered of addresses */
    struct uploads uploads;  /* memory of request bodies */
    atomic_uint connections; /* of all workers */
    atomic_bool ended;       /* all workers have */
    atomic_bool draining;    /* no longer ready: set once */
    uint64_t started_us;
};

struct worker {
    struct server *server;
    unsigned index;
    pthread_t thread;
    h2o_globalconf_t globalconf;
    h2o_context_t ctx;
    struct deadlines deadlines;
    h2o_timeout_entry_t due; /* linked when a deadline is due */
    struct connections connections;
    h2o_linklist_t calls;       /* of all requests in flight */
    h2o_linklist_t ws_sessions; /* of all WebSockets */
    struct ws_loop *ws_loop;    /* NULL: there was none yet */
    struct site *site;          /* counted; new calls use it */
    struct pool *pool;          /* counted; likewise */
    struct prober *prober;      /* of the pool; NULL on other workers, and during the drain */
    struct worker_pool *pools;  /* all that live: it and those of running requests */
    struct telemetry telemetry;
    struct security security;
    struct cache_keyer *keyer;
    struct redis_link *redis; /* NULL: there is none */
    struct redis_worker redis_worker;
    struct redis_cache *_Atomic cache_redis; /* the cache's second level; NULL: there is none; metrics read it */
    struct redis_purge_watch *purge_watch;   /* of the whole process; NULL on other workers */
    struct redis_store *limits;              /* those in Redis; NULL: there is none, or nothing to limit */
    struct limit_clients limit_clients;
    uint64_t completion_average; /* tokens of an answer, for requests that do not say how many they want */
    h2o_multithread_receiver_t mailbox;
    pthread_mutex_t lock; /* guards `ended`: orders may come while the thread ends */
    bool ended;
    _Atomic uint64_t turned_us; /* when its loop last began a turn, for the watchdog */
    sem_t told;                 /* posted by the thread when it is ready, and when it has ended */
    sem_t go;                   /* posted when it may serve */
    bool prepared;
    char error[512];
    struct worker_listener {
        h2o_socket_t *sock;
        const char *address; /* as the configuration writes it */
        h2o_accept_ctx_t accept_ctx;
        struct worker *worker;
        struct deadline pause; /* while there are no descriptors left */
        bool paused;           /* it has happened, and was logged */
        bool admin;
    } * listening;
    size_t listening_count;
    struct deadline drain_step;
    uint64_t draining_since_us;
    bool told_drained;    /* running streams have been told that their time is up */
    uint64_t drain_by_us; /* when what still runs is cut off; 0: not draining */
    bool stopped;
    struct worker *next_ended;
};

/* What a worker can be told, from any thread. */
enum worker_order {
    WORKER_DRAIN,
    WORKER_STOP,
    WORKER_SITE, /* by worker_tell_site */
    WORKER_WAKE, /* requests that waited for a backend have got a place */
};

/* Makes a worker. Takes a reference to `site`. */
struct worker *worker_create(struct server *server, unsigned index, struct site *site);

/* Starts its thread, which makes ready and waits for worker_go. False with a message if it cannot: then the process
 * must end. */
bool worker_start(struct worker *worker, char *error, size_t error_size);

/* Lets it serve. */
void worker_go(struct worker *worker);

/* Sends an order; any thread. */
void worker_tell(struct worker *worker, enum worker_order order);

/* Gives it a new configuration, for the requests that come from then on; any thread. */
void worker_tell_site(struct worker *worker, struct site *site);

/* Makes the stores that the configuration needs and that are not there yet. Under `reloading` once workers run. */
void server_create_stores(struct server *server, const struct config *config);

/* Waits until its thread has let go of everything. */
void worker_wait(struct worker *worker);

/* Frees what only matters until all workers have ended (the metrics that others may read). The worker itself stays. */
void worker_destroy(struct worker *worker);

/* The worker that a request runs on. */
struct worker *worker_of(h2o_req_t *req);

#endif
