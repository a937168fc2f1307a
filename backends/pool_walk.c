/* From the choice of a server to the end of its answer. */
#include "backends/pool_own.h"
#include "base/clock.h"

/* ---- walks ---- */

void pool_walk_start(struct pool *pool, struct pool_walk *walk, struct span model, const char *only)
{
    pool_follow(pool);
    memset(walk, 0, sizeof(*walk));
    walk->_route = pool_route_find(pool, model, only);
}

void pool_walk_end(struct pool *pool, struct pool_walk *walk)
{
    (void)pool;
    if (walk->_route != NULL)
        pool_route_release(walk->_route);
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
    pool_route_release(route);
    pool_member_release(member);
    pool_release(pool);
}
