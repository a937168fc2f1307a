/* A client's connection, from accept to close: tells HTTP/2 by prior knowledge from HTTP/1.1 on clear text, and watches
 * HTTP/1 clients during a response, when libh2o does not read and so would not see them leave. One thread. */
#ifndef WEIR_GATEWAY_CONNECTION_H
#define WEIR_GATEWAY_CONNECTION_H

#include "base/deadline.h"
#include <h2o.h>

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

/* For the drain: closes the HTTP/1 connections on which nothing is happening (those that never had a request only once
 * it is `settled` that none will come), or all connections. */
void connections_close_idle(struct worker *worker, bool settled);
void connections_close_all(struct worker *worker);

/* A worker's list of connections and the epoll set that watches them. */
struct connections {
    h2o_linklist_t list;
    size_t count;
    int epoll;
    h2o_socket_t *epoll_sock;
};

/* Prepares the list; false, with errno set, if there is no epoll set to be had. */
bool connections_init(struct worker *worker);

/* Lets go of the epoll set; there must be no connections left. */
void connections_dispose(struct worker *worker);

#endif
