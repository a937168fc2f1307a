/* Writes a stream into the cache: a passive subscriber that takes every byte as it comes, into blocks of its own, and
 * stores an entry once the stream has ended properly. It never slows the reader, and nothing is generated for its sake:
 * when the client leaves, the stream breaks and nothing is stored.
 *
 * Stored is what ended properly, was not too large, told of no error and, if it is no stream of events, is one JSON
 * document: a body that only the end of its connection delimits may have been cut without a sign. That may be found out
 * later, when somebody asks for it. A stream of events must have had its dialect's terminal event, so those of dialects
 * without one are never stored.
 *
 * The stream's thread. The writer frees itself. */
#ifndef WEIR_CACHE_WRITER_H
#define WEIR_CACHE_WRITER_H

#include "cache/memory.h"

enum cache_outcome {
    CACHE_STORED,
    CACHE_TOO_LARGE,
    CACHE_BROKEN,  /* the stream broke, or its last event is missing */
    CACHE_ERROR,   /* the backend told of an error in a 200 */
    CACHE_UNCLEAR, /* neither events nor one JSON document */
    CACHE_OUTCOMES,
};

struct cache_writer_settings {
    struct cache_memory *memory;
    struct cache_key key;
    uint64_t created_us; /* when the answer was new; 0: at its end */
    uint64_t ttl_us;     /* from then on */
    struct cache_birth birth;
    struct span scope_name, model;      /* copied; see struct cache_entry; never a credential itself */
    int status;                         /* of the answer; only 200 is stored */
    const struct cache_header *headers; /* of the answer; copied */
    size_t header_count;
    /* The answer is whole, good, and about to be put into the memory store. Keeps it with cache_entry_retain. NULL:
     * none but the memory store takes it, and what is no stream is read through only when that asks
     * (cache_entry_judge). */
    void (*on_entry)(void *ctx, struct cache_entry *entry, const struct cache_birth *birth);
    void (*on_done)(void *ctx, enum cache_outcome outcome); /* once, if the writer was started; may be NULL */
    void *ctx;                                              /* must live for as long as the stream is open */
};

/* Starts a writer on a stream whose first byte is still there. False, and nothing happens, if the answer cannot be
 * stored anyway: its status is not 200, it is encoded, or its beginning is gone. Of a stream's subscribers the last to
 * come is the first to hear: start the writer before the reader subscribes, and the reader's bytes go out first. */
bool cache_writer_start(const struct cache_writer_settings *settings, struct stream *stream);

/* "stored", "too_large", …: for logs and metric labels. */
const char *cache_outcome_name(enum cache_outcome outcome);

#endif
