/* Private to this folder: an exchange with a server over HTTP/1.1, on a pooled connection. */
#ifndef WEIR_BACKENDS_HTTP_EXCHANGE_H
#define WEIR_BACKENDS_HTTP_EXCHANGE_H

#include "backends/exchange_kind.h"
#include <h2o/socketpool.h>

struct upstream {
    const struct backend_settings *settings;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    h2o_socketpool_t pool;
    SSL_CTX *tls; /* NULL: clear text */
};

/* exchange_start for a BACKEND_HTTP. */
struct exchange *http_exchange_start(struct upstream *upstream, const struct exchange_request *request,
                                     const struct exchange_callbacks *callbacks, void *ctx);

#endif
