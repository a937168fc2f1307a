#include "ratelimit/store.h"
#include "ratelimit/store_table.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARDS_MAX 64
#define NO_ROOM_RETRY_US 1000000

struct shard {
    struct table table;
    /* Guards the rest; shards are locked in the order of their index. In a line of its own: other processors write it
     * all the time, and it is fetched for writing while the table's line is read. */
    pthread_mutex_t lock __attribute__((aligned(64)));
    uint64_t overflows;
};

/* The last shard holds the shared states alone: clients' keys cannot fill it. */
struct store {
    struct store_pages pages;
    unsigned shard_count; /* of clients' keys; a power of two */
    struct shard shards[];
};

struct store *store_create(size_t max_bytes)
{
    unsigned count = SHARDS_MAX;
    struct store *store;

    if (max_bytes < STORE_BYTES_MIN)
        max_bytes = STORE_BYTES_MIN;
    while (count > 1 && max_bytes / (count + 1) < 4 * TABLE_BYTES_MIN)
        count /= 2;
    /* Held for a few hundred nanoseconds: spinning for a moment is cheaper than sleeping. */
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    size_t own = sizeof(*store) + (count + 1) * sizeof(struct shard);
    if (posix_memalign((void **)&store, 64, own) != 0)
        abort();
    size_t each = (max_bytes - own) / (count + 1);
    store_pages_init(&store->pages, max_bytes, (count + 1) * table_index_bytes(each));
    store->shard_count = count;
    for (unsigned i = 0; i <= count; i++) {
        struct shard *shard = &store->shards[i];
        pthread_mutex_init(&shard->lock, &attr);
        table_init(&shard->table, &store->pages, each);
        shard->overflows = 0;
    }
    pthread_mutexattr_destroy(&attr);
    return store;
}

void store_destroy(struct store *store)
{
    if (store == NULL)
        return;
    for (unsigned i = 0; i <= store->shard_count; i++) {
        table_dispose(&store->shards[i].table);
        pthread_mutex_destroy(&store->shards[i].lock);
    }
    store_pages_dispose(&store->pages);
    free(store);
}

static unsigned shard_of(const struct store *store, const struct key *key)
{
    return key_place(key) & (store->shard_count - 1);
}

static enum table_kind kind_of(const struct store_ask *ask)
{
    return (enum table_kind)(1 + ask->strategy);
}

static struct shard *lock_shard(struct store *store, unsigned index)
{
    pthread_mutex_lock(&store->shards[index].lock);
    return &store->shards[index];
}

static void unlock_shard(struct shard *shard)
{
    pthread_mutex_unlock(&shard->lock);
}

/* ---- one request's limits ---- */

/* A call under way: the locks it holds and the entry that each of its asks is decided on. */
struct hit {
    struct store *store;
    const struct store_ask *asks;
    size_t count;
    uint64_t now_us;
    uint64_t locked; /* the clients' shards, as bits */
    bool locked_shared;
    struct table_entry *entries[STORE_ASKS_MAX]; /* NULL: no room */
    struct shard *shards[STORE_ASKS_MAX];        /* where the entry is */
};

static void lock_all(struct hit *hit)
{
    struct store *store = hit->store;

    for (size_t i = 0; i < hit->count; i++) {
        unsigned index = shard_of(store, &hit->asks[i].key);
        hit->shards[i] = &store->shards[index];
        hit->locked |= UINT64_C(1) << index;
        __builtin_prefetch(&hit->shards[i]->lock, 1);
        table_prefetch_bucket(&hit->shards[i]->table, &hit->asks[i].key);
    }
    for (size_t i = 0; i < hit->count; i++)
        table_prefetch_entry(&hit->shards[i]->table, &hit->asks[i].key);
    for (uint64_t left = hit->locked; left != 0; left &= left - 1)
        lock_shard(store, (unsigned)__builtin_ctzll(left));
}

static void unlock_all(struct hit *hit)
{
    if (hit->locked_shared)
        unlock_shard(&hit->store->shards[hit->store->shard_count]);
    for (uint64_t left = hit->locked; left != 0; left &= left - 1)
        unlock_shard(&hit->store->shards[__builtin_ctzll(left)]);
}

static struct table_entry *find_or_add(struct table *table, const struct key *key, const struct store_ask *ask,
                                       uint64_t now_us)
{
    struct table_entry *entry = table_find(table, key, kind_of(ask));
    if (entry == NULL) {
        entry = table_add(table, key, kind_of(ask), ask->limit->window_us, now_us);
        if (entry == NULL)
            return NULL;
        entry->fresh = 1;
    }
    entry->pinned = 1;
    return entry;
}

/* Finds or makes the entry of each ask; all of them stay where they are until let_go. */
static void find_all(struct hit *hit)
{
    struct shard *shared = &hit->store->shards[hit->store->shard_count];

    for (size_t i = 0; i < hit->count; i++) {
        const struct store_ask *ask = &hit->asks[i];
        hit->entries[i] = find_or_add(&hit->shards[i]->table, &ask->key, ask, hit->now_us);
        if (hit->entries[i] != NULL) {
            /* Fetched while the next entries are found. */
            if (ask->strategy == LIMIT_MOVING_WINDOW)
                strategy_prefetch(&hit->entries[i]->state, ask->limit, hit->now_us);
            continue;
        }
        if (!hit->locked_shared)
            lock_shard(hit->store, hit->store->shard_count);
        hit->locked_shared = true;
        hit->shards[i] = shared;
        hit->entries[i] = find_or_add(&shared->table, &ask->share, ask, hit->now_us);
        shared->overflows++;
    }
}

/* Unpins the entries; those that were made for a hit that consumed nothing go. */
static void let_go(struct hit *hit, bool admitted)
{
    for (size_t i = 0; i < hit->count; i++) {
        struct table_entry *entry = hit->entries[i];
        if (entry == NULL || entry->kind == TABLE_FREE) /* removed: two asks had the same */
            continue;
        entry->pinned = 0;
        if (entry->fresh && (!admitted || strategy_unused(hit->asks[i].strategy, &entry->state)))
            table_remove(&hit->shards[i]->table, entry);
        entry->fresh = 0;
    }
}

/* The costs of the asks before the i-th that are decided on the same entry. */
static uint64_t cost_before(const struct hit *hit, size_t i)
{
    uint64_t sum = 0;
    for (size_t k = 0; k < i; k++)
        if (hit->entries[k] == hit->entries[i] && __builtin_add_overflow(sum, hit->asks[k].cost, &sum))
            return UINT64_MAX;
    return sum;
}

static bool test_all(struct hit *hit, struct store_answer *answers, size_t *refused)
{
    bool admitted = true;

    for (size_t i = 0; i < hit->count; i++) {
        const struct store_ask *ask = &hit->asks[i];
        struct table_entry *entry = hit->entries[i];
        struct store_answer *answer = &answers[i];
        uint64_t cost;

        *answer = (struct store_answer){.shared = hit->shards[i] == &hit->store->shards[hit->store->shard_count]};
        if (entry == NULL)
            answer->retry_us = (hit->now_us < STRATEGY_NOW_MAX ? hit->now_us : STRATEGY_NOW_MAX) + NO_ROOM_RETRY_US;
        else if (__builtin_add_overflow(ask->cost, cost_before(hit, i), &cost))
            answer->retry_us = STRATEGY_NEVER;
        else
            answer->allowed =
                strategy_allows(ask->strategy, &entry->state, ask->limit, hit->now_us, cost, &answer->retry_us);
        if (!answer->allowed && (admitted || answer->retry_us > answers[*refused].retry_us))
            *refused = i;
        admitted = admitted && answer->allowed;
    }
    return admitted;
}

static void commit_all(struct hit *hit, struct store_answer *answers)
{
    for (size_t i = 0; i < hit->count; i++) {
        const struct store_ask *ask = &hit->asks[i];
        struct table_entry *entry = hit->entries[i];
        if (ask->strategy == LIMIT_MOVING_WINDOW)
            table_grow_log(&hit->shards[i]->table, entry, ask->limit, ask->cost, hit->now_us);
        answers[i].ticket._at = strategy_commit(ask->strategy, &entry->state, ask->limit, hit->now_us, ask->cost);
        answers[i].ticket._shared = answers[i].shared;
    }
}

bool store_hit(struct store *store, const struct store_ask *asks, size_t count, uint64_t now_us,
               struct store_answer *answers, size_t *refused)
{
    struct hit hit;
    size_t longest = 0;

    assert(count <= STORE_ASKS_MAX);
    hit.store = store;
    hit.asks = asks;
    hit.count = count;
    hit.now_us = now_us;
    hit.locked = 0;
    hit.locked_shared = false;
    lock_all(&hit);
    find_all(&hit);
    bool admitted = test_all(&hit, answers, &longest);
    if (admitted)
        commit_all(&hit, answers);
    /* Only now, since two asks may stand on one entry. */
    for (size_t i = 0; i < count; i++) {
        if (hit.entries[i] != NULL)
            strategy_look(asks[i].strategy, &hit.entries[i]->state, asks[i].limit, now_us, &answers[i].numbers);
        else
            answers[i].numbers = (struct strategy_numbers){0, answers[i].retry_us, answers[i].retry_us};
    }
    let_go(&hit, admitted);
    unlock_all(&hit);
    if (refused != NULL && !admitted)
        *refused = longest;
    return admitted;
}

void store_adjust(struct store *store, const struct store_ask *ask, const struct store_ticket *ticket, int64_t delta,
                  uint64_t now_us)
{
    const struct key *key = ticket->_shared ? &ask->share : &ask->key;
    struct shard *shard = lock_shard(store, ticket->_shared ? store->shard_count : shard_of(store, key));
    struct table_entry *entry = table_find(&shard->table, key, kind_of(ask));

    if (entry != NULL) {
        if (ask->strategy == LIMIT_MOVING_WINDOW && delta > 0) {
            entry->pinned = 1;
            table_grow_log(&shard->table, entry, ask->limit, (uint64_t)delta, now_us);
            entry->pinned = 0;
        }
        strategy_adjust(ask->strategy, &entry->state, ask->limit, now_us, ticket->_at, delta);
    }
    unlock_shard(shard);
}

void store_look(struct store *store, const struct store_ask *ask, uint64_t now_us, struct strategy_numbers *numbers)
{
    struct shard *shard = lock_shard(store, shard_of(store, &ask->key));
    struct table_entry *entry = table_find(&shard->table, &ask->key, kind_of(ask));

    *numbers = (struct strategy_numbers){ask->limit->amount, now_us, now_us};
    if (entry != NULL)
        strategy_look(ask->strategy, &entry->state, ask->limit, now_us, numbers);
    unlock_shard(shard);
}

/* ---- leases ---- */

static struct table_entry *find_or_add_leases(struct shard *shard, const struct key *key, uint64_t now_us)
{
    struct table_entry *entry = table_find(&shard->table, key, TABLE_LEASES);
    return entry != NULL ? entry : table_add(&shard->table, key, TABLE_LEASES, 0, now_us);
}

bool store_lease(struct store *store, const struct key *key, const struct key *share, uint64_t max, uint64_t now_us,
                 struct store_lease *lease)
{
    *lease = (struct store_lease){._held = false};
    if (max == 0)
        return false;
    struct shard *shard = lock_shard(store, shard_of(store, key)), *own = shard;
    struct table_entry *entry = find_or_add_leases(shard, key, now_us);
    bool shared = entry == NULL;
    if (shared) {
        shard = lock_shard(store, store->shard_count);
        key = share;
        entry = find_or_add_leases(shard, key, now_us);
        shard->overflows++;
    }
    if (entry != NULL && entry->state._count < max) {
        entry->state._count++;
        *lease = (struct store_lease){._key = *key, ._held = true, ._shared = shared};
    }
    if (shared)
        unlock_shard(shard);
    unlock_shard(own);
    return lease->_held;
}

void store_release(struct store *store, struct store_lease *lease)
{
    if (!lease->_held)
        return;
    lease->_held = false;
    struct shard *shard = lock_shard(store, lease->_shared ? store->shard_count : shard_of(store, &lease->_key));
    struct table_entry *entry = table_find(&shard->table, &lease->_key, TABLE_LEASES);
    /* It is there: an entry with holders is never swept. */
    assert(entry != NULL && entry->state._count != 0);
    if (--entry->state._count == 0)
        table_remove(&shard->table, entry);
    unlock_shard(shard);
}

/* ---- metrics ---- */

void store_count(struct store *store, struct store_counts *counts)
{
    *counts = (struct store_counts){.bytes = sizeof(*store) + (store->shard_count + 1) * sizeof(struct shard)};
    for (unsigned i = 0; i <= store->shard_count; i++) {
        struct shard *shard = lock_shard(store, i);
        counts->entries += shard->table.entries;
        counts->bytes += shard->table.memory.bytes;
        counts->evictions += shard->table.evictions;
        counts->overflows += shard->overflows;
        unlock_shard(shard);
    }
}
