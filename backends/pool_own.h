/* Private to the pool: what its files share. */
#ifndef WEIR_BACKENDS_POOL_OWN_H
#define WEIR_BACKENDS_POOL_OWN_H

#include "backends/pool.h"

#define POOL_ROUTES_KEPT 256 /* a power of two */

/* A worker's side of a server. Held by the pool while the server is in the fleet, by routes and by leases. */
struct pool_member {
    struct fleet_server *server; /* counted */
    struct upstream *upstream;
    unsigned users;
    struct model_names *names; /* counted: those of the pool's version; NULL: the settings hold */
};

/* A server that may serve a model. */
struct pool_option {
    struct fleet_server *server; /* of the member */
    int64_t turn;                /* for the policies: each model has its own turns */
    unsigned step;               /* of a fallback order; 0 otherwise */
    struct pool_member *member;  /* held */
    struct span model;           /* as asked for in this step; in the route or the fleet's settings */
    struct span upstream_model;  /* as the server knows it; there, or in the server's settings */
    const char *pattern;         /* there */
    void *tag;
};

/* Who serves a model: worked out once, kept until the fleet changes. Counted. */
struct pool_route {
    unsigned refs;
    uint64_t hash;
    char *model;
    size_t model_len;
    char *only; /* NULL: any */
    size_t count;
    struct pool_option options[];
};

struct pool {
    unsigned refs;
    struct deadline end;
    void (*on_gone)(void *ctx); /* NULL: nobody wants to know */
    void *ctx_gone;
    struct fleet *fleet;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    struct fleet_line line;
    uint64_t version; /* of the set that `members` stand for */
    struct pool_member **members;
    size_t count;
    struct pool_route *routes[POOL_ROUTES_KEPT];
    struct retry_budget budget;
    uint64_t random;
};

/* Brings the members up to what the fleet is now. Routes that nobody holds go with a change. */
void pool_follow(struct pool *pool);

/* Who serves `model`, by `only` alone if that is given (see pool_walk_start): kept or made, counted for the caller.
 * NULL if nobody does. */
struct pool_route *pool_route_find(struct pool *pool, struct span model, const char *only);

/* The last one to let go frees it, and lets go of its members. */
void pool_route_release(struct pool_route *route);

/* Lets go of all routes that are kept. */
void pool_routes_forget(struct pool *pool);

#endif
