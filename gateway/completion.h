/* The one use case, whatever the transport: find a server for a call, wait for a place on it if need be, start the
 * exchange, hand its stream to the transport; try another server as long as nothing of an answer has gone out.
 *
 *     start ─▶ choose ─▶ attempt ─▶ answer ─▶ transport
 *               ▲  │        │
 *               │  └▶ queue │ failure, 429, 5xx: while attempts, budget and time last
 *               └── back-off┘
 *
 * A request whose connection could not be made has cost nobody anything: the next server is asked at once, and neither
 * attempts nor budget are used up. No server is asked twice. */
#ifndef WEIR_GATEWAY_COMPLETION_H
#define WEIR_GATEWAY_COMPLETION_H

#include "backends/pool.h"
#include "gateway/attempt.h"
#include "gateway/call.h"

/* Embedded in the transport's own object, one for each call. Zero-initialise. */
struct completion {
    struct call *call;
    struct pool_walk _walk;
    struct pool_hint _hint;
    struct attempt *_attempt; /* under way */
    struct attempt *_refused; /* an answer of 429 or 5xx, kept in case no other server gives a better one */
    struct fleet_waiter _waiter;
    uint64_t _queued_us; /* since when it waits; 0: it does not */
    uint64_t _queue_until_us;
    struct deadline _deadline; /* of the wait, or the back-off */
    uint64_t _deadline_us;     /* the client's own; 0: none */
    unsigned _sent;            /* attempts that reached a server */
    bool _choosing;            /* on the stack: a failure is heard of there */
};

/* Starts. The answer, or a refusal, comes through call->transport, possibly before this returns. */
void completion_start(struct completion *completion, struct call *call);

/* The call is over: gives up what is still under way before a head, frees what the request needed. The stream, if there
 * was one, must be over or unsubscribed from. */
void completion_end(struct completion *completion);

/* Whether the answer that is on its way is known to be no stream of events. */
bool completion_is_plain(const struct completion *completion);

/* Tells a failure of the backend, before anything was sent, as an error with an honest status. */
void completion_failed(struct call *call, enum stream_failure why, const char *message);

/* The error that a failure is, for bodies and in-stream events. `message` must outlive *error. */
void completion_error(enum stream_failure why, const char *message, struct dialect_error *error);

/* ---- between the files of this module ---- */

/* What the balancing policy wants to know of the request. */
void completion_hint(struct call *call, struct pool_hint *hint);

/* Whose turn a request takes in the queue: a digest of the key, or of the address without one. */
uint64_t completion_owner(const struct call *call);

/* X-Weir-Timeout as the time by which the answer must be complete, 0 without one. False if it is no number of seconds
 * above 0. */
bool completion_client_deadline(const struct call *call, uint64_t *deadline_us);

/* The timeouts of an exchange: the route's, else the backend's. */
struct backend_timeouts completion_timeouts(const struct call *call, const struct backend_settings *settings);

#endif
