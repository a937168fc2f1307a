#include "backends/pool.h"
#include "base/clock.h"
#include <stdlib.h>

struct pool {
    unsigned refs;
    struct deadlines *deadlines;
    struct deadline end;
    void (*on_gone)(void *ctx); /* NULL: nobody wants to know */
    void *ctx;
    struct upstream **upstreams;
    size_t count;
    uint64_t turn;       /* counts choices */
    uint64_t *last_turn; /* of each backend */
};

static void destroy(struct pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        upstream_destroy(pool->upstreams[i]);
    free(pool->upstreams);
    free(pool->last_turn);
    free(pool);
}

static void on_end(struct deadline *deadline)
{
    struct pool *pool = H2O_STRUCT_FROM_MEMBER(struct pool, end, deadline);
    void (*on_gone)(void *ctx) = pool->on_gone;
    void *ctx = pool->ctx;
    destroy(pool);
    if (on_gone != NULL)
        on_gone(ctx);
}

struct pool *pool_create(const struct backend_settings *settings, size_t count, h2o_context_t *ctx,
                         struct deadlines *deadlines, char *error, size_t error_size)
{
    struct pool *pool = h2o_mem_alloc(sizeof(*pool));
    *pool = (struct pool){.refs = 1,
                          .deadlines = deadlines,
                          .upstreams = h2o_mem_alloc(count * sizeof(pool->upstreams[0])),
                          .last_turn = h2o_mem_alloc(count * sizeof(pool->last_turn[0]))};
    memset(pool->last_turn, 0, count * sizeof(pool->last_turn[0]));
    if (count > POOL_BACKENDS_MAX) {
        snprintf(error, error_size, "more than %d backends", POOL_BACKENDS_MAX);
        destroy(pool);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        char problem[512];
        struct upstream *upstream = upstream_create(&settings[i], ctx, deadlines, problem, sizeof(problem));
        if (upstream == NULL) {
            snprintf(error, error_size, "backend %s: %s", settings[i].name, problem);
            destroy(pool);
            return NULL;
        }
        pool->upstreams[pool->count++] = upstream;
    }
    return pool;
}

struct pool *pool_retain(struct pool *pool)
{
    pool->refs++;
    return pool;
}

void pool_release(struct pool *pool)
{
    if (--pool->refs != 0)
        return;
    pool->end.cb = on_end;
    deadline_arm(pool->deadlines, &pool->end, clock_us());
}

void pool_on_gone(struct pool *pool, void (*gone)(void *ctx), void *ctx)
{
    pool->on_gone = gone;
    pool->ctx = ctx;
}

/* Whether the walk may use this backend. */
static bool serves(const struct pool_walk *walk, struct upstream *upstream, struct span *upstream_model)
{
    const struct backend_settings *settings = upstream_settings(upstream);
    *upstream_model = walk->model;
    if (walk->only != NULL)
        return strcmp(settings->name, walk->only) == 0;
    return backend_serves(settings, walk->model, upstream_model);
}

void pool_walk_start(struct pool *pool, struct pool_walk *walk, struct span model, const char *only)
{
    *walk = (struct pool_walk){.model = model, .only = only};
    if (model.len != 0 || only != NULL)
        return;
    walk->only = upstream_settings(pool->upstreams[0])->name;
    for (size_t i = 0; i < pool->count; i++)
        if (upstream_settings(pool->upstreams[i])->is_default)
            walk->only = upstream_settings(pool->upstreams[i])->name;
}

struct upstream *pool_walk_next(struct pool *pool, struct pool_walk *walk, struct span *upstream_model)
{
    size_t best = pool->count;
    for (size_t i = 0; i < pool->count; i++) {
        struct span name;
        if ((walk->_tried[i / 64] >> (i % 64) & 1) != 0 || !serves(walk, pool->upstreams[i], &name))
            continue;
        if (best == pool->count || pool->last_turn[i] < pool->last_turn[best]) {
            best = i;
            *upstream_model = name;
        }
    }
    if (best == pool->count)
        return NULL;
    walk->_tried[best / 64] |= UINT64_C(1) << (best % 64);
    pool->last_turn[best] = ++pool->turn;
    return pool->upstreams[best];
}

struct upstream *pool_at(struct pool *pool, size_t i)
{
    return i < pool->count ? pool->upstreams[i] : NULL;
}
