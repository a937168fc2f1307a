/* One shard of the memory store: a hash table of states within a fixed number of bytes. Used by store.c, which locks
 * it; no locks here. An entry keeps its place until it is removed.
 *
 *   buckets: [ 3 ][ 0 ][ 1 ] ...     indices of entries; 0 is the end of a chain
 *   slabs:   [ - 1 2 3 ... 63 ][ 64 ... 127 ] ...     pages of 64 entries; taken as they are needed, then kept
 */
#ifndef WEIR_RATELIMIT_STORE_TABLE_H
#define WEIR_RATELIMIT_STORE_TABLE_H

#include "ratelimit/key.h"
#include "ratelimit/store_logs.h"
#include "ratelimit/strategy.h"

/* What an entry holds: a strategy's state, or a number of leases. */
enum table_kind {
    TABLE_FREE = 0,
    TABLE_FIXED_WINDOW = 1 + LIMIT_FIXED_WINDOW,
    TABLE_MOVING_WINDOW = 1 + LIMIT_MOVING_WINDOW,
    TABLE_SLIDING_WINDOW_COUNTER = 1 + LIMIT_SLIDING_WINDOW_COUNTER,
    TABLE_LEASES,
};

struct table_entry { /* 64 bytes: a cache line */
    struct key key;
    struct strategy_state state; /* TABLE_LEASES: _count is the number of holders */
    uint32_t window_s;           /* the limit's, rounded up: all that the sweep needs to know of it */
    unsigned next : 26;          /* index in the chain, or in the list of free entries */
    unsigned kind : 3;
    unsigned pinned : 1; /* in use by the call under way: not to be swept */
    unsigned fresh : 1;  /* made by the call under way */
};

struct table {
    /* What finding reads, in a cache line that no hit writes, so that all processors keep it. */
    _Atomic uint32_t *_buckets; /* atomic for table_prefetch alone, as are the slabs' addresses */
    struct table_entry *_Atomic *_slabs;
    uint32_t _bucket_mask, _slabs_max;
    /* What changes as entries come and go. */
    uint32_t _free __attribute__((aligned(64))); /* first free entry */
    uint32_t _made, _hand;                       /* entries ever used; where the sweep goes on */
    uint32_t entries;
    uint64_t evictions; /* entries removed because they had expired */
    struct store_memory memory;
    struct store_logs _logs;
};

#define TABLE_BYTES_MIN ((size_t)16 * 1024)

/* What a table of at most `max_bytes` takes of its pages as its index. */
size_t table_index_bytes(size_t max_bytes);

/* An empty table of at most `max_bytes` >= TABLE_BYTES_MIN, all its own memory counted, over pages that outlive it. */
void table_init(struct table *table, struct store_pages *pages, size_t max_bytes);
void table_dispose(struct table *table);

/* Have the processor fetch what table_find will look at: first the bucket, then the entry that it leads to. They need
 * no lock, so that whoever comes to hold it holds it for the shorter. */
void table_prefetch_bucket(const struct table *table, const struct key *key);
void table_prefetch_entry(const struct table *table, const struct key *key);

/* The entry of this key and kind, or NULL. */
struct table_entry *table_find(const struct table *table, const struct key *key, enum table_kind kind);

/* Makes an entry for a key that has none of this kind, moving_window's with a log of the smallest size. Expired entries
 * give way to it, a bounded number of them looked at; NULL if there is no room among the others. */
struct table_entry *table_add(struct table *table, const struct key *key, enum table_kind kind, uint64_t window_us,
                              uint64_t now_us);

/* Gives the log of a moving_window entry, which is pinned, room for another commit of this limit, or for an adjustment,
 * if the bytes allow. */
void table_grow_log(struct table *table, struct table_entry *entry, const struct limit *limit, uint64_t cost,
                    uint64_t now_us);

/* Removes an entry. */
void table_remove(struct table *table, struct table_entry *entry);

#endif
