/* Purges that all gateways of a Redis hear of, at a cost that does not depend on how much is stored.
 *
 * Nothing is searched for and nothing deleted. Beside the answers stand epochs: one for everything, one for each API
 * key, each model and each pair of them that was ever purged. An answer carries a digest of the four epochs that
 * applied when its question was looked up, before it was generated; it is valid as long as they are the same. A purge
 * gives one epoch a new, random value: in that moment all answers that depended on the old one are worth nothing, also
 * those that are still being generated, on whichever gateway; Redis forgets them when they expire. An epoch outlives
 * every answer that was stored before it: it stays for 30 days, or twice the ttl of the gateway that was asked, if that
 * is more. (SCAN would take as long as there are keys, in steps between which answers
 * appear, and a set of keys for each model would have to be kept in step with what expires.)
 *
 * Memory levels are not asked about epochs, since a hit there costs no command. The purge is also put on a short list
 * in Redis that each gateway looks at twice a second; what it names is thrown out of the memory level. While a gateway
 * cannot see the list, what it has in memory is bounded by the memory level's ttl.
 *
 * Names stand in keys as digests only. One thread for each struct. */
#ifndef WEIR_CACHE_REDIS_PURGE_H
#define WEIR_CACHE_REDIS_PURGE_H

#include "base/redis_link.h"
#include "cache/memory.h"

#define REDIS_PURGE_EPOCHS 4
#define REDIS_PURGE_KEY_MAX 40
#define REDIS_PURGE_PREFIX_MAX 128 /* of all keys */
#define REDIS_PURGE_ORIGIN_LEN 16

/* What is purged: the answers of this API key, of this model, of both together; of all if both are empty. */
struct redis_purge_target {
    struct span scope_name, model; /* at most REDIS_VALUE_TEXT_MAX bytes each */
};

/* The keys, behind the prefix, of the epochs that answers of this key and model depend on. */
void redis_purge_epoch_keys(const struct redis_purge_target *of, char out[REDIS_PURGE_EPOCHS][REDIS_PURGE_KEY_MAX]);

/* Digests the epochs as MGET gives them. False if the reply is none. */
bool redis_purge_epoch(const redisReply *mget, unsigned char epoch[CACHE_EPOCH_LEN]);

/* Which gateway a purge came from: random digits, the same for all workers of a process. */
struct redis_purge_origin {
    char id[REDIS_PURGE_ORIGIN_LEN + 1];
};

/* Makes a new one. Once, before the workers start. */
void redis_purge_origin_init(struct redis_purge_origin *origin);

/* A purge on its way. */
struct redis_purge {
    /* Redis has it, or not: then `why` says why, or is REDIS_ANSWERED and the server refused the command. */
    void (*on_done)(struct redis_purge *purge, bool purged, enum redis_failure why);
    struct redis_command _command;
};

/* Sends a purge; `ttl_us` is how long answers live. False, and `*why` says so, if it was not sent. */
bool redis_purge_send(struct redis_purge *purge, struct redis_link *link, struct span prefix,
                      const struct redis_purge_origin *origin, const struct redis_purge_target *target, uint64_t ttl_us,
                      enum redis_failure *why);

/* Forgets a purge that is on its way; Redis may carry it out all the same. */
void redis_purge_cancel(struct redis_purge *purge);

/* Takes what the target names out of a memory level; returns the number of answers. */
size_t redis_purge_memory(struct cache_memory *memory, const struct redis_purge_target *target);

/* Watches the list of purges for a process, on one of its threads. */
struct redis_purge_watch;

/* Starts to watch; `prefix` and `origin` must outlive the watch. The origin's own purges are passed over. */
struct redis_purge_watch *redis_purge_watch_create(struct redis_link *link, struct deadlines *deadlines,
                                                   struct cache_memory *memory, struct span prefix,
                                                   const struct redis_purge_origin *origin);
void redis_purge_watch_destroy(struct redis_purge_watch *watch); /* NULL is fine */

#endif
