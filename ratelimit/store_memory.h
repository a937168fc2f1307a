/* The bytes of the memory store's shards, out of one mapping. It begins with the shards' indices, each of a fixed size.
 * Pages follow, one after the other, whichever shard asks: what is in use lies close together. The mapping is made of
 * huge pages where the system has them, since a decision looks at a dozen places far apart, and finding out where each
 * lies in memory would cost as much as fetching it. Only two megabytes, what is left of the indices and the first
 * pages, are made of the system's small pages, so that a small store stays small.
 *
 *   mapping:  indices ... [ page ][ page ] ... [ page ] ...        a shard keeps the pages that it has taken
 *             huge pages | small     | huge pages ...
 *
 * Threads: those of struct store_memory belong to who holds the shard's lock; taking pages from the mapping is atomic.
 */
#ifndef WEIR_RATELIMIT_STORE_MEMORY_H
#define WEIR_RATELIMIT_STORE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_PAGE_BYTES 4096

/* The mapping. */
struct store_pages {
    char *_base;
    size_t _size; /* bytes mapped */
    size_t _index_used;
    atomic_size_t _used;
};

/* Room for shards that together have at most `max_bytes`, `index_bytes` of them for their indices. */
void store_pages_init(struct store_pages *pages, size_t max_bytes, size_t index_bytes);
void store_pages_dispose(struct store_pages *pages);

/* Bytes for an index, all zero, from the start of a cache line; together as many as were said. Not to be given back.
 * Before there are other threads. */
void *store_pages_take_index(struct store_pages *pages, size_t bytes);

/* What one shard has of its maximum. */
struct store_memory {
    struct store_pages *_pages;
    size_t max, bytes; /* allocated, never above the maximum: charged, and pages that are in use or idle */
    size_t _idle_bytes;
    struct store_idle *_idle; /* pages that are not in use, but in memory */
    void **_dropped;          /* those whose memory was given back to the system */
    size_t _dropped_count;
};

/* Nothing is in use yet but for what is then charged, and the memory's own. */
void store_memory_init(struct store_memory *memory, struct store_pages *pages, size_t max);
void store_memory_dispose(struct store_memory *memory);

/* Whether `bytes` more may be charged. */
bool store_memory_fits(const struct store_memory *memory, size_t bytes);

/* Counts bytes that were allocated elsewhere, and that fit. */
void store_memory_charge(struct store_memory *memory, size_t bytes);
void store_memory_discharge(struct store_memory *memory, size_t bytes);

/* A page, aligned to its size, of any content; NULL if there is no room for it. */
void *store_memory_take_page(struct store_memory *memory);
void store_memory_return_page(struct store_memory *memory, void *page);

#endif
