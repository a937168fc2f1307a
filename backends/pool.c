#include "backends/pool.h"
#include "base/clock.h"
#include "base/log.h"
#include <assert.h>
#include <stdlib.h>

#define ROUTES_KEPT 256 /* a power of two */

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
    struct pool_route *routes[ROUTES_KEPT];
    struct retry_budget budget;
    uint64_t random;
};

/* ---- members ---- */

static void member_drop(struct pool_member *member)
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

static void route_release(struct pool_route *route)
{
    if (--route->refs != 0)
        return;
    for (size_t i = 0; i < route->count; i++)
        member_drop(route->options[i].member);
    free(route->model);
    free(route->only);
    free(route);
}

static void forget_routes(struct pool *pool)
{
    for (size_t i = 0; i < ROUTES_KEPT; i++) {
        if (pool->routes[i] != NULL)
            route_release(pool->routes[i]);
        pool->routes[i] = NULL;
    }
}

/* Follows the fleet. False with a message if a server's connections cannot be set up; it is left out then. */
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
    forget_routes(pool);
    for (size_t i = 0; i < pool->count; i++)
        member_drop(pool->members[i]);
    free(pool->members);
    pool->members = members;
    pool->count = count;
    pool->version = version;
    return ok;
}

static void follow_if_changed(struct pool *pool)
{
    char error[600];
    if (pool->version != fleet_version(pool->fleet) && !follow(pool, error, sizeof(error)))
        log_text(LOG_ERROR, "%s", error);
}

static void destroy(struct pool *pool)
{
    forget_routes(pool);
    for (size_t i = 0; i < pool->count; i++)
        member_drop(pool->members[i]);
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

/* ---- routes ---- */

static const char *default_backend(const struct pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->members[i]->server->settings->is_default)
            return pool->members[i]->server->settings->name;
    return pool->count != 0 ? pool->members[0]->server->settings->name : "";
}

static const struct fleet_alias *find_alias(const struct pool *pool, struct span model)
{
    const struct fleet_settings *settings = fleet_settings(pool->fleet);
    for (size_t i = 0; i < settings->alias_count; i++)
        if (span_eq(span_of(settings->aliases[i].name), model))
            return &settings->aliases[i];
    return NULL;
}

/* Which rule of the backend's `models:` a model falls under. */
static const char *pattern_of(const struct backend_settings *settings, struct span model)
{
    const char *found = settings->model_count == 0 ? "*" : NULL;
    for (size_t i = 0; i < settings->model_count; i++) {
        struct span pattern = span_of(settings->models[i].pattern);
        if (span_eq(pattern, model))
            return settings->models[i].pattern;
        if (found == NULL && glob_match(pattern, model))
            found = settings->models[i].pattern;
    }
    return found != NULL ? found : "";
}

/* Adds who serves `model`. `whatever`: the one named backend may serve it whatever its models are. */
static void add_options(struct pool *pool, struct pool_route *route, struct span model, const char *only, bool whatever,
                        unsigned step)
{
    for (size_t i = 0; i < pool->count && route->count < POOL_OPTIONS_MAX; i++) {
        struct pool_member *member = pool->members[i];
        const struct backend_settings *settings = member->server->settings;
        struct span upstream_model = model;
        if (only != NULL && strcmp(settings->name, only) != 0)
            continue;
        if (!whatever && (member->names != NULL ? !model_names_has(member->names, model)
                                                : !backend_serves(settings, model, &upstream_model)))
            continue;
        member->users++;
        route->options[route->count++] = (struct pool_option){.server = member->server,
                                                              .member = member,
                                                              .model = model,
                                                              .upstream_model = upstream_model,
                                                              .pattern = pattern_of(settings, model),
                                                              .step = step};
    }
}

static struct pool_route *route_create(struct pool *pool, struct span model, const char *only, uint64_t hash)
{
    const struct fleet_alias *alias = only == NULL ? find_alias(pool, model) : NULL;
    size_t steps = alias != NULL ? alias->step_count : 1, most = steps * pool->count;
    if (most > POOL_OPTIONS_MAX)
        most = POOL_OPTIONS_MAX;
    struct pool_route *route = h2o_mem_alloc(sizeof(*route) + most * sizeof(route->options[0]));
    *route = (struct pool_route){.refs = 1,
                                 .hash = hash,
                                 .model = span_dup(model),
                                 .model_len = model.len,
                                 .only = only != NULL ? strdup(only) : NULL};
    struct span own = {route->model, model.len};
    for (size_t i = 0; alias != NULL && i < alias->step_count; i++)
        add_options(pool, route, span_of(alias->steps[i].model), alias->steps[i].backend, false, (unsigned)i);
    if (alias == NULL && only == NULL && model.len == 0)
        add_options(pool, route, own, default_backend(pool), true, 0);
    else if (alias == NULL)
        add_options(pool, route, own, only, only != NULL, 0);
    return route;
}

/* The route, counted; NULL if nobody serves the model. */
static struct pool_route *find_route(struct pool *pool, struct span model, const char *only)
{
    uint64_t hash = balance_hash(model.base, model.len, only != NULL ? balance_hash(only, strlen(only), 1) : 0);
    struct pool_route **kept = &pool->routes[hash & (ROUTES_KEPT - 1)], *route = *kept;
    if (route == NULL || route->hash != hash || !span_eq((struct span){route->model, route->model_len}, model) ||
        (only == NULL ? route->only != NULL : route->only == NULL || strcmp(only, route->only) != 0)) {
        route = route_create(pool, model, only, hash);
        if (route->count == 0) { /* names that mean nothing must not push out those that do */
            route_release(route);
            return NULL;
        }
        if (*kept != NULL)
            route_release(*kept);
        *kept = route;
    }
    route->refs++;
    return route;
}

/* ---- walks ---- */

void pool_walk_start(struct pool *pool, struct pool_walk *walk, struct span model, const char *only)
{
    follow_if_changed(pool);
    memset(walk, 0, sizeof(*walk));
    walk->_route = find_route(pool, model, only);
}

void pool_walk_end(struct pool *pool, struct pool_walk *walk)
{
    (void)pool;
    if (walk->_route != NULL)
        route_release(walk->_route);
    walk->_route = NULL;
}

static bool was_tried(const struct pool_walk *walk, size_t i)
{
    return (walk->_tried[i / 64] >> (i % 64) & 1) != 0;
}

bool pool_walk_has_more(const struct pool_walk *walk)
{
    for (size_t i = 0; walk->_route != NULL && i < walk->_route->count; i++)
        if (!was_tried(walk, i) && fleet_standing(walk->_route->options[i].server, 0) != FLEET_LEAVING)
            return true;
    return false;
}

/* The i-th option is the one; its place is taken. */
static enum pool_result choose(struct pool *pool, struct pool_walk *walk, size_t i, struct pool_lease *lease,
                               bool trial, uint64_t now_us)
{
    struct pool_option *option = &walk->_route->options[i];
    walk->_tried[i / 64] |= UINT64_C(1) << (i % 64);
    walk->_begun = true;
    walk->_route->refs++;
    option->member->users++;
    *lease = (struct pool_lease){._pool = pool_retain(pool),
                                 ._member = option->member,
                                 ._route = walk->_route,
                                 ._option = option,
                                 .begun_us = now_us,
                                 ._trial = trial};
    return POOL_CHOSEN;
}

/* What the policies look at, for the options of one step that may be chosen now. */
struct choice {
    size_t trial;  /* an ejected or failing one that it is time to try; SIZE_MAX: none */
    bool full;     /* some have no free place */
    bool avoided;  /* some are failing, and were left out for that */
    bool anything; /* leave none out for that */
    size_t count;
    uint16_t at[BALANCE_CANDIDATES_MAX];
    struct balance_candidate candidates[BALANCE_CANDIDATES_MAX];
};

static void gather(const struct pool_walk *walk, size_t from, size_t to, enum balance_policy policy,
                   struct choice *choice, uint64_t now_us)
{
    choice->count = 0;
    choice->trial = SIZE_MAX;
    for (size_t i = from; i < to; i++) {
        struct pool_option *option = &walk->_route->options[i];
        struct fleet_server *server = option->server;
        if (was_tried(walk, i))
            continue;
        enum fleet_standing standing = fleet_standing(server, now_us);
        if (standing == FLEET_TRIAL && choice->trial == SIZE_MAX && !fleet_is_full(server))
            choice->trial = i;
        if (standing != FLEET_OPEN)
            continue;
        if (fleet_is_full(server)) {
            choice->full = true;
            continue;
        }
        if (fleet_is_avoided(server) && !choice->anything) {
            choice->avoided = true;
            if (choice->trial == SIZE_MAX && fleet_try_is_due(server, now_us))
                choice->trial = i;
            continue;
        }
        choice->at[choice->count] = (uint16_t)i;
        choice->candidates[choice->count++] = (struct balance_candidate){
            .hash = server->hash,
            .id = server->id % PREFIX_ID_MAX,
            .weight = fleet_weight(server, now_us),
            .in_flight = fleet_in_flight(server),
            .latency_us = policy == BALANCE_LATENCY ? fleet_latency_us(server, now_us) : 0,
            .turn = &option->turn,
        };
    }
}

static uint32_t find_warm(struct pool *pool, const struct pool_option *option, const struct pool_hint *hint,
                          struct prefix *prefix, size_t *known, uint64_t now_us)
{
    prefix_hash(prefix, hint->prompt, balance_hash(option->model.base, option->model.len, 2));
    uint32_t warm = prefix_find(fleet_prefixes(pool->fleet), prefix, (uint32_t)(now_us / 1000000), known);
    return warm == PREFIX_NOBODY ? BALANCE_NOBODY : warm;
}

/* Chooses among the candidates and takes a place. False if all of them have become full meanwhile. */
static bool choose_by_policy(struct pool *pool, struct pool_walk *walk, struct choice *choice,
                             const struct pool_hint *hint, struct pool_lease *lease, uint64_t now_us)
{
    enum balance_policy policy = fleet_settings(pool->fleet)->policy;
    struct balance_request request = {
        .policy = policy, .key = hint->key, .has_key = hint->has_key, .warm = BALANCE_NOBODY};
    struct prefix prefix = {.count = 0};
    size_t known = 0;
    if (policy == BALANCE_PREFIX && hint->prompt.len != 0)
        request.warm = find_warm(pool, &walk->_route->options[choice->at[0]], hint, &prefix, &known, now_us);
    else if (policy == BALANCE_POWER_OF_TWO)
        request.random = pool_random(pool);
    while (choice->count != 0) {
        size_t chosen = balance_choose(&request, choice->candidates, choice->count), i = choice->at[chosen];
        if (fleet_take(walk->_route->options[i].server)) {
            if (prefix.count != 0)
                prefix_remember(fleet_prefixes(pool->fleet), &prefix, choice->candidates[chosen].id,
                                request.warm == choice->candidates[chosen].id ? known : 0,
                                (uint32_t)(now_us / 1000000));
            choose(pool, walk, i, lease, false, now_us);
            return true;
        }
        choice->count--;
        choice->at[chosen] = choice->at[choice->count];
        choice->candidates[chosen] = choice->candidates[choice->count];
    }
    return false;
}

/* Where nobody may be chosen: whoever is back first. An ejected server costs at most a failure more; one that asked to
 * be left alone is asked only if the client would get nothing else. */
static enum pool_result choose_closed(struct pool *pool, struct pool_walk *walk, struct pool_lease *lease,
                                      uint64_t now_us)
{
    size_t best = SIZE_MAX;
    uint64_t best_until = UINT64_MAX;
    for (size_t i = 0; i < walk->_route->count; i++) {
        const struct fleet_server *server = walk->_route->options[i].server;
        enum fleet_standing standing = fleet_standing(server, now_us);
        uint64_t until;
        if (was_tried(walk, i) || standing == FLEET_LEAVING || standing == FLEET_OPEN || fleet_is_full(server))
            continue;
        if (walk->_begun && strcmp(fleet_state(server, now_us, &until), "paused") == 0)
            continue;
        until = atomic_load_explicit(&server->_closed_until_us, memory_order_relaxed);
        if (until < best_until) {
            best = i;
            best_until = until;
        }
    }
    if (best == SIZE_MAX || !fleet_take(walk->_route->options[best].server))
        return POOL_NONE;
    return choose(pool, walk, best, lease, false, now_us);
}

/* Tries an ejected or failing one. False if another request does so already. */
static bool choose_trial(struct pool *pool, struct pool_walk *walk, size_t i, struct pool_lease *lease, uint64_t now_us)
{
    struct fleet_server *server = walk->_route->options[i].server;
    bool ejected = fleet_standing(server, now_us) == FLEET_TRIAL;
    if (!(ejected ? fleet_begin_trial(server, now_us) : fleet_begin_try(server, now_us)))
        return false;
    if (fleet_take(server)) {
        choose(pool, walk, i, lease, ejected, now_us);
        return true;
    }
    if (ejected)
        fleet_trial_void(server, now_us);
    return false;
}

/* Step by step: a trial that is due, else whom the policy chooses. */
static bool choose_open(struct pool *pool, struct pool_walk *walk, struct choice *choice, const struct pool_hint *hint,
                        struct pool_lease *lease, uint64_t now_us)
{
    struct pool_route *route = walk->_route;
    for (size_t from = 0, to; from < route->count; from = to) {
        for (to = from + 1; to < route->count && route->options[to].step == route->options[from].step; to++)
            ;
        gather(walk, from, to, fleet_settings(pool->fleet)->policy, choice, now_us);
        if (choice->trial != SIZE_MAX && choose_trial(pool, walk, choice->trial, lease, now_us))
            return true;
        if (choice->count == 0)
            continue;
        if (choose_by_policy(pool, walk, choice, hint, lease, now_us))
            return true;
        choice->full = true;
    }
    return false;
}

enum pool_result pool_walk_next(struct pool *pool, struct pool_walk *walk, const struct pool_hint *hint,
                                struct pool_lease *lease, uint64_t now_us)
{
    struct choice choice;
    choice.full = choice.avoided = choice.anything = false;
    if (walk->_route == NULL)
        return POOL_UNKNOWN;
    if (choose_open(pool, walk, &choice, hint, lease, now_us))
        return POOL_CHOSEN;
    choice.anything = true;
    if (choice.avoided && choose_open(pool, walk, &choice, hint, lease, now_us))
        return POOL_CHOSEN;
    return choice.full ? POOL_FULL : choose_closed(pool, walk, lease, now_us);
}

bool pool_walk_wait(struct pool *pool, struct pool_walk *walk, struct fleet_waiter *waiter, enum queue_class class,
                    uint64_t key, uint64_t now_us)
{
    struct fleet_server *servers[POOL_OPTIONS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < walk->_route->count; i++)
        if (!was_tried(walk, i))
            servers[count++] = walk->_route->options[i].server;
    return fleet_wait(pool->fleet, waiter, &pool->line, servers, count, class, key, now_us);
}

void pool_stop_waiting(struct pool *pool, struct fleet_waiter *waiter)
{
    fleet_stop_waiting(pool->fleet, waiter);
}

bool pool_walk_granted(struct pool *pool, struct pool_walk *walk, struct fleet_waiter *waiter, struct pool_lease *lease,
                       uint64_t now_us)
{
    struct fleet_server *server = waiter->granted;
    waiter->granted = NULL;
    bool found = false;
    for (size_t i = 0; i < walk->_route->count && !found; i++) {
        if (was_tried(walk, i) || walk->_route->options[i].server != server)
            continue;
        choose(pool, walk, i, lease, false, now_us);
        found = true;
    }
    if (!found)
        fleet_give_back(server);
    fleet_server_release(server);
    return found;
}

void pool_deliver(struct pool *pool)
{
    fleet_deliver(pool->fleet, &pool->line);
}

/* ---- leases ---- */

struct upstream *pool_lease_upstream(const struct pool_lease *lease)
{
    return lease->_member->upstream;
}

const char *pool_lease_name(const struct pool_lease *lease)
{
    return lease->_member->server->settings->name;
}

struct span pool_lease_model(const struct pool_lease *lease)
{
    return lease->_option->upstream_model;
}

void **pool_lease_tag(const struct pool_lease *lease, const char **pattern)
{
    *pattern = lease->_option->pattern;
    return &lease->_option->tag;
}

void pool_lease_answered(struct pool_lease *lease, bool streamed, uint64_t now_us)
{
    fleet_answered(lease->_member->server, streamed ? now_us - lease->begun_us : 0, now_us);
    lease->_trial = false;
}

void pool_lease_failed(struct pool_lease *lease, enum health_failure failure, const char *problem, uint64_t now_us)
{
    struct fleet_server *others[POOL_OPTIONS_MAX];
    for (size_t i = 0; i < lease->_route->count; i++)
        others[i] = lease->_route->options[i].server;
    fleet_failed(lease->_option->server, failure, others, lease->_route->count, problem, now_us);
    lease->_trial = false;
}

void pool_lease_finished(struct pool_lease *lease)
{
    fleet_finished(lease->_member->server);
}

void pool_lease_pause(struct pool_lease *lease, uint64_t us, uint64_t now_us)
{
    fleet_pause(lease->_member->server, us, now_us);
}

void pool_lease_end(struct pool_lease *lease)
{
    struct pool_member *member = lease->_member;
    if (member == NULL)
        return;
    if (lease->_trial)
        fleet_trial_void(member->server, clock_us());
    fleet_give_back(member->server);
    struct pool_route *route = lease->_route;
    struct pool *pool = lease->_pool;
    memset(lease, 0, sizeof(*lease));
    route_release(route);
    member_drop(member);
    pool_release(pool);
}

/* ---- all of them ---- */

struct model_names *pool_member_names(const struct pool_member *member)
{
    return member->names;
}

size_t pool_count(struct pool *pool)
{
    follow_if_changed(pool);
    return pool->count;
}

struct pool_member *pool_member_hold(struct pool *pool, size_t i)
{
    if (i >= pool->count)
        return NULL;
    pool->members[i]->users++;
    return pool->members[i];
}

void pool_member_release(struct pool_member *member)
{
    member_drop(member);
}

struct upstream *pool_member_upstream(const struct pool_member *member)
{
    return member->upstream;
}

struct fleet_server *pool_member_server(const struct pool_member *member)
{
    return member->server;
}
