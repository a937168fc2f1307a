/* One connection to a Redis server or a Sentinel, by hiredis on an h2o loop: resolves the name without blocking, tries
 * each address in turn, pipelines commands, and hands out replies in order. It guards what hiredis 0.14 leaves open:
 * a reply that nobody asked for (which would end in an assertion), replies without bound in length, elements or line.
 *
 *      redis_conn_open ─▶ on_open ─▶ redis_conn_send … pending->cb(reply) … ─▶ on_close(why)
 *
 * Nothing is called from within redis_conn_open, redis_conn_send or redis_conn_close, but for the pendings on their way
 * at redis_conn_close. Internal to base/redis_*; one thread. */
#ifndef WEIR_BASE_REDIS_CONN_H
#define WEIR_BASE_REDIS_CONN_H

#include "base/deadline.h"
#include "base/span.h"
#include <h2o.h>
#include <hiredis/hiredis.h>

/* Bytes of one reply, read and as a tree; more ends the connection. */
#define REDIS_REPLY_MAX ((size_t)8 * 1024 * 1024)

struct redis_conn;
struct redis_pending;

/* `reply` is valid during the call only; NULL: the connection was lost, or closed, first. */
typedef void (*redis_pending_cb)(struct redis_pending *pending, const redisReply *reply);

/* What waits for a reply; embedded in its owner, which lives until the one call, whatever happens. */
struct redis_pending {
    redis_pending_cb cb;
};

struct redis_conn_settings {
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    const char *host; /* name or address; must outlive the connection */
    uint16_t port;
    const char *unix_path; /* in place of host and port; NULL: TCP */
    uint64_t timeout_us;   /* for resolving and connecting, all addresses together */
    void (*on_open)(void *owner);
    /* Bytes have come, and their replies were handed out. */
    void (*on_heard)(void *owner);
    /* It could not be made, or was lost; the connection is gone then, and all its pendings have been called. */
    void (*on_close)(void *owner, const char *why);
    void *owner;
};

/* Starts to connect; never fails at once. */
struct redis_conn *redis_conn_open(const struct redis_conn_settings *settings);

/* Closes it without a call of on_close: at once, or when the callback that this is called from has returned. Pendings
 * are called with NULL. */
void redis_conn_close(struct redis_conn *conn);

/* Sends one whole command (RESP). Only while the connection is open. */
void redis_conn_send(struct redis_conn *conn, struct span command, struct redis_pending *pending);

/* Writes at once what can be, calling nobody: what goes wrong is noticed when the loop comes to it. */
void redis_conn_flush(struct redis_conn *conn);

/* Bytes that wait to be written. */
size_t redis_conn_unwritten(const struct redis_conn *conn);

#endif
