/* GET /v1/realtime: a client's WebSocket carried through to a backend's, message by message (OpenAI's Realtime API, or
 * whatever the two sides speak: weir reads none of it).
 *
 *     client ◀─ ws_session ─▶ [realtime] ◀─ ws_backend ─▶ backend
 *
 * The backend is connected first, chosen by the query's model as for HTTP; only then does the client get its 101, with
 * the subprotocol that the backend chose: until then every failure is an HTTP status. Messages pass in both directions
 * in order, as text or binary as they came, in fragments of at most a few KB whatever the frames were. Whoever does not
 * read stops the other side from being read. A close is carried across with its code and reason.
 *
 * One thread: the worker's. */
#ifndef WEIR_GATEWAY_REALTIME_H
#define WEIR_GATEWAY_REALTIME_H

#include "gateway/call.h"

/* Puts the query's model into the call, for those dependencies that go by it. */
void realtime_prepare(struct call *call);

/* The route's handler. */
void handle_realtime(struct call *call);

#endif
