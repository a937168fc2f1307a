/* A stored answer: immutable once made, counted, shared by all threads. It holds what a hit needs: the head's few
 * headers, the body in chunks that are replayed without a copy, and what was learnt from the stream when it was new. */
#ifndef WEIR_CACHE_ENTRY_H
#define WEIR_CACHE_ENTRY_H

#include "cache/key.h"
#include "stream/stream.h"
#include <stdatomic.h>

#define CACHE_ETAG_SIZE 35 /* two quotes, 32 hexadecimal digits, NUL */
#define CACHE_EPOCH_LEN 16

/* Which purges an answer has behind it. Taken when its question was looked up, before it was generated: what was purged
 * in the meantime is not brought back by an answer that was on its way. */
struct cache_birth {
    uint64_t purges; /* cache_memory_purges(): of this process */
    bool has_epoch;
    unsigned char epoch[CACHE_EPOCH_LEN]; /* of all processes; see redis_purge.h */
};

struct cache_entry {
    /* What is looked at to find an entry stands in one cache line. */
    struct cache_key key;
    struct cache_entry *_next;           /* in the list of those to let go */
    struct cache_entry *_newer, *_older; /* in the store that it is in, under that store's lock */
    uint64_t _leaves_us;                 /* when the store that it is in forgets it */

    atomic_uint _refs;
    atomic_bool _has_etag;
    char _etag[CACHE_ETAG_SIZE];
    int status;
    bool sse;
    const struct dialect *dialect;
    const struct cache_header *headers; /* those worth keeping, content-type among them */
    size_t header_count;
    struct span scope_name, model; /* of the question: for purges */
    struct chunk *const *chunks;
    size_t chunk_count;
    struct chunk *_home;       /* the one in whose memory the entry is; NULL: it has its own */
    struct stream_facts facts; /* bytes, events and usage of the stream that it was */
    uint64_t
        created_us; /* clock_us(): Age counts from here; may lie before the machine's start, as a negative number */
    uint64_t expires_us;
    struct cache_birth birth;
    size_t allocated; /* all the memory that the entry holds */
};

/* What an entry is made of; all of it but the chunks and headers' names is copied. */
struct cache_entry_parts {
    struct cache_key key;
    int status;
    bool sse;
    const struct dialect *dialect;
    const struct cache_header *headers;
    size_t header_count;
    struct span scope_name, model;
    struct chunk **chunks; /* each one's count becomes the entry's */
    size_t chunk_count;
    struct span rest; /* of the body, behind the chunks; may be empty */
    struct stream_facts facts;
    uint64_t created_us, expires_us;
    struct cache_birth birth;
    struct span etag; /* one that is known already; empty: it is made of the body, unless that is a stream */
};

/* The name, for ever, of a header of the answer that an entry keeps; NULL for others. `name` is in lower case. */
const struct span *cache_entry_keeps(struct span name);

/* A new entry with one count, the caller's. Headers that are not worth keeping are left out. The chunks must be of
 * memory that crosses threads. */
struct cache_entry *cache_entry_create(const struct cache_entry_parts *parts);

/* Counts are for any thread. */
void cache_entry_retain(struct cache_entry *entry);
void cache_entry_release(struct cache_entry *entry);

/* Its strong ETag with its quotes (RFC 9110 §8.8.3), for as long as the entry lives; empty for streams. Made by whoever
 * asks first: most entries are never asked for. */
const char *cache_entry_etag(struct cache_entry *entry);

/* A stream of this thread that is over already and holds the entry's body; it does not need the entry. See
 * stream_create_ended for how it is read and let go. */
struct stream *cache_entry_replay(const struct cache_entry *entry);

/* Age in whole seconds (RFC 9111 §5.1). */
uint64_t cache_entry_age(const struct cache_entry *entry, uint64_t now_us);

#endif
