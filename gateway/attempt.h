/* One try at one server for a call: its place there, the exchange, and the answer while it is held back. An answer is
 * held until its first complete event (or first byte), since until then another server may still be tried; an answer
 * that is a failure is held for longer, in case no other server gives a better one.
 *
 *     attempt_start ─▶ on_ready ─▶ attempt_deliver    the transport has the stream
 *          │              └──────▶ (kept by the completion) ─▶ attempt_deliver or attempt_drop
 *          └─────────▶ on_fail
 *
 * Counted: the exchange may live on, with its place, after the completion has let go. One thread. */
#ifndef WEIR_GATEWAY_ATTEMPT_H
#define WEIR_GATEWAY_ATTEMPT_H

#include "backends/pool.h"
#include "gateway/call.h"

#define ATTEMPT_EXTRA_HEADERS 3 /* of a request, besides those of the call */

struct attempt;

struct attempt_callbacks {
    /* The answer may go to the client. Nothing of it has been consumed. `refused`: it is a status that another server
     * might better (429, 5xx). */
    void (*on_ready)(void *ctx, struct attempt *attempt, bool refused);
    /* There is no answer, and `attempt` has been let go of. `sent` as for an exchange. */
    void (*on_fail)(void *ctx, struct attempt *attempt, enum stream_failure why, const char *message, bool sent);
};

/* Starts; takes over the lease. `timeouts` and `deadline_us` as in struct exchange_request. Returns NULL if it failed
 * already: on_fail has been called. */
struct attempt *attempt_start(struct call *call, struct pool_lease *lease, const struct backend_timeouts *timeouts,
                              uint64_t deadline_us, const struct attempt_callbacks *callbacks, void *ctx);

/* Hands a ready answer to the call's transport, and lets go. The call may be over when this returns. */
void attempt_deliver(struct attempt *attempt);

/* Gives up, whatever state it is in; no callback follows. */
void attempt_drop(struct attempt *attempt);

/* Whether a head has come that begins no stream of events. */
bool attempt_is_plain(const struct attempt *attempt);

/* The status of an answer that is ready. */
int attempt_status(const struct attempt *attempt);

/* The backend's name; as long as the attempt. */
const char *attempt_backend(const struct attempt *attempt);

/* ---- the request; attempt_request.c ---- */

/* Whether a header of the client's goes on to a backend; credentials are another question. */
bool attempt_forwards(const struct call *call, struct span name);

/* Fills in everything but the body. `headers` has room for the call's own and ATTEMPT_EXTRA_HEADERS more. */
void attempt_request(struct call *call, struct header *headers, struct exchange_request *request);

/* Puts the backend's own name for the model into the body, and where `ask` the question for its usage, by splicing: the
 * rest stays as the client wrote it. `json` holds the name for as long as the request is being sent. */
void attempt_request_body(struct call *call, struct span name, bool ask, struct strbuf *json,
                          struct exchange_request *request);

#endif
