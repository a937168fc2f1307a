/* The response cache as a call meets it: whether it may be used, under which key, and what is told about it. Storing
 * and finding are cache/'s: memory first, which all workers share, then Redis, if there is one, for which the call
 * waits no longer than a command's deadline. */
#ifndef WEIR_GATEWAY_ANSWER_CACHE_H
#define WEIR_GATEWAY_ANSWER_CACHE_H

#include "gateway/call.h"

struct exchange_head;

/* A backend's answer has come to a call that missed: it is stored as it goes by, if it can be. */
void answer_cache_store(struct call *call, const struct exchange_head *head, struct stream *stream);

/* Calls `add` for X-Cache, Age and ETag; values are valid during the call only. */
void answer_cache_headers(const struct call *call, void (*add)(void *ctx, struct span name, struct span value),
                          void *ctx);

/* The call is over: lets go of what it held. */
void answer_cache_end(struct call *call);

#endif
