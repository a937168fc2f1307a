/* A worker's view of the fleet: its connections to the servers, who serves a model, who is tried next. One thread; what
 * the workers share is in fleet.h.
 *
 *     walk ─▶ route (kept for each model) ─▶ option ─▶ member: upstream (connections) + fleet_server
 *       └──▶ lease: one request's place on one server, from the choice to the end of the answer */
#ifndef WEIR_BACKENDS_POOL_H
#define WEIR_BACKENDS_POOL_H

#include "backends/exchange.h"
#include "backends/fleet.h"

struct pool;
struct pool_member;
struct pool_route;
struct pool_option;

/* Connections to all servers of the fleet, which must outlive the pool; counted, the caller has one count. `line` is
 * where this worker's waiters get their places. NULL with a message in `error` if the TLS files of a server cannot be
 * used; later, such a server is left out and the log says so. */
struct pool *pool_create(struct fleet *fleet, h2o_context_t *ctx, struct deadlines *deadlines,
                         const struct fleet_line *line, char *error, size_t error_size);

/* Whoever has exchanges or waits under way holds a count; a lease is one. With the last one the pool goes, at the next
 * run of the deadlines, since what gives it up may be in the middle of an exchange. */
struct pool *pool_retain(struct pool *pool);
void pool_release(struct pool *pool);

/* Has `gone` called once the pool is no more: the fleet may go then. */
void pool_on_gone(struct pool *pool, void (*gone)(void *ctx), void *ctx);

struct fleet *pool_fleet(const struct pool *pool);

h2o_context_t *pool_context(const struct pool *pool);

/* Of this worker's requests; see retry.h. */
struct retry_budget *pool_retry_budget(struct pool *pool);

/* A random number for back-off. */
uint64_t pool_random(struct pool *pool);

/* ---- a walk ---- */

#define POOL_OPTIONS_MAX BALANCE_CANDIDATES_MAX

/* One request's walk over the servers that may serve it. Ended with pool_walk_end. */
struct pool_walk {
    struct pool_route *_route; /* NULL: nobody serves it */
    uint64_t _tried[POOL_OPTIONS_MAX / 64];
    bool _begun; /* somebody was tried */
};

/* What the policy may want to know of the request. */
struct pool_hint {
    uint64_t key; /* for BALANCE_CONSISTENT_HASH */
    bool has_key;
    struct span prompt; /* for BALANCE_PREFIX; must stay valid during the walk; empty: none */
};

/* A request's place on a server. Zero-initialised: none. */
struct pool_lease {
    struct pool *_pool;
    struct pool_member *_member;
    struct pool_route *_route;
    struct pool_option *_option;
    uint64_t begun_us;
    bool _trial;
};

enum pool_result {
    POOL_CHOSEN,
    POOL_FULL,    /* those that are left have no free place: see pool_walk_wait */
    POOL_NONE,    /* there is none left */
    POOL_UNKNOWN, /* nobody serves the model */
};

/* Begins a walk for `model` (empty: a backend marked as default, else the first of all). `only` is the name of the one
 * backend that may serve it, whatever its models are; NULL: any. */
void pool_walk_start(struct pool *pool, struct pool_walk *walk, struct span model, const char *only);

/* The next server to try, none twice, by the policy; POOL_CHOSEN fills in the lease. Servers that are ejected, paused
 * or failing are left out as long as there are others, those of later steps among them; where there are none, a failing
 * one is next, then an ejected one is still better than nothing, and a paused one too if nobody was tried before. */
enum pool_result pool_walk_next(struct pool *pool, struct pool_walk *walk, const struct pool_hint *hint,
                                struct pool_lease *lease, uint64_t now_us);

/* After POOL_FULL: waits for a place on any of them; see fleet_wait. */
bool pool_walk_wait(struct pool *pool, struct pool_walk *walk, struct fleet_waiter *waiter, enum queue_class class,
                    uint64_t key, uint64_t now_us);

/* Stops waiting. */
void pool_stop_waiting(struct pool *pool, struct fleet_waiter *waiter);

/* The place that the waiter was granted becomes a lease. False, and the place is given back, if this worker cannot use
 * it any more. */
bool pool_walk_granted(struct pool *pool, struct pool_walk *walk, struct fleet_waiter *waiter, struct pool_lease *lease,
                       uint64_t now_us);

/* Gives the waiters of this worker their places. */
void pool_deliver(struct pool *pool);

/* Whether there are servers that the walk has not tried, whatever their state. */
bool pool_walk_has_more(const struct pool_walk *walk);

void pool_walk_end(struct pool *pool, struct pool_walk *walk);

/* ---- a lease ---- */

struct upstream *pool_lease_upstream(const struct pool_lease *lease);

/* The name of the backend, for logs, metrics and people; as long as the lease. */
const char *pool_lease_name(const struct pool_lease *lease);

/* The name that the server knows the model by. */
struct span pool_lease_model(const struct pool_lease *lease);

/* A number that the caller may keep with the option, such as a pointer to a metric; NULL at first. It goes with the
 * route, so it must need no clean-up. *pattern receives what was configured for the model, such as "qwen*", or "*". */
void **pool_lease_tag(const struct pool_lease *lease, const char **pattern);

/* The first token has come, or the head of a plain answer (`streamed` false, whose time counts for no average). */
void pool_lease_answered(struct pool_lease *lease, bool streamed, uint64_t now_us);

/* It failed, or broke off; see fleet_failed. */
void pool_lease_failed(struct pool_lease *lease, enum health_failure failure, const char *problem, uint64_t now_us);

/* The whole answer has come; only for one that is no error, of the server's or the client's: these are short. */
void pool_lease_finished(struct pool_lease *lease);

/* See fleet_pause. */
void pool_lease_pause(struct pool_lease *lease, uint64_t us, uint64_t now_us);

/* Gives the place back. The exchange must be over. Nothing happens if there is no lease. */
void pool_lease_end(struct pool_lease *lease);

/* ---- all of them ---- */

/* The i-th server, held until pool_member_release; NULL beyond the last. For requests that no policy chooses for, such
 * as probes and questions for models: they take no place. */
struct pool_member *pool_member_hold(struct pool *pool, size_t i);
void pool_member_release(struct pool_member *member);
struct upstream *pool_member_upstream(const struct pool_member *member);
struct fleet_server *pool_member_server(const struct pool_member *member);

/* The models that it said it serves, as long as it is held and pool_count is not called; NULL: its settings hold. */
struct model_names *pool_member_names(const struct pool_member *member);

/* How many there are, as of now. */
size_t pool_count(struct pool *pool);

#endif
