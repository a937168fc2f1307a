/* What a backend is asked when a client opens /v1/realtime: the client's query with the backend's name for the model in
 * it, its end-to-end headers, the subprotocols that it offers, the backend's own key. Pure but for memory. */
#ifndef WEIR_GATEWAY_REALTIME_REQUEST_H
#define WEIR_GATEWAY_REALTIME_REQUEST_H

#include "base/strbuf.h"
#include "gateway/call.h"

/* Dispose of it with realtime_request_dispose. */
struct realtime_request {
    struct strbuf target, protocols, headers;
};

/* Builds it. `model` is what the backend calls the model; empty: the client named none. False if it is too long, or a
 * part of it is not fit to be sent; *request is to be disposed of in any case. */
bool realtime_request_make(const struct call *call, const struct backend_settings *settings, struct span model,
                           struct realtime_request *request);
void realtime_request_dispose(struct realtime_request *request);

/* Appends the query with its `model` replaced: once, whatever number of them there was. `drop_key`: without api_key,
 * which was for weir. */
void realtime_request_query(struct span query, struct span model, bool drop_key, struct strbuf *out);

#endif
