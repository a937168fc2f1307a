#include "backends/fleet.h"
#include "backends/fleet_own.h"
#include <stdlib.h>

#define PREFIX_ENTRIES 65536
#define ONE_MORE ((UINT64_C(1) << 32) + 1) /* in flight and given */
#define GIVEN (UINT64_C(1) << 32)

void fleet_settings_init(struct fleet_settings *settings)
{
    *settings = (struct fleet_settings){.policy = BALANCE_ROUND_ROBIN,
                                        .queue_max = FLEET_QUEUE_MAX_DEFAULT,
                                        .queue_timeout_us = UINT64_C(30000000),
                                        .resolve_us = UINT64_C(30000000)};
    retry_settings_init(&settings->retries);
}

/* ---- the set ---- */

static struct fleet_set *set_create(size_t count)
{
    struct fleet_set *set = malloc(sizeof(*set) + count * sizeof(set->servers[0]));
    if (set == NULL)
        abort();
    atomic_init(&set->_refs, 1);
    set->count = 0;
    return set;
}

void fleet_set_release(struct fleet_set *set)
{
    if (atomic_fetch_sub_explicit(&set->_refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < set->count; i++)
        fleet_server_release(set->servers[i]);
    free(set);
}

struct fleet_set *fleet_set_get(struct fleet *fleet)
{
    pthread_mutex_lock(&fleet->lock);
    struct fleet_set *set = fleet->set;
    atomic_fetch_add_explicit(&set->_refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&fleet->lock);
    return set;
}

/* With the lock held. Returns the old set, to be released without it. */
static struct fleet_set *set_replace(struct fleet *fleet, struct fleet_set *set)
{
    struct fleet_set *old = fleet->set;
    fleet->set = set;
    atomic_fetch_add_explicit(&fleet->version, 1, memory_order_release);
    return old;
}

uint64_t fleet_version(const struct fleet *fleet)
{
    return atomic_load_explicit(&fleet->version, memory_order_acquire);
}

struct fleet *fleet_create(const struct fleet_settings *settings)
{
    struct fleet *fleet = calloc(1, sizeof(*fleet));
    if (fleet == NULL)
        abort();
    fleet->settings = settings;
    fleet->set = set_create(0);
    atomic_init(&fleet->version, 1);
    pthread_mutex_init(&fleet->lock, NULL);
    queue_init(&fleet->queue, settings->queue_max);
    if (settings->policy == BALANCE_PREFIX)
        fleet->prefixes = prefix_table_create(PREFIX_ENTRIES);
    return fleet;
}

void fleet_destroy(struct fleet *fleet)
{
    fleet_set_release(fleet->set);
    fleet_forget(fleet);
    if (fleet->prefixes != NULL)
        prefix_table_destroy(fleet->prefixes);
    pthread_mutex_destroy(&fleet->lock);
    free(fleet);
}

const struct fleet_settings *fleet_settings(const struct fleet *fleet)
{
    return fleet->settings;
}

struct prefix_table *fleet_prefixes(const struct fleet *fleet)
{
    return fleet->prefixes;
}

struct fleet_server *fleet_server_retain(struct fleet_server *server)
{
    atomic_fetch_add_explicit(&server->_refs, 1, memory_order_relaxed);
    return server;
}

void fleet_server_release(struct fleet_server *server)
{
    if (atomic_fetch_sub_explicit(&server->_refs, 1, memory_order_acq_rel) != 1)
        return;
    if (server->_release != NULL)
        server->_release(server->_owner);
    if (server->_names != NULL)
        model_names_release(server->_names);
    free((char *)server->name);
    free(server);
}

static struct fleet_server *server_create(struct fleet *fleet, const struct backend_settings *settings,
                                          const char *name, void (*release)(void *owner), void *owner)
{
    struct fleet_server *server = aligned_alloc(_Alignof(struct fleet_server), sizeof(*server));
    if (server == NULL)
        abort();
    memset(server, 0, sizeof(*server));
    struct span text = span_of(name != NULL ? name : settings->name);
    server->settings = settings;
    server->weight = settings->weight;
    server->max_concurrent = settings->max_concurrent;
    server->name = span_dup(text);
    server->hash = balance_hash(text.base, text.len, 0);
    server->fleet = fleet;
    atomic_init(&server->_refs, 1);
    server->_release = release;
    server->_owner = owner;
    health_init(&server->_health);
    return server;
}

/* Takes over the server's count; false, and still the caller's, if there are too many. */
static bool join(struct fleet *fleet, struct fleet_server *server)
{
    pthread_mutex_lock(&fleet->lock);
    struct fleet_set *old = fleet->set;
    if (old->count >= FLEET_SERVERS_MAX) {
        pthread_mutex_unlock(&fleet->lock);
        return false;
    }
    struct fleet_set *set = set_create(old->count + 1);
    server->id = fleet->next_id++;
    for (size_t i = 0; i < old->count; i++)
        set->servers[set->count++] = fleet_server_retain(old->servers[i]);
    set->servers[set->count++] = server;
    set_replace(fleet, set);
    pthread_mutex_unlock(&fleet->lock);
    fleet_set_release(old);
    return true;
}

struct fleet_server *fleet_add(struct fleet *fleet, const struct backend_settings *settings, const char *name,
                               void (*release)(void *owner), void *owner)
{
    struct fleet_server *server = server_create(fleet, settings, name, release, owner);
    if (join(fleet, server))
        return server;
    server->_release = NULL;
    fleet_server_release(server);
    return NULL;
}

static void release_root(void *owner)
{
    fleet_server_release(owner);
}

struct fleet_server *fleet_add_place(struct fleet *fleet, struct fleet_server *root, const char *name,
                                     const struct sockaddr *address, socklen_t len, bool drained)
{
    struct fleet_server *server = server_create(fleet, root->settings, name, release_root, fleet_server_retain(root));
    server->root = root;
    if (len != 0)
        memcpy(&server->address, address, len);
    server->address_len = len;
    atomic_init(&server->_draining, drained);
    server->_names = fleet_names(root, NULL, 0);
    fleet_recall(server);
    if (join(fleet, server))
        return server;
    fleet_server_release(server);
    return NULL;
}

void *fleet_server_owner(const struct fleet_server *server)
{
    return server->root != NULL ? server->root->_owner : server->_owner;
}

bool fleet_server_is_leaving(const struct fleet_server *server)
{
    const struct fleet_server *root = server->root != NULL ? server->root : server;
    return atomic_load_explicit(&server->leaving, memory_order_relaxed) ||
           atomic_load_explicit(&root->retired, memory_order_relaxed);
}

static void set_draining(struct fleet *fleet, struct fleet_server *server, bool draining)
{
    pthread_mutex_lock(&fleet->lock);
    atomic_store_explicit(&server->_draining, draining, memory_order_relaxed);
    /* One that stands for all addresses of its name, before they are looked up or while there is only one. */
    if (server->address_len == 0)
        fleet_remember_draining(fleet, server->root != NULL ? server->root->id : server->id, draining);
    pthread_mutex_unlock(&fleet->lock);
}

void fleet_drain(struct fleet *fleet, struct fleet_server *server)
{
    set_draining(fleet, server, true);
}

void fleet_undrain(struct fleet *fleet, struct fleet_server *server)
{
    set_draining(fleet, server, false);
}

void fleet_leave(struct fleet_server *server)
{
    atomic_store_explicit(&server->leaving, true, memory_order_release); /* else it might look drained by order */
    atomic_store_explicit(&server->_draining, true, memory_order_relaxed);
}

void fleet_remove(struct fleet *fleet, struct fleet_server *server)
{
    pthread_mutex_lock(&fleet->lock);
    struct fleet_set *old = fleet->set, *set = set_create(old->count);
    for (size_t i = 0; i < old->count; i++)
        if (old->servers[i] != server)
            set->servers[set->count++] = fleet_server_retain(old->servers[i]);
    atomic_store_explicit(&server->_draining, true, memory_order_relaxed); /* for those that look at an old set */
    set_replace(fleet, set);
    pthread_mutex_unlock(&fleet->lock);
    fleet_set_release(old);
}

/* ---- what a choice sees ---- */

enum fleet_standing fleet_standing_closed(const struct fleet_server *server, uint64_t until_us, uint64_t now_us)
{
    if (now_us < until_us)
        return FLEET_CLOSED;
    unsigned state = atomic_load_explicit(&server->_state, memory_order_relaxed);
    return state == HEALTH_EJECTED ? FLEET_TRIAL : state == HEALTH_TRIAL ? FLEET_CLOSED : FLEET_OPEN;
}

uint32_t fleet_weight_slow(struct fleet_server *server, uint64_t since_us, uint64_t now_us)
{
    unsigned share = health_share(since_us, server->settings->health.slow_start_us, now_us);
    if (share == HEALTH_FULL)
        fleet_settle(server, now_us);
    return server->weight * share;
}

uint64_t fleet_latency_us(const struct fleet_server *server, uint64_t now_us)
{
    return balance_latency_now(atomic_load_explicit(&server->_latency_us, memory_order_relaxed),
                               atomic_load_explicit(&server->_latency_since_us, memory_order_relaxed), now_us);
}

/* ---- places ---- */

bool fleet_take(struct fleet_server *server)
{
    uint32_t max = server->max_concurrent;
    if (max == 0) {
        atomic_fetch_add_explicit(&server->_load, ONE_MORE, memory_order_relaxed);
        return true;
    }
    /* Sequentially consistent, as is giving back: see fleet_give_back. */
    unsigned long long load = atomic_load(&server->_load);
    do {
        if ((uint32_t)load >= max)
            return false;
    } while (!atomic_compare_exchange_weak(&server->_load, &load, load + ONE_MORE));
    return true;
}

/* A place that one request hands to the next stays taken, so that newcomers cannot get in between. Who begins to wait
 * first counts itself as waiting and then looks for a place; who gives back a place first does so and then looks for
 * somebody who waits: one of them sees the other. */
void fleet_give_back(struct fleet_server *server)
{
    struct fleet *fleet = server->fleet;
    if (server->max_concurrent == 0) {
        atomic_fetch_sub_explicit(&server->_load, 1, memory_order_relaxed);
        return;
    }
    if (atomic_load(&fleet->waiting) != 0 && fleet_hand_over(server))
        return;
    atomic_fetch_sub(&server->_load, 1);
    if (atomic_load(&fleet->waiting) != 0)
        fleet_offer(server);
}

void fleet_count_given(struct fleet_server *server)
{
    atomic_fetch_add_explicit(&server->_load, GIVEN, memory_order_relaxed);
}
