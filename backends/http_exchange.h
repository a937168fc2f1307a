/* Private to this folder: an exchange with a server over HTTP/1.1, on a connection that may have served before.
 *
 * Idle connections stay on the loop, being read: libh2o's own pool takes them off and on again and looks whether they
 * are alive, which is five system calls for each request, a third of a small request's cost; and here a server that
 * closes an idle connection is noticed when it does. */
#ifndef WEIR_BACKENDS_HTTP_EXCHANGE_H
#define WEIR_BACKENDS_HTTP_EXCHANGE_H

#include "backends/exchange_kind.h"
#include <h2o/socketpool.h>

struct upstream {
    const struct backend_settings *settings;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    h2o_socketpool_t pool; /* makes connections; those that may serve again wait in `idle` */
    SSL_CTX *tls;          /* NULL: clear text */
    h2o_linklist_t idle;   /* the longest idle first */
    size_t idle_count;
    struct deadline idle_deadline;
};

/* An idle connection, the one used last, that the server had not closed as far as is known; NULL if there is none. */
h2o_socket_t *upstream_take_idle(struct upstream *upstream);

/* Keeps a connection for the next exchange. Nothing may be under way on it. */
void upstream_keep_idle(struct upstream *upstream, h2o_socket_t *sock);

/* exchange_start for a BACKEND_HTTP. */
struct exchange *http_exchange_start(struct upstream *upstream, const struct exchange_request *request,
                                     const struct exchange_callbacks *callbacks, void *ctx);

#endif
