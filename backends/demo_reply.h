/* The demo model's answers as bytes, in each dialect's own form and order of events. Pure: no I/O, no clock, one
 * thread.
 *
 *   streamed:  demo_reply_next, demo_reply_next, … false      one call per token; the first brings the opening events
 * too, the last the closing ones plain:     demo_reply_next … false                        the whole body at once */
#ifndef WEIR_BACKENDS_DEMO_REPLY_H
#define WEIR_BACKENDS_DEMO_REPLY_H

#include "backends/demo_request.h"

struct demo_reply {
    const struct demo_request *request;
    struct span _rest;  /* of the answer */
    size_t _sent;       /* tokens */
    uint64_t _sequence; /* events, for Responses */
};

/* Begins the answer to `request`, which must stay until the end. */
void demo_reply_init(struct demo_reply *reply, const struct demo_request *request);

/* Appends the next part to `out`; false if it was the last. */
bool demo_reply_next(struct demo_reply *reply, struct strbuf *out);

/* Appends the list of models, or one of them, or an error, as GET `path` asks. Returns the status. */
int demo_reply_models(struct span method, struct span path, struct strbuf *out);

#endif
