/* A stored answer: immutable once made (what is found out later is the same for all who find it out), counted, shared
 * by all threads. It holds what a hit needs: the head's few headers, the body in chunks that are replayed without a
 * copy, and what was learnt from the stream when it was new. */
#ifndef WEIR_CACHE_ENTRY_H
#define WEIR_CACHE_ENTRY_H

#include "cache/key.h"
#include "stream/stream.h"
#include <stdatomic.h>

#define CACHE_ETAG_LEN 16
#define CACHE_ETAG_SIZE (2 * CACHE_ETAG_LEN + 3) /* two hexadecimal digits for each, two quotes, NUL */
#define CACHE_EPOCH_LEN 16

/* Which purges an answer has behind it. Taken when its question was looked up, before it was generated: what was purged
 * in the meantime is not brought back by an answer that was on its way. */
struct cache_birth {
    uint64_t purges; /* cache_memory_purges(): of this process */
    bool has_epoch;
    unsigned char epoch[CACHE_EPOCH_LEN]; /* of all processes; see redis_purge.h */
};

/* What is known of an answer that is no stream of events. */
enum cache_verdict {
    CACHE_UNJUDGED,
    CACHE_GOOD,        /* one whole JSON document that tells of no error; every stream of events, whose end was seen */
    CACHE_TELLS_ERROR, /* the document is an error */
    CACHE_NO_DOCUMENT, /* neither events nor one JSON document */
};

/* Most entries are small and never asked for: what is not needed, or can be told from the rest, is not in it. */
struct cache_entry {
    /* What is looked at to find an entry stands in one cache line. */
    struct cache_key key;
    struct cache_entry *_newer, *_older; /* in the store that it is in, under that store's lock; then of those let go */
    uint64_t _leaves_us;                 /* when the store that it is in forgets it */
    atomic_uint _refs;
    uint16_t status, header_count;

    uint32_t chunk_count;
    bool sse : 1, has_usage : 1;
    bool _has_home : 1; /* the last chunk is the one in whose memory the entry is; else it has its own */
    atomic_uchar _verdict;
    atomic_bool _has_etag;
    unsigned char _etag[CACHE_ETAG_LEN];
    const struct dialect *dialect;
    uint64_t bytes, events, prompt_tokens, completion_tokens, cached_tokens; /* of the stream that it was */
    uint32_t _scope_name_len, _model_len;
    uint64_t
        created_us; /* clock_us(): Age counts from here; may lie before the machine's start, as a negative number */
    uint64_t expires_us;
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
    bool judged;      /* it is known to be good */
    struct span rest; /* of the body, behind the chunks; may be empty */
    struct stream_facts facts;
    uint64_t created_us, expires_us;
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

/* What the answer was stored with; spans live as long as the entry. */
const struct cache_header *cache_entry_headers(const struct cache_entry *entry); /* content-type among them */
struct chunk *const *cache_entry_chunks(const struct cache_entry *entry);
struct span cache_entry_scope_name(const struct cache_entry *entry); /* of the question, as the model: for purges */
struct span cache_entry_model(const struct cache_entry *entry);

/* What was learnt from the stream when it was new, but for its times. */
struct stream_facts cache_entry_facts(const struct cache_entry *entry);

/* Whether the answer may be given to others: read through by whoever asks first, as most entries are never asked for.
 * Never CACHE_UNJUDGED. */
enum cache_verdict cache_entry_judge(struct cache_entry *entry);
bool cache_entry_is_judged(const struct cache_entry *entry);

/* Its strong ETag with its quotes (RFC 9110 §8.8.3), in `out`, which is returned; empty for streams. Made by whoever
 * asks first, too. */
const char *cache_entry_etag(struct cache_entry *entry, char out[CACHE_ETAG_SIZE]);

/* A stream of this thread that is over already and holds the entry's body; it does not need the entry. See
 * stream_create_ended for how it is read and let go. */
struct stream *cache_entry_replay(const struct cache_entry *entry);

/* Age in whole seconds (RFC 9111 §5.1). */
uint64_t cache_entry_age(const struct cache_entry *entry, uint64_t now_us);

#endif
