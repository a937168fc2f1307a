/* The dependencies of a route: small steps that every call takes in the order that its route says, before the handler.
 * They see the transport-neutral call alone, so that they are the same for every transport. */
#ifndef WEIR_GATEWAY_DEPEND_H
#define WEIR_GATEWAY_DEPEND_H

#include "gateway/call.h"

enum depend_result {
    DEPEND_NEXT,     /* go on */
    DEPEND_WAIT,     /* not yet: the step calls call_run again when it knows */
    DEPEND_REFUSED,  /* it has called call_refuse */
    DEPEND_ANSWERED, /* it has answered, as a cache does */
};

typedef enum depend_result (*depend_step)(struct call *call);

/* Who is calling: Authorization: Bearer, X-API-Key or api-key, against the configured keys. 401 without one or with a
 * wrong one, 403 where the key may not use this route. Without configured keys everybody passes. */
enum depend_result depend_api_key(struct call *call);

/* The credential that a request brings, where clients are likely to put it; empty if there is none. */
struct span depend_credential(const struct call *call);

/* A key is missing or wrong, which `detail` says: notes it, and refuses with 429 and returns true if its address has
 * had many of them. A good key is never held up. */
bool depend_key_failed(struct call *call, struct span detail);

/* Whether the body is what the route's descriptor says: 415 for another content type, 400 for what is not JSON or not
 * valid. */
enum depend_result depend_validate(struct call *call);

/* Rate limits, token limits and max_streams: all that apply, or the one that the route names. 429 where one is
 * exhausted; then nothing of any limit is consumed. */
enum depend_result depend_limit(struct call *call);

/* The response cache: answers a call that was answered before, and has the answer of one that was not stored. */
enum depend_result depend_cache(struct call *call);

#endif
