/* Stands between the frames of an HTTP/2 connection and libh2o 2.2.5, which lets one connection starve all others:
 * weighs each frame in a token bucket of its kind and ends the connection, with GOAWAY and ENHANCE_YOUR_CALM (RFC 9113
 * §10.5), when one is empty. It counts what costs the server and gets the client nothing: resets, requests that come to
 * no answer, frames of control, header blocks beyond reason. Requests that are answered are free, however many.
 *
 * It leans on libh2o's internals and so on exactly this version of it: see http2_guard_fits. One thread. */
#ifndef WEIR_GATEWAY_HTTP2_GUARD_H
#define WEIR_GATEWAY_HTTP2_GUARD_H

#include <h2o.h>
#include <stdbool.h>

struct http2_guard;

/* Whether the library that runs is the one whose internals the guard knows; if not, HTTP/2 is not served. */
bool http2_guard_fits(void);

struct http2_guard *http2_guard_create(void);
void http2_guard_destroy(struct http2_guard *guard); /* NULL is fine */

/* h2o_http2_accept for a socket whose connection (see connection.h) has this guard; both may be gone when it returns.
 */
void http2_guard_accept(struct http2_guard *guard, h2o_accept_ctx_t *accept_ctx, h2o_socket_t *sock,
                        struct timeval connected_at);

/* A request has come to a handler; it has ended without its whole answer; it has more header fields than
 * http2_guard_fields_max. What follows from the latter two follows at the next frame. */
void http2_guard_request(struct http2_guard *guard);
void http2_guard_aborted(struct http2_guard *guard);
void http2_guard_too_many_fields(struct http2_guard *guard);
#define HTTP2_GUARD_FIELDS_MAX 1000

/* Resets the requests that began before `since` (by gettimeofday's clock) and are not whole yet. Returns the bytes that
 * the other unfinished ones take. */
size_t http2_guard_sweep(struct http2_guard *guard, const struct timeval *since);

/* Resets the newest of the unfinished requests, as one that the client may safely send again (RFC 9113 §8.7). Returns
 * the bytes that it took; 0: there was none. */
size_t http2_guard_refuse_newest(struct http2_guard *guard);

#endif
