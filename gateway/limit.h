/* Rate limits, token limits and concurrency as a call meets them: which of the configured limits apply, under which
 * keys, what a request costs, and what it turns out to have cost. The counting is ratelimit/'s; its store is shared by
 * all workers. */
#ifndef WEIR_GATEWAY_LIMIT_H
#define WEIR_GATEWAY_LIMIT_H

#include "gateway/call.h"
#include "ratelimit/store.h"

/* The digests of one entry's limits. */
struct limit_keys {
    struct key own[LIMIT_LIST_MAX], share[LIMIT_LIST_MAX]; /* in memory */
    struct key common[LIMIT_LIST_MAX];                     /* in Redis */
    struct key_kind kind;                                  /* of what it counts by, in memory */
};

/* Those of all configured limits: first config->limits, then each key's own. To be freed with free(). */
struct limit_keys *limit_keys_create(const struct config *config, const struct key_secret *secret);

/* Gives a worker that has a link to Redis the counts that are there (worker->limits), and takes them from it: after all
 * of its calls have ended and before the link. On its thread. */
void limit_redis_start(struct worker *worker);
void limit_redis_stop(struct worker *worker);

/* A call's hits and leases; NULL where nothing applied. */
struct call_limits;

/* Settles what was reserved with what the call used (call->record), gives its leases back and frees call->limits. To be
 * called before the last bytes go out, since a client that has them may ask again at once, elsewhere; later calls do
 * nothing. */
void limit_settle(struct call *call);

/* A cache hit was found: gives back what it does not count as. */
void limit_refund_hit(struct call *call);

/* Whether there is something to tell the client. */
bool limit_has_headers(const struct call *call);

#define LIMIT_HEADERS_COUNT 9  /* three of the tightest limit, three for each unit */
#define LIMIT_HEADERS_TEXT 160 /* two units of 16 + 16 + 18 bytes, and a time of at most 20 */

/* If there is: calls `add` for each header that tells the client where it stands (X-RateLimit-*,
 * x-ratelimit-*-requests and -tokens). libh2o has no tokens for their names; their values stand in `text`. */
void limit_headers(const struct call *call, char text[LIMIT_HEADERS_TEXT],
                   void (*add)(void *ctx, struct span name, struct span value), void *ctx);

#define LIMIT_HEADERS_LINES 512 /* nine names and their ends, and what of 160 bytes stands there twice */

/* The same as lines of a head, in `lines`. */
struct span limit_header_lines(const struct call *call, char lines[LIMIT_HEADERS_LINES]);

#endif
