/* libwebsockets inside a worker: one context on a libuv loop of its own, whose descriptor h2o's loop watches. Made at
 * the first WebSocket, so that a worker without any pays nothing. All of it belongs to the worker's thread.
 *
 *      h2o's loop ──watches──▶ uv_backend_fd ──uv_run──▶ libwebsockets ──▶ ws_session's callbacks
 *
 * Whoever touches libwebsockets from outside one of its callbacks (adopts a socket, connects, asks for a writable
 * callback) calls ws_loop_touch afterwards: libuv takes up new interest only when it runs. */
#ifndef WEIR_GATEWAY_WS_LOOP_H
#define WEIR_GATEWAY_WS_LOOP_H

#include <libwebsockets.h>
#include <openssl/ssl.h>

struct worker;
struct ws_loop;

/* The worker's, made now if this is the first call. NULL, with a line in the log, if libwebsockets cannot start (its
 * libuv plug-in is missing, or descriptors are). */
struct ws_loop *ws_loop_get(struct worker *worker);

/* libwebsockets' one context, for what is asked of no single virtual host; the loop's own. */
struct lws_context *ws_loop_context(struct ws_loop *loop);

/* The virtual host whose one protocol is the session's; for connections from clients. */
struct lws_vhost *ws_loop_server(struct ws_loop *loop);

#define WS_CLIENTS_MAX 1024

/* A virtual host for connections to backends over TLS in this context (NULL: in clear text), made at the first call;
 * its one protocol is ws_backend's. The context is counted: it stays though its backend goes with a reload, for as long
 * as anybody uses the host and a while longer. NULL if there is no memory for it, or there are more than
 * WS_CLIENTS_MAX. */
struct lws_vhost *ws_loop_client(struct worker *worker, SSL_CTX *tls);

/* Ends one use of it: there must be as many as calls that gave it. */
void ws_loop_client_done(struct ws_loop *loop, const struct lws_vhost *vhost);

#define WS_SCRATCH ((size_t)64 * 1024)

/* WS_SCRATCH bytes for what is copied on at once; whoever uses it lets go of it before anybody else is called. */
unsigned char *ws_loop_scratch(struct ws_loop *loop);

/* Something was done to libwebsockets from outside: the libuv loop runs once before the worker waits again. */
void ws_loop_touch(struct ws_loop *loop);

/* ---- for the worker's loop; `worker->ws_loop` may be NULL ---- */

/* How long the worker may wait at most, in milliseconds, given that it would wait `max_ms`. */
int ws_loop_wait_ms(struct ws_loop *loop, int max_ms);

/* Runs what is due. To be called after each turn of h2o's loop. */
void ws_loop_run(struct ws_loop *loop);

/* Ends libwebsockets and frees everything; all sessions must be over. h2o's loop must run once more afterwards. */
void ws_loop_destroy(struct ws_loop *loop);

#endif
