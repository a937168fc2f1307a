/* The memory store: answers by key, shared by all workers. Keys are spread over shards, each with one lock that is held
 * for a few pointers only; what an operation throws out is freed after the lock. A shard forgets the least recently
 * used when its part of the memory is full, so the whole never holds more than `max_bytes`, counted as allocated
 * (entries, chunks and all; the table's few bytes an entry included).
 *
 * Any thread. No clock is read: `now_us` is the caller's clock_us(). */
#ifndef WEIR_CACHE_MEMORY_H
#define WEIR_CACHE_MEMORY_H

#include "cache/entry.h"

struct cache_memory_settings {
    size_t max_bytes; /* hard maximum */
    size_t max_entry; /* of one entry; 0 or more than a shard's part: that part */
    uint64_t ttl_us;  /* how long an entry is kept, at most; 0: until it expires */
};

/* Added up since the start, but for entries and bytes, which are what is held now. */
struct cache_memory_counts {
    uint64_t entries, bytes;
    uint64_t hits, misses; /* lookups; what turns out not to be good, is missed */
    uint64_t stores;
    uint64_t evictions;   /* thrown out to make room */
    uint64_t expirations; /* found too old */
    uint64_t refusals;    /* not stored: too large */
};

struct cache_memory;

/* An empty store of these sizes. */
struct cache_memory *cache_memory_create(const struct cache_memory_settings *settings);

/* Lets go of everything; nobody may be using the store any more. Entries that were looked up live on. */
void cache_memory_destroy(struct cache_memory *memory);

/* The largest entry that is stored. */
size_t cache_memory_max_entry(const struct cache_memory *memory);

/* Says that an entry with this key is about to be inserted: the processor fetches what that will touch while the caller
 * does something else. */
void cache_memory_prefetch(struct cache_memory *memory, const struct cache_key *key);

/* The entry with this key, counted for the caller, who releases it; NULL if there is none that has not expired and is
 * good (see cache_entry_judge). The entry becomes the most recently used. */
struct cache_entry *cache_memory_lookup(struct cache_memory *memory, const struct cache_key *key, uint64_t now_us);

/* Stores an entry, in place of the one with the same key, if any, which goes only for one that is good; where others
 * have to go for it, some are judged. The caller's count becomes the store's. False if the entry is too large, has
 * expired, was born before a purge
 * (`born`: struct cache_birth's `purges`) or was found not to be good: it was released. An entry may be stored only
 * once. */
bool cache_memory_insert(struct cache_memory *memory, struct cache_entry *entry, uint64_t born, uint64_t now_us);

/* Takes out the entry with this key; false if there was none. */
bool cache_memory_remove(struct cache_memory *memory, const struct cache_key *key);

/* Takes out all entries for which `match` is true (NULL: all) and returns their number. `match` runs under a shard's
 * lock: it must be quick and not use the store. */
size_t cache_memory_purge(struct cache_memory *memory, bool (*match)(void *ctx, const struct cache_entry *entry),
                          void *ctx);

/* How many purges there have been: for the birth of an answer that is about to be made. */
uint64_t cache_memory_purges(const struct cache_memory *memory);

/* A snapshot, shard by shard. */
void cache_memory_counts(struct cache_memory *memory, struct cache_memory_counts *counts);

#endif
