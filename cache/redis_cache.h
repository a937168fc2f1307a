/* The second level of the response cache: answers in Redis, where all gateways of a fleet find them. One for each
 * worker, over that worker's link.
 *
 *      lookup   epochs and head in one round trip ─▶ whole answer, or first piece and a check that all others are there
 *      replay   a stream whose producer fetches pieces ahead, as far as the reader lets it
 *      store    after the answer's end: pieces, then, once all of them stand, the head
 *
 * Nothing here is ever waited for beyond the lookup's deadline, and nothing that fails is an error: the answer is then
 * not there, or not stored, and counted. A server that was late is not asked again for a moment. What a replay cannot
 * read to its end breaks the stream, honestly; to make that unlikely all pieces are known to be there when it begins,
 * live longer than the head, and are asked for again for some seconds if Redis stumbles.
 *
 * Limits: commands of at most REDIS_VALUE_MAX bytes, half a MiB of answers on their way to Redis, `max_writing`
 * bytes of answers that wait for it, `max_loading` bytes of answers that are being put together for memory. What is
 * beyond them is passed by and counted. One thread. */
#ifndef WEIR_CACHE_REDIS_CACHE_H
#define WEIR_CACHE_REDIS_CACHE_H

#include "cache/redis_purge.h"
#include "cache/redis_value.h"

struct redis_cache;
struct redis_lookup;

struct redis_cache_settings {
    struct redis_link *link;
    struct deadlines *deadlines;
    struct cache_memory *memory; /* where hits go */
    struct span prefix;          /* of all keys; at most REDIS_PURGE_PREFIX_MAX bytes; must outlive the store */
    uint64_t timeout_us;         /* of a lookup, all round trips together; 0: 50 ms */
    uint64_t ttl_us;             /* an answer that is older does not do, whatever it was stored with */
    size_t max_writing;          /* 0: 16 MiB */
    size_t max_loading;          /* 0: 32 MiB */
};

/* What happened, added up since the start. */
enum redis_cache_event {
    REDIS_CACHE_HIT,
    REDIS_CACHE_MISS,
    REDIS_CACHE_EXPIRED, /* older than this gateway's ttl */
    REDIS_CACHE_PURGED,  /* there, and purged */
    REDIS_CACHE_CORRUPT, /* there, and not what it should be */
    REDIS_CACHE_FAILED,  /* Redis is down, late, refuses … */
    REDIS_CACHE_WRITTEN,
    REDIS_CACHE_NOT_WRITTEN, /* Redis failed */
    REDIS_CACHE_PASSED_BY,   /* too much waits already, or too large */
    REDIS_CACHE_BROKEN,      /* a replay that broke */
    REDIS_CACHE_EVENTS,
};

/* A store over a link. */
struct redis_cache *redis_cache_create(const struct redis_cache_settings *settings);

/* Changes settings.ttl_us, for the lookups that start from now on and those under way. */
void redis_cache_set_ttl(struct redis_cache *store, uint64_t ttl_us);

/* Breaks off what is under way; the link may then go. Only the counts are left. NULL is fine for both. */
void redis_cache_close(struct redis_cache *store);
void redis_cache_destroy(struct redis_cache *store);

/* A question to Redis; embedded in its owner, zeroed. */
struct redis_lookup {
    /* Once, never from within redis_lookup_start: `entry` is the answer, counted for the callee; NULL: it is not there,
     * or cannot be had. Without `whole` the entry has everything but the body, which redis_lookup_replay streams. */
    void (*on_done)(struct redis_lookup *lookup, struct cache_entry *entry, bool whole);
    struct cache_birth birth; /* for an answer that is now generated; set when on_done is called */
    struct redis_cache *_store;
    struct redis_command _first, _second;
    struct deadline _deadline;
    struct cache_key _key;
    uint64_t _started_us;
    bool _only_epochs;
    struct redis_lookup_pieces *_pieces,
        *_replaying; /* of an answer in pieces: while the first is on its way; in on_done */
};

/* What is asked for. */
struct redis_lookup_question {
    const struct cache_key *key;
    struct redis_purge_target of; /* whose answer it is */
    bool only_epochs;             /* the answer itself is not wanted: on_done tells its birth */
};

/* Asks. False if Redis cannot be asked now: on_done will not be called, `birth` knows of no epoch. */
bool redis_lookup_start(struct redis_lookup *lookup, struct redis_cache *store,
                        const struct redis_lookup_question *question);

/* Forgets a lookup; nothing happens if it is over. */
void redis_lookup_cancel(struct redis_lookup *lookup);

/* From within on_done, for an entry that is not whole: a stream with its body, to which the caller subscribes before it
 * returns from on_done. */
struct stream *redis_lookup_replay(struct redis_lookup *lookup);

/* Stores a good answer, which takes a count of its own. Does nothing for one that was born without an epoch. */
void redis_cache_put(struct redis_cache *store, struct cache_entry *entry, const struct cache_birth *birth);

/* Any thread; approximate while the store's thread runs. */
uint64_t redis_cache_count(const struct redis_cache *store, enum redis_cache_event event);

/* "hit", "miss", …: for metric labels. */
const char *redis_cache_event_name(enum redis_cache_event event);

#endif
