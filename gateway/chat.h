/* GET /chat: a browser's EventSource asks with a query, a backend gets a chat completions request, and its stream goes
 * back as events delta, done and error (chat_events.h). The request that is made takes the place of the call's body
 * before the dependencies run, so that they see what a backend will: limits by model and by tokens, `validate`, and the
 * cache, whose entries are those of POST /v1/chat/completions with the same body. */
#ifndef WEIR_GATEWAY_CHAT_H
#define WEIR_GATEWAY_CHAT_H

#include "gateway/call.h"

/* What a backend is asked, and what the cache goes by. */
extern const struct call_target chat_target;

/* Puts the request into the call; the next time it does nothing. False if it has answered: an EventSource that comes
 * back, as it does after each ended body, has had its answer and gets 204, which stops it; nothing is counted. A query
 * that is wrong is no answer yet: who asks, and how often, comes first. */
bool chat_prepare(struct call *call);

/* Refuses with 422 and FastAPI's list if the query is wrong. */
bool chat_refused(struct call *call);

/* The route's handler. */
void handle_chat(struct call *call);

/* Hands a stream on, re-framed; anything but a stream as it is. */
void chat_stream(struct call *call, const struct exchange_head *head, struct stream *stream);

/* The call is over: frees what chat_prepare made. */
void chat_end(struct call *call);

#endif
