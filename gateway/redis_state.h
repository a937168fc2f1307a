/* Whether the workers' links to Redis are up, all together: one log line for each change of the whole process, however
 * many workers and requests see it, and what health checks and metrics say. */
#ifndef WEIR_GATEWAY_REDIS_STATE_H
#define WEIR_GATEWAY_REDIS_STATE_H

#include "base/redis_link.h"
#include "base/strbuf.h"
#include <pthread.h>
#include <stdatomic.h>

struct worker;

/* One for the process. */
struct redis_state {
    pthread_mutex_t _lock;                   /* guards all but `_up` */
    unsigned _links, _links_up, _links_down; /* the rest has not said yet */
    bool _was_down;
    char _url[256]; /* without secrets */
    atomic_bool _up;
};

/* One for each worker: its link, and what the process knows of it. */
struct redis_worker {
    struct redis_link *link; /* NULL: there is no Redis, or the worker has ended */
    struct redis_state *state;
    pthread_mutex_t lock;            /* guards `link` against those who read its counts while the worker ends */
    struct redis_link_counts counts; /* of the link that has gone */
    enum { REDIS_UNKNOWN, REDIS_IS_UP, REDIS_IS_DOWN } known;
};

/* For `links` workers. */
void redis_state_init(struct redis_state *state, const struct redis_url *url, unsigned links);
/* Also of one that is all zeros. */
void redis_state_dispose(struct redis_state *state);

/* Whether every worker has its link. Any thread. */
bool redis_state_up(const struct redis_state *state);

/* Prepares a worker without a link. */
void redis_worker_init(struct redis_worker *redis);
void redis_worker_dispose(struct redis_worker *redis);

/* Starts a worker's link with the gateway's scripts, on the worker's thread. */
void redis_worker_start(struct redis_worker *redis, struct redis_state *state, const struct redis_url *url,
                        uint64_t timeout_us, h2o_context_t *ctx, struct deadlines *deadlines);

/* Ends it, on the worker's thread. */
void redis_worker_stop(struct redis_worker *redis);

/* Adds a worker's counts to *counts. Any thread. */
void redis_worker_count(struct redis_worker *redis, struct redis_link_counts *counts);

/* Writes the metrics of all workers. Any thread. */
void redis_state_write(const struct redis_state *state, struct worker *const *workers, size_t count,
                       struct strbuf *out);

#endif
