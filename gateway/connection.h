/* A client's connection, from accept to close: refuses those that are too many, does the TLS handshake, tells HTTP/2 by
 * prior knowledge from HTTP/1.1 on clear text, watches HTTP/1 clients during a response, when libh2o does not read and
 * so would not see them leave, and bounds what unfinished requests may take. One thread. */
#ifndef WEIR_GATEWAY_CONNECTION_H
#define WEIR_GATEWAY_CONNECTION_H

#include "base/deadline.h"
#include <h2o.h>

struct call_known_key;
struct http2_guard;
struct worker;
struct connection;

/* Whoever waits for the client to leave; one at a time, since HTTP/1 answers one request at a time. */
struct connection_watch {
    void (*on_gone)(struct connection_watch *watch);
};

/* Takes over a socket that was just accepted. `accept_ctx` has an ssl_ctx for TLS; `admin`: at admin's own address. */
void connection_accept(struct worker *worker, h2o_socket_t *sock, h2o_accept_ctx_t *accept_ctx, bool admin);

/* The connection of a request. */
struct connection *connection_of(h2o_req_t *req);

/* What is remembered of the API key that its client brings. */
struct call_known_key *connection_known_key(struct connection *connection);

/* Whether it was accepted at admin's own address. */
bool connection_is_admin(const struct connection *connection);

/* Watches an HTTP/1 client: on_gone is called, once, when it closes the connection or its sending side. NULL ends the
 * watch. */
void connection_watch(struct connection *connection, struct connection_watch *watch);

/* A request on the connection begins and ends: one that has none may be closed. */
void connection_request_begins(struct connection *connection, bool http2);
void connection_request_ends(struct connection *connection, bool stalled);

/* A request's client takes nothing; `again` if that was said before. True if so do all others on the connection. */
bool connection_stalled(struct connection *connection, bool again);

/* Whether a request that has just come may be worked on at once. If not, others have their turn first: the connection
 * has had enough of this round of the loop. */
bool connection_has_turn(struct connection *connection);

/* A request ended before its answer was whole; it has more header fields than anybody sends. */
void connection_aborted(struct connection *connection);
void connection_too_many_fields(struct connection *connection);

/* For http2_guard: the guard of a socket's connection; what its unfinished requests may take, in bytes; that it will be
 * closed for flooding, `kind` (static) says with what; that it will be closed for a broken rule, `rule` (static). */
struct http2_guard *connection_guard(const h2o_socket_t *sock);
size_t connection_upload_max(const h2o_socket_t *sock);
void connection_flooded(h2o_socket_t *sock, const char *kind);
void connection_broke_rule(h2o_socket_t *sock, const char *rule);

/* For the drain: closes the HTTP/1 connections on which nothing is happening (those that never had a request only once
 * it is `settled` that none will come), or all connections. */
void connections_close_idle(struct worker *worker, bool settled);
void connections_close_all(struct worker *worker);

/* A worker's connections and the epoll set that watches them. */
struct connections {
    h2o_linklist_t reading;   /* those that may be sending a request: all but */
    h2o_linklist_t answering; /* those of HTTP/1 that are being answered, */
    h2o_linklist_t changed;   /* and those of HTTP/1 that libh2o has had its hands on in this turn of the loop */
    size_t count;
    h2o_linklist_t handshakes; /* TLS clients whose first bytes have come, in their order */
    struct deadline handshake_turn, sweep;
    uint64_t round; /* of the loop */
    unsigned sweeps;
    bool serve_http2;
    int epoll;
    h2o_socket_t *epoll_sock;
};

/* Prepares the list; false, with errno set, if there is no epoll set to be had. */
bool connections_init(struct worker *worker);

/* Before each turn of the loop. */
void connections_turn(struct worker *worker);

/* Lets go of the epoll set; there must be no connections left. */
void connections_dispose(struct worker *worker);

#endif
