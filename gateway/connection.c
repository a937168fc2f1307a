#include "gateway/connection.h"
#include "base/clock.h"
#include "gateway/worker.h"
#include <errno.h>
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char preface[] = "PRI * HTTP/2"; /* RFC 9113 §3.4 */

struct connection {
    h2o_linklist_t link;
    struct worker *worker;
    h2o_socket_t *sock;
    h2o_accept_ctx_t *accept_ctx;
    struct connection_watch *watch;
    struct deadline first_bytes; /* until the protocol is known */
    struct timeval connected_at;
    unsigned requests; /* in flight */
    unsigned stalled;  /* of these */
    bool http2;
    bool served;     /* a request has come on it */
    bool registered; /* in the epoll set */
    bool admin;      /* accepted at admin's own address */
};

/* In the order in which they fire. */
static void on_first_bytes(h2o_socket_t *sock, const char *err);
static void on_first_bytes_late(struct deadline *deadline);
static void on_readable(h2o_socket_t *sock, const char *err);
static void on_watch(h2o_socket_t *sock, const char *err);
static void on_close(void *ctx);

void connection_accept(struct worker *worker, h2o_socket_t *sock, h2o_accept_ctx_t *accept_ctx, bool admin)
{
    struct connection *connection = h2o_mem_alloc(sizeof(*connection));
    *connection = (struct connection){.worker = worker, .sock = sock, .accept_ctx = accept_ctx, .admin = admin};
    h2o_linklist_insert(&worker->connections.list, &connection->link);
    worker->connections.count++;
    metric_add(worker->telemetry.connections, 1);
    sock->on_close.cb = on_close;
    sock->on_close.data = connection;
    if (accept_ctx->ssl_ctx != NULL) {
        h2o_accept(accept_ctx, sock);
        return;
    }
    gettimeofday(&connection->connected_at, NULL);
    connection->first_bytes.cb = on_first_bytes_late;
    deadline_arm(&worker->deadlines, &connection->first_bytes, clock_us() + worker->site->config->request_timeout_us);
    sock->data = connection;
    h2o_socket_read_start(sock, on_first_bytes);
}

/* libh2o tells the protocols apart only together with the Upgrade to h2c, which RFC 9113 has dropped. */
static void on_first_bytes(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->data;
    if (err != NULL) {
        h2o_socket_close(sock);
        return;
    }
    size_t n = sock->input->size < sizeof(preface) - 1 ? sock->input->size : sizeof(preface) - 1;
    bool may_be_http2 = memcmp(sock->input->bytes, preface, n) == 0;
    if (may_be_http2 && n < sizeof(preface) - 1)
        return;
    deadline_disarm(&connection->worker->deadlines, &connection->first_bytes);
    h2o_socket_read_stop(sock);
    connection->http2 = may_be_http2;
    if (may_be_http2)
        h2o_http2_accept(connection->accept_ctx, sock, connection->connected_at);
    else
        h2o_http1_accept(connection->accept_ctx, sock, connection->connected_at);
}

static void on_first_bytes_late(struct deadline *deadline)
{
    h2o_socket_close(H2O_STRUCT_FROM_MEMBER(struct connection, first_bytes, deadline)->sock);
}

static void on_close(void *ctx)
{
    struct connection *connection = ctx;
    struct worker *worker = connection->worker;
    deadline_disarm(&worker->deadlines, &connection->first_bytes);
    h2o_linklist_unlink(&connection->link);
    worker->connections.count--;
    metric_add(worker->telemetry.connections, -1);
    free(connection);
}

struct connection *connection_of(h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

bool connection_is_admin(const struct connection *connection)
{
    return connection->admin;
}

/* Tells the watcher that the client has left. */
static void tell_gone(struct connection *connection)
{
    struct connection_watch *watch = connection->watch;
    connection->watch = NULL;
    if (watch != NULL)
        watch->on_gone(watch);
}

void connection_watch(struct connection *connection, struct connection_watch *watch)
{
    connection->watch = watch;
    if (watch == NULL) {
        h2o_socket_dont_read(connection->sock, 0);
        if (connection->sock->_cb.read == on_readable)
            h2o_socket_read_stop(connection->sock);
        return;
    }
    if (connection->registered) {
        /* Its edge may have come while nobody watched: asking again tells of it again. */
        struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
        epoll_ctl(connection->worker->connections.epoll, EPOLL_CTL_MOD, h2o_socket_get_fd(connection->sock), &event);
        return;
    }
    /* libh2o has just stopped reading. Going on, without really reading, tells when the client closes, and saves taking
     * the descriptor off the loop and putting it on again, two system calls for each request. */
    h2o_socket_dont_read(connection->sock, 1);
    h2o_socket_read_start(connection->sock, on_readable);
}

static void on_readable(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->on_close.data;
    char byte;
    (void)err;
    ssize_t n = recv(h2o_socket_get_fd(sock), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == -1 && (errno == EAGAIN || errno == EINTR))
        return;
    h2o_socket_read_stop(sock);
    if (n <= 0) {
        tell_gone(connection);
        return;
    }
    /* The next request has come already, or TLS's farewell. Its bytes stay where they are; an epoll set of its own
     * tells, behind them, of the end. */
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(connection->worker->connections.epoll, EPOLL_CTL_ADD, h2o_socket_get_fd(sock), &event) == 0)
        connection->registered = true;
}

static void on_watch(h2o_socket_t *sock, const char *err)
{
    struct worker *worker = sock->data;
    (void)err;
    /* One at a time: what on_gone does may close other connections that have events waiting. */
    struct epoll_event event;
    while (epoll_wait(worker->connections.epoll, &event, 1, 0) == 1) {
        tell_gone(event.data.ptr);
    }
}

bool connections_init(struct worker *worker)
{
    struct connections *connections = &worker->connections;
    h2o_linklist_init_anchor(&connections->list);
    connections->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connections->epoll == -1)
        return false;
    connections->epoll_sock = h2o_evloop_socket_create(worker->ctx.loop, connections->epoll, H2O_SOCKET_FLAG_DONT_READ);
    connections->epoll_sock->data = worker;
    h2o_socket_read_start(connections->epoll_sock, on_watch);
    return true;
}

void connections_dispose(struct worker *worker)
{
    h2o_socket_close(worker->connections.epoll_sock);
}

void connection_request_begins(struct connection *connection, bool http2)
{
    connection->requests++;
    connection->served = true;
    connection->http2 = http2;
}

void connection_request_ends(struct connection *connection, bool stalled)
{
    connection->requests--;
    connection->stalled -= stalled;
}

bool connection_stalled(struct connection *connection, bool again)
{
    connection->stalled += !again;
    return connection->stalled == connection->requests;
}

static bool speaks_http2(const struct connection *connection)
{
    if (connection->http2)
        return true;
    /* Before the handshake there is nothing to ask. */
    if (h2o_socket_get_ssl_protocol_version(connection->sock) == NULL)
        return false;
    h2o_iovec_t protocol = h2o_socket_ssl_get_selected_protocol(connection->sock);
    return h2o_memis(protocol.base, protocol.len, H2O_STRLIT("h2"));
}

/* Whether nothing would be lost with the connection. libh2o ends those of HTTP/2 itself; one that was just made gets
 * time for its request to come; bytes that wait are a request. */
static bool is_idle(const struct connection *connection, bool settled)
{
    char byte;
    return connection->requests == 0 && (connection->served || settled) && !speaks_http2(connection) &&
           connection->sock->input->size == 0 &&
           recv(h2o_socket_get_fd(connection->sock), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static void close_where(struct worker *worker, bool all, bool settled)
{
    struct connections *connections = &worker->connections;
    for (h2o_linklist_t *link = connections->list.next; link != &connections->list; link = link->next) {
        struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, link, link);
        if (all || is_idle(connection, settled))
            shutdown(h2o_socket_get_fd(connection->sock), all ? SHUT_RDWR : SHUT_RD);
    }
}

void connections_close_idle(struct worker *worker, bool settled)
{
    close_where(worker, false, settled);
}

void connections_close_all(struct worker *worker)
{
    close_where(worker, true, true);
}
