/* Whether an HTTP/1 client is still there while it is being answered, when libh2o does not read. */
#include "gateway/connection_own.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* In the order in which they fire. */
static void on_readable(h2o_socket_t *sock, const char *err);
static void on_watch(h2o_socket_t *sock, const char *err);

bool connections_watch_init(struct worker *worker)
{
    struct connections *connections = &worker->connections;
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

/* Tells the watcher that the client has left. A request that came in the moment in which its idle connection was shut
 * is answered: the end that is read then is not the client's. */
static void tell_gone(struct connection *connection)
{
    struct connection_watch *watch = connection->watch;
    if (connection->shut)
        return;
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
