/* Who is calling. Counted, immutable after it was made; any authenticator may make one, all threads may read it. */
#ifndef WEIR_GATEWAY_IDENTITY_H
#define WEIR_GATEWAY_IDENTITY_H

#include "base/span.h"
#include <stdatomic.h>
#include <stdint.h>

struct config_key;

struct identity {
    atomic_uint _refs;
    char *name;                /* for logs and metrics */
    const char *const *models; /* globs; none: all. Owned by whoever made the identity and alive as long as it. */
    size_t model_count;
    const char *const *routes; /* globs over route paths; none: all */
    size_t route_count;
    int64_t expires;              /* epoch seconds; 0: never */
    const struct config_key *key; /* the configured key that it stands for; NULL: none */
};

/* An identity with one reference, its name copied, everything else empty. */
struct identity *identity_create(const char *name);
struct identity *identity_retain(struct identity *identity);
void identity_release(struct identity *identity); /* NULL is fine */

/* Whether it may use this model, this route. */
bool identity_may_use_model(const struct identity *identity, struct span model);
bool identity_may_use_route(const struct identity *identity, struct span route_path);

#endif
