/* The memory store of limits and leases, shared by all workers; any thread may call anything but create and destroy.
 * Keys are spread over shards, each behind one short lock; a call locks the shards of all its keys in ascending order,
 * so that what it decides is decided at one moment. No I/O, no clock: `now_us` is an argument, of one clock for all
 * calls (it may be set back, see strategy.h).
 *
 * Memory has a hard maximum. When a shard is full, entries that have expired give way; a limit that is in force never
 * does. Clients for whom there is no room share one state for each limit until there is, so that fresh keys, however
 * many, together get what one client gets. */
#ifndef WEIR_RATELIMIT_STORE_H
#define WEIR_RATELIMIT_STORE_H

#include "ratelimit/key.h"
#include "ratelimit/strategy.h"

#define STORE_ASKS_MAX 32
#define STORE_BYTES_MIN ((size_t)128 * 1024)
#define STORE_BYTES_DEFAULT ((size_t)64 * 1024 * 1024) /* about 900,000 clients' counts */

struct store;

/* A limit that applies to a request. */
struct store_ask {
    struct key key;   /* key_for */
    struct key share; /* key_of_share: the state to use if there is no room for `key` */
    const struct limit *limit;
    enum limit_strategy strategy;
    uint64_t cost;
};

/* What is needed to settle a hit. */
struct store_ticket {
    uint64_t _at;
    bool _shared;
};

struct store_answer {
    bool allowed;                    /* by this limit */
    bool shared;                     /* there was no room: decided on the state that others share */
    struct strategy_numbers numbers; /* after the hit if it was admitted, else as they are without it */
    uint64_t retry_us;               /* if not allowed: when it would be; STRATEGY_NEVER if never */
    struct store_ticket ticket;      /* if the hit was admitted */
};

/* A place taken under a maximum of places. Plain data; zero-initialised means none. */
struct store_lease {
    struct key _key;
    bool _held, _shared;
};

struct store_counts {
    uint64_t entries;
    uint64_t bytes;     /* allocated, never above the maximum */
    uint64_t evictions; /* expired entries that gave way */
    uint64_t overflows; /* limits and leases decided on shared states */
};

/* A store of at most `max_bytes` (at least STORE_BYTES_MIN is taken), with its index; about a tenth of it is reserved
 * at once but not touched before it is used. */
struct store *store_create(size_t max_bytes);
void store_destroy(struct store *store);

/* Decides on all limits of one request, `count` <= STORE_ASKS_MAX: true, and all of them consumed, if each of them
 * allows its cost; else false and nothing is consumed. Limits with equal keys must allow the sum of their costs.
 * `answers[i]` belongs to `asks[i]`. On refusal `*refused` (may be NULL) is the index of the limit that says no for the
 * longest. A limit for which there is neither room nor a shared state left (more limits than the store can hold)
 * refuses, for a second. */
bool store_hit(struct store *store, const struct store_ask *asks, size_t count, uint64_t now_us,
               struct store_answer *answers, size_t *refused);

/* Settles an admitted hit: adds `delta` to what it consumed of the limit. Nothing happens if its window has passed. The
 * hit's cost must have been at least 1, and it is settled once. */
void store_adjust(struct store *store, const struct store_ask *ask, const struct store_ticket *ticket, int64_t delta,
                  uint64_t now_us);

/* Where a limit stands, without consuming anything. */
void store_look(struct store *store, const struct store_ask *ask, uint64_t now_us, struct strategy_numbers *numbers);

/* Takes one of `max` places of `key`, or of `share` if there is no room for the key. False, and no lease, if all are
 * taken. A lease has to be released; it does not expire. */
bool store_lease(struct store *store, const struct key *key, const struct key *share, uint64_t max, uint64_t now_us,
                 struct store_lease *lease);

/* Gives the place back. Releasing twice, or what was never taken, does nothing. */
void store_release(struct store *store, struct store_lease *lease);

/* Adds up the shards' counts, one after the other. */
void store_count(struct store *store, struct store_counts *counts);

#endif
