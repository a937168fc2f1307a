/* Asks Sentinels where the master is: each in turn until one knows, beginning with the one that knew last; its
 * connection is kept for the next question. Internal to base/redis_*; one thread. */
#ifndef WEIR_BASE_REDIS_SENTINEL_H
#define WEIR_BASE_REDIS_SENTINEL_H

#include "base/deadline.h"
#include "base/redis_url.h"
#include <h2o.h>

struct redis_sentinel;

struct redis_sentinel_settings {
    const struct redis_url *url;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    uint64_t timeout_us; /* for each Sentinel, from the start of connecting to its answer */
    void (*on_found)(void *owner, const char *host, uint16_t port);
    void (*on_failed)(void *owner, const char *why); /* none of them knew */
    void *owner;
};

/* One that asks nobody yet. `settings` are copied; what they point to must outlive it. */
struct redis_sentinel *redis_sentinel_create(const struct redis_sentinel_settings *settings);

/* Not from within its callbacks. */
void redis_sentinel_destroy(struct redis_sentinel *sentinel);

/* Asks; one of the callbacks follows, not from within. Nothing happens if a question is under way. */
void redis_sentinel_ask(struct redis_sentinel *sentinel);

/* What the last one said was of no use: the next question goes to the next. */
void redis_sentinel_distrust(struct redis_sentinel *sentinel);

#endif
