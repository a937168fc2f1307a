/* Private to connections: what their files share. */
#ifndef WEIR_GATEWAY_CONNECTION_OWN_H
#define WEIR_GATEWAY_CONNECTION_OWN_H

#include "gateway/http2_guard.h"
#include "gateway/worker.h"

#define CONNECTION_SWEEP_US 100000

struct connection {
    h2o_linklist_t link;
    h2o_linklist_t handshake_link;
    struct worker *worker;
    h2o_socket_t *sock;
    h2o_accept_ctx_t *accept_ctx;
    struct connection_watch *watch;
    struct http2_guard *guard; /* of HTTP/2 only */
    struct deadline timer;     /* until the protocol is known, and again while it is closed for flooding */
    struct in6_addr peer;      /* as mapped IPv6; unspecified if it is a unix socket's or a trusted proxy's */
    struct timeval connected_at;
    h2o_socket_cb on_read;  /* libh2o's, of HTTP/1 */
    h2o_socket_cb refused;  /* who read when its upload was refused; NULL: it was not */
    size_t held;            /* bytes of unfinished requests, when last looked at */
    uint64_t held_since_us; /* 0: nothing is held */
    uint64_t acknowledged;  /* bytes that a client with no request had taken, */
    uint64_t stuck_us;      /* since when it has taken no more; 0: it is not being written to */
    uint64_t round;         /* of the loop, of which `in_round` speaks */
    unsigned in_round;      /* requests */
    unsigned requests;      /* in flight */
    unsigned stalled;       /* of these */
    bool http2;
    bool served;     /* a request has come on it */
    bool registered; /* in the epoll set */
    bool admin;      /* accepted at admin's own address */
    bool shut;       /* by connections_close_idle: no more is read */
    struct call_known_key known_key;
};

/* Puts weir's reader in its place again where libh2o has put its own. */
void connections_read_again(struct worker *worker);

/* The reader that libh2o has set, of HTTP/1, even where weir's stands in its place. */
h2o_socket_cb connection_reader(const struct connection *connection);

/* The epoll set for connection_watch; false, with errno set, if there is none to be had. */
bool connections_watch_init(struct worker *worker);

/* Every CONNECTION_SWEEP_US while there are connections: see connection_sweep.c. */
void connections_sweep(struct deadline *deadline);

#endif
