/* The bytes of the memory store's shards. All pages come out of one mapping, one after the other, whichever shard asks:
 * what is in use lies close together. The mapping's first two megabytes are made of the system's small pages, so that a
 * small store stays small; what comes after them is made of huge pages where the system has them, since a decision
 * looks at a dozen places far apart, and finding out where each lies in memory would cost as much as fetching it.
 *
 *   mapping:  [ page ][ page ] ... | huge pages ...        a shard keeps the pages that it has taken
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
    atomic_size_t _used;
};

/* Room for the pages of shards that together have at most `max_bytes`. */
void store_pages_init(struct store_pages *pages, size_t max_bytes);
void store_pages_dispose(struct store_pages *pages);

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
