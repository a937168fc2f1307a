/* What a client says about caching in its request's headers. Pure. */
#ifndef WEIR_CACHE_CONTROL_H
#define WEIR_CACHE_CONTROL_H

#include "base/span.h"
#include <stdint.h>

/* Cache-Control of a request (RFC 9111 §5.2.1). Starts zeroed. */
struct cache_control {
    bool no_cache;       /* do not answer from the cache; what comes may be stored */
    bool no_store;       /* do not store, and do not answer from the cache either */
    bool only_if_cached; /* answer from the cache or with 504 */
    bool has_max_age;
    uint64_t max_age; /* seconds; answers that are older do not do */
};

/* X-Weir-Cache. */
enum cache_switch { CACHE_UNSAID, CACHE_ON, CACHE_OFF };

/* Merges one Cache-Control header's value; call it for each line of that name. Unknown directives are passed over, also
 * those whose quoted values hold what looks like a directive. A max-age that is no number is taken as 0; of several the
 * smallest counts. */
void cache_control_parse(struct cache_control *control, struct span value);

/* Whether an answer of this age may be given. */
bool cache_control_accepts(const struct cache_control *control, uint64_t age_seconds);

/* Reads X-Weir-Cache: `on` or `off`, in any case; anything else is CACHE_UNSAID. */
enum cache_switch cache_switch_parse(struct span value);

/* Whether an If-None-Match header's value names `etag` (with its quotes), by weak comparison, or is `*`
 * (RFC 9110 §13.1.2). What is no entity tag matches nothing. */
bool cache_etag_matches(struct span if_none_match, struct span etag);

#endif
