/* The one use case, whatever the transport: find a backend for a call, start the exchange, hand its stream to the
 * transport; try the next backend when a connection cannot be made. */
#ifndef WEIR_GATEWAY_COMPLETION_H
#define WEIR_GATEWAY_COMPLETION_H

#include "backends/pool.h"
#include "gateway/call.h"

/* Embedded in the transport's own object, one for each call. Zero-initialise. */
struct completion {
    struct call *call;
    struct exchange *_exchange; /* until its head has come */
    struct pool_walk _walk;
    struct strbuf _model; /* another name for the model, as JSON, for as long as the request is being sent */
};

/* Starts. The answer, or a refusal, comes through call->transport, possibly before this returns. */
void completion_start(struct completion *completion, struct call *call);

/* The call is over: gives up what is still under way before a head, frees what the request needed. The stream, if there
 * was one, must be over or unsubscribed from. */
void completion_end(struct completion *completion);

/* Tells a failure of the backend, before anything was sent, as an error with an honest status. */
void completion_failed(struct call *call, enum stream_failure why, const char *message);

/* The error that a failure is, for bodies and in-stream events. `message` must outlive *error. */
void completion_error(enum stream_failure why, const char *message, struct dialect_error *error);

#endif
