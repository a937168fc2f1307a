/* One exchange with a backend: a request goes out, a head comes back, the body becomes a stream. It is the same for a
 * server over HTTP/1.1 and for the demo model. One thread (the worker's) makes it, hears of it and may cancel it.
 *
 * Order of events:   exchange_start ─▶ on_head(stream) ─▶ … the stream ends or breaks …
 *                                  └─▶ on_fail          (instead of on_head; nothing follows)
 * on_fail may be called from within exchange_start, on_head never is. After on_head the exchange lives as the stream's
 * producer and goes with it, which on_over tells; after on_fail, and after exchange_cancel, it is gone. */
#ifndef WEIR_BACKENDS_EXCHANGE_H
#define WEIR_BACKENDS_EXCHANGE_H

#include "backends/backend.h"
#include "base/deadline.h"
#include "stream/stream.h"
#include <h2o.h>
#include <openssl/ssl.h>

#define EXCHANGE_BODY_PIECES 5 /* a body with two splices */

struct header {
    struct span name; /* lower case */
    struct span value;
};

/* What goes out. The body's spans must stay valid until the exchange is over (on_fail, exchange_cancel, or the end of
 * its stream), since a server may answer before it has read everything; all others only during exchange_start. */
struct exchange_request {
    struct span method;
    struct span path;             /* from the client, with its leading '/', no query */
    struct span query;            /* without '?'; empty if none */
    const struct header *headers; /* end-to-end headers to send as they are; the exchange adds Host, credentials,
                                     lengths, Accept-Encoding and the backend's own */
    size_t header_count;
    struct span body[EXCHANGE_BODY_PIECES]; /* sent one after the other: spliced bodies are not joined */
    bool from_root;                         /* `path` is the server's own, whatever path its url has */
    bool has_body;                          /* false sends no Content-Length */
    bool forward_credentials;               /* the backend's own key, if it has one, replaces the client's */
    enum dialect_id dialect;
    bool wants_stream; /* the request asked for a streamed answer: first_token and idle timeouts apply */
    const struct backend_timeouts *timeouts; /* in place of the backend's own; only during exchange_start */
    uint64_t deadline_us;                    /* clock_us() by which all must be over, whatever `total` says; 0: none */
    bool hide_usage;   /* the client of a streamed answer has not asked for the usage that this asks for */
    struct span model; /* for the demo model: the name to answer under */
};

struct exchange_head {
    int status;
    const struct header *headers; /* end-to-end ones only: hop-by-hop, Content-Length and Transfer-Encoding are gone */
    size_t header_count;
    uint64_t content_length; /* UINT64_MAX: unknown */
    bool sse;
};

struct exchange_callbacks {
    /* The head has come; `head` is valid during the call only. The callee must subscribe to `stream` in this call, or
     * it is cancelled. */
    void (*on_head)(void *ctx, const struct exchange_head *head, struct stream *stream);
    /* No head will come. `sent` is false if nothing of the request can have reached the backend, so that another may be
     * tried. */
    void (*on_fail)(void *ctx, enum stream_failure why, const char *message, bool sent);
    /* After on_head: the exchange is over, and its stream is about to end, or to break because of `why`; it is still
     * open. May be NULL. */
    void (*on_over)(void *ctx, enum stream_failure why, const struct stream *stream);
};

struct exchange;
struct upstream; /* a worker's connections to one backend */

/* A worker's side of a backend: its idle connections and TLS context. Returns NULL with a message in `error` if the TLS
 * files cannot be used. `settings` must outlive it. With `address_len` above 0 it connects there in place of the
 * settings' host, whose name goes on to stand in requests and certificates. */
struct upstream *upstream_create(const struct backend_settings *settings, const struct sockaddr *address,
                                 socklen_t address_len, h2o_context_t *ctx, struct deadlines *deadlines, char *error,
                                 size_t error_size);

/* Closes idle connections. All exchanges must be over. */
void upstream_destroy(struct upstream *upstream);

const struct backend_settings *upstream_settings(const struct upstream *upstream);

/* The TLS context for connections to it, which checks the name in its certificate; NULL for clear text. Not counted. */
SSL_CTX *upstream_tls(const struct upstream *upstream);

/* Starts an exchange. Returns NULL if it already failed (on_fail was called). */
struct exchange *exchange_start(struct upstream *upstream, const struct exchange_request *request,
                                const struct exchange_callbacks *callbacks, void *ctx);

/* Gives up before on_head: closes the connection at once; no callback follows. */
void exchange_cancel(struct exchange *exchange);

#endif
