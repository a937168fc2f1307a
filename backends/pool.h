/* A worker's view of all backends: who serves a model, whose turn it is, who is tried next. One thread. */
#ifndef WEIR_BACKENDS_POOL_H
#define WEIR_BACKENDS_POOL_H

#include "backends/exchange.h"

#define POOL_BACKENDS_MAX 256

struct pool;

/* Connections to `count` backends, whose settings must outlive the pool; counted, the caller has one count. NULL with a
 * message in `error` if the TLS files of one cannot be used. */
struct pool *pool_create(const struct backend_settings *settings, size_t count, h2o_context_t *ctx,
                         struct deadlines *deadlines, char *error, size_t error_size);

/* Whoever has exchanges with its backends under way holds a count. With the last one it goes, at the next run of the
 * deadlines, since what gives it up may be in the middle of an exchange. */
struct pool *pool_retain(struct pool *pool);
void pool_release(struct pool *pool);

/* Has `gone` called once the pool is no more: its settings may go then. */
void pool_on_gone(struct pool *pool, void (*gone)(void *ctx), void *ctx);

/* One request's walk over the backends that may serve it. Plain data; needs no clean-up. */
struct pool_walk {
    struct span model;
    const char *only; /* the name of the one backend that may serve it; NULL: any */
    uint64_t _tried[POOL_BACKENDS_MAX / 64];
};

/* Begins a walk for `model` (empty: a backend marked as default, else the first of all), which must stay valid during
 * it. The start goes round robin among those that serve the model. */
void pool_walk_start(struct pool *pool, struct pool_walk *walk, struct span model, const char *only);

/* The next backend to try: of those that serve the model and were not tried, the one whose last turn is longest ago,
 * which makes equals take turns whatever else the pool serves. *upstream_model receives the name that it knows the
 * model by. NULL when there is none left.
 */
struct upstream *pool_walk_next(struct pool *pool, struct pool_walk *walk, struct span *upstream_model);

/* The i-th backend, for going through all of them; NULL beyond the last. */
struct upstream *pool_at(struct pool *pool, size_t i);

#endif
