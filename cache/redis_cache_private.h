/* What redis_cache.c and redis_replay.c share. Internal to cache/redis_*. */
#ifndef WEIR_CACHE_REDIS_CACHE_PRIVATE_H
#define WEIR_CACHE_REDIS_CACHE_PRIVATE_H

#include "cache/redis_cache.h"
#include <stdatomic.h>

#define REDIS_CACHE_KEY_SIZE (REDIS_PURGE_PREFIX_MAX + REDIS_VALUE_KEY_SIZE)

struct redis_cache {
    struct redis_cache_settings settings;
    struct redis_write *first_write, *last_write; /* answers that wait for Redis, in the order of their coming */
    struct redis_put *puts;                       /* values on their way */
    size_t writing;                               /* bytes of all of these answers */
    size_t on_their_way;                          /* of these values */
    struct strbuf value;                          /* scratch */
    struct redis_replay *replays;
    size_t loading;                               /* bytes of answers that replays put together for memory */
    uint64_t skip_until_us;                       /* the server was late: not asked before then */
    _Atomic(uint64_t) counts[REDIS_CACHE_EVENTS]; /* written by the store's thread only */
};

static inline void redis_cache_note(struct redis_cache *store, enum redis_cache_event event)
{
    uint64_t count = atomic_load_explicit(&store->counts[event], memory_order_relaxed);
    atomic_store_explicit(&store->counts[event], count + 1, memory_order_relaxed);
}

/* Prefix and key together, in `room`. */
struct span redis_cache_head_key(const struct redis_cache *store, const struct cache_key *key,
                                 char room[REDIS_CACHE_KEY_SIZE]);
struct span redis_cache_piece_key(const struct redis_cache *store, const struct redis_value_head *head, size_t index,
                                  char room[REDIS_CACHE_KEY_SIZE]);

/* GETRANGE of at most REDIS_VALUE_MAX bytes: whatever stands there, no more is read. */
bool redis_cache_get(struct redis_cache *store, struct redis_command *command, struct span key);

/* A replay of an answer in pieces, the first of which is at hand: redis_replay_begin gives it to the stream once it has
 * its reader. `entry` is the head's. */
struct redis_replay *redis_replay_create(struct redis_cache *store, const struct redis_value_head *head,
                                         const struct cache_entry *entry, const struct cache_birth *birth);
struct stream *redis_replay_stream(struct redis_replay *replay);
void redis_replay_begin(struct redis_replay *replay, struct span first);

/* Forgets what waits for Redis. */
void redis_write_end_all(struct redis_cache *store);

/* Breaks the stream of every replay of the store. */
void redis_replay_end_all(struct redis_cache *store);

#endif
