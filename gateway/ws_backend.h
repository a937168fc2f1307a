/* A WebSocket to a backend: libwebsockets as the client, on the worker's own loop (ws_loop.h). Names are resolved by
 * libh2o's threads and libwebsockets gets a number; TLS is the backend's own context, which checks the name. Messages
 * come in pieces of a few KB however large their frames are, and none is ever held whole.
 *
 * One thread. Callbacks come from the loop, never from within a function below. After `failed`, `closed`,
 * ws_backend_close or ws_backend_cancel nothing more comes, and the pointer is of no further use: it frees itself when
 * its connection has ended. */
#ifndef WEIR_GATEWAY_WS_BACKEND_H
#define WEIR_GATEWAY_WS_BACKEND_H

#include "backends/exchange.h"
#include "gateway/ws_bridge.h"
#include <libwebsockets.h>

#define WS_BACKEND_QUEUE_HIGH ((size_t)64 * 1024)
#define WS_BACKEND_QUEUE_MAX ((size_t)1024 * 1024)
#define WS_BACKEND_TARGET_MAX 2000    /* bytes of path and query: libwebsockets cuts at 2048 */
#define WS_BACKEND_HOST_MAX 110       /* and the host at 128 */
#define WS_BACKEND_PROTOCOLS_MAX 1024 /* of Sec-WebSocket-Protocol */
#define WS_BACKEND_HEADERS_MAX 8192   /* of all other headers */

struct ws_backend;

struct ws_backend_callbacks {
    /* The handshake is done; `protocol` is the subprotocol that the backend chose, empty if none. */
    void (*opened)(void *ctx, struct span protocol);
    /* It will not come about. `status` is that of the backend's answer, 0 if there was none; `message` is for the log.
     */
    void (*failed)(void *ctx, enum stream_failure why, int status, const char *message);
    void (*message)(void *ctx, const struct ws_piece *piece);
    /* The queue, which was full, is not any more. */
    void (*writable)(void *ctx);
    /* It is over. WS_CLOSE_NO_STATUS if its close frame had no code, WS_CLOSE_ABNORMAL if none came. libwebsockets
     * tells of 1012 to 1014 as WS_CLOSE_PROTOCOL. */
    void (*closed)(void *ctx, unsigned code, struct span reason);
};

/* What is asked; all are copied. */
struct ws_backend_request {
    const char *target;    /* path and query */
    const char *protocols; /* to offer, as a list; NULL: none */
    struct span headers;   /* whole lines, each with its CRLF */
    uint64_t connect_us;   /* time for the handshake; 0: any */
    uint64_t ping_us;      /* how often to ask whether it lives; 0: never */
};

/* Begins to connect; never NULL. */
struct ws_backend *ws_backend_connect(struct worker *worker, struct upstream *upstream,
                                      const struct ws_backend_request *request,
                                      const struct ws_backend_callbacks *callbacks, void *ctx);

/* Sends a message, or a piece of one. Beyond WS_BACKEND_QUEUE_MAX it is over: WS_CLOSED, and `closed` comes. */
enum ws_sent ws_backend_send(struct ws_backend *backend, enum ws_kind kind, struct span bytes);

/* Reads no more from it, and goes on reading. What libwebsockets has read already, some KB, may still come. */
void ws_backend_pause(struct ws_backend *backend);
void ws_backend_resume(struct ws_backend *backend);

/* Closes it, once what is queued is sent, or after a few seconds at the latest. */
void ws_backend_close(struct ws_backend *backend, unsigned code, struct span reason);

/* Gives it up before it was opened. */
void ws_backend_cancel(struct ws_backend *backend);

/* libwebsockets' callback for connections to backends. */
int ws_backend_on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);

#endif
