#include "backends/pool_own.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdlib.h>

/* ---- members ---- */

void pool_member_release(struct pool_member *member)
{
    if (--member->users != 0)
        return;
    upstream_destroy(member->upstream);
    if (member->names != NULL)
        model_names_release(member->names);
    fleet_server_release(member->server);
    free(member);
}

static struct pool_member *member_create(struct pool *pool, struct fleet_server *server, char *error, size_t error_size)
{
    char problem[512];
    struct upstream *upstream =
        upstream_create(server->settings, (const struct sockaddr *)&server->address, server->address_len, pool->ctx,
                        pool->deadlines, problem, sizeof(problem));
    if (upstream == NULL) {
        snprintf(error, error_size, "backend %s: %s", server->name, problem);
        return NULL;
    }
    struct pool_member *member = h2o_mem_alloc(sizeof(*member));
    *member = (struct pool_member){.server = fleet_server_retain(server), .upstream = upstream, .users = 1};
    return member;
}

static struct pool_member *find_member(const struct pool *pool, const struct fleet_server *server)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->members[i]->server == server)
            return pool->members[i];
    return NULL;
}

/* As pool_follow does. False with a message if a server's connections cannot be set up; it is left out then. */
static bool follow(struct pool *pool, char *error, size_t error_size)
{
    bool ok = true;
    uint64_t version = fleet_version(pool->fleet);
    struct fleet_set *set = fleet_set_get(pool->fleet);
    struct pool_member **members = h2o_mem_alloc((set->count + 1) * sizeof(members[0]));
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        struct pool_member *member = find_member(pool, set->servers[i]);
        if (member != NULL)
            member->users++;
        else if ((member = member_create(pool, set->servers[i], error, error_size)) == NULL)
            ok = false;
        if (member == NULL)
            continue;
        if (member->names != NULL)
            model_names_release(member->names);
        member->names = fleet_names(member->server, NULL, 0);
        members[count++] = member;
    }
    fleet_set_release(set);
    pool_routes_forget(pool);
    for (size_t i = 0; i < pool->count; i++)
        pool_member_release(pool->members[i]);
    free(pool->members);
    pool->members = members;
    pool->count = count;
    pool->version = version;
    return ok;
}

void pool_follow(struct pool *pool)
{
    char error[600];
    if (pool->version != fleet_version(pool->fleet) && !follow(pool, error, sizeof(error)))
        log_text(LOG_ERROR, "%s", error);
}

/* ---- the life of a pool ---- */

static void destroy(struct pool *pool)
{
    pool_routes_forget(pool);
    for (size_t i = 0; i < pool->count; i++)
        pool_member_release(pool->members[i]);
    free(pool->members);
    free(pool);
}

static void on_end(struct deadline *deadline)
{
    struct pool *pool = H2O_STRUCT_FROM_MEMBER(struct pool, end, deadline);
    void (*on_gone)(void *ctx) = pool->on_gone;
    void *ctx = pool->ctx_gone;
    destroy(pool);
    if (on_gone != NULL)
        on_gone(ctx);
}

struct pool *pool_create(struct fleet *fleet, h2o_context_t *ctx, struct deadlines *deadlines,
                         const struct fleet_line *line, char *error, size_t error_size)
{
    struct pool *pool = h2o_mem_alloc(sizeof(*pool));
    memset(pool, 0, sizeof(*pool));
    pool->refs = 1;
    pool->fleet = fleet;
    pool->ctx = ctx;
    pool->deadlines = deadlines;
    if (line != NULL)
        pool->line = *line;
    pool->random = balance_hash(&pool, sizeof(pool), clock_us());
    retry_budget_init(&pool->budget, clock_us());
    if (follow(pool, error, error_size))
        return pool;
    destroy(pool);
    return NULL;
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
    pool->ctx_gone = ctx;
}

struct fleet *pool_fleet(const struct pool *pool)
{
    return pool->fleet;
}

h2o_context_t *pool_context(const struct pool *pool)
{
    return pool->ctx;
}

struct retry_budget *pool_retry_budget(struct pool *pool)
{
    return &pool->budget;
}

uint64_t pool_random(struct pool *pool)
{
    return balance_random(&pool->random);
}

/* ---- all of them ---- */

struct model_names *pool_member_names(const struct pool_member *member)
{
    return member->names;
}

size_t pool_count(struct pool *pool)
{
    pool_follow(pool);
    return pool->count;
}

struct pool_member *pool_member_hold(struct pool *pool, size_t i)
{
    if (i >= pool->count)
        return NULL;
    pool->members[i]->users++;
    return pool->members[i];
}

struct upstream *pool_member_upstream(const struct pool_member *member)
{
    return member->upstream;
}

struct fleet_server *pool_member_server(const struct pool_member *member)
{
    return member->server;
}
