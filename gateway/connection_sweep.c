/* Looks over all connections again and again: what their unfinished requests take, and whether they are stuck. */
#include "base/clock.h"
#include "gateway/connection_own.h"
#include "gateway/large_buffer.h"
#include "gateway/security.h"
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define TRIM_EVERY 10 /* sweeps */

/* Requests have their own watch over clients that take nothing; this is for what is left when they are over:
 * acknowledgements that a client provokes and does not read (libh2o stops reading when half a megabyte of them waits),
 * farewells. */
static bool is_stuck(struct connection *connection, uint64_t now)
{
    struct tcp_info info = {0};
    if (connection->requests != 0 || !h2o_socket_is_writing(connection->sock)) {
        connection->stuck_us = 0;
        return false;
    }
    getsockopt(h2o_socket_get_fd(connection->sock), IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){sizeof(info)});
    if (connection->stuck_us == 0 || info.tcpi_bytes_acked != connection->acknowledged)
        connection->stuck_us = now;
    connection->acknowledged = info.tcpi_bytes_acked;
    return now - connection->stuck_us >= connection->worker->site->config->send_timeout_us;
}

/* Notes what each connection holds; returns the one that holds most for longest. */
static struct connection *look_at_uploads(struct worker *worker, uint64_t now)
{
    struct connection *worst = NULL;
    struct timeval since;
    uint64_t patience = worker->site->config->request_timeout_us, weight = 0;
    gettimeofday(&since, NULL);
    since.tv_sec -= (time_t)(patience / 1000000);
    h2o_linklist_t *list = &worker->connections.reading, *next;
    for (h2o_linklist_t *link = list->next; link != list; link = next) {
        struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, link, link);
        next = link->next;
        if (is_stuck(connection, now))
            shutdown(h2o_socket_get_fd(connection->sock), SHUT_RDWR);
        size_t held = connection->guard != NULL                          ? http2_guard_sweep(connection->guard, &since)
                      : connection->http2 || connection->refused != NULL ? 0
                                                                         : connection->sock->input->size;
        if (held == 0 && connection->held == 0)
            continue;
        uploads_note(&worker->server->uploads, &connection->held, held);
        if (held == 0 || connection->held_since_us == 0)
            connection->held_since_us = held != 0 ? now : 0;
        uint64_t its_weight = held * ((now - connection->held_since_us) / CONNECTION_SWEEP_US + 1);
        if (held != 0 && its_weight > weight) {
            weight = its_weight;
            worst = connection;
        }
    }
    return worst;
}

/* libh2o closes when its read fails. */
static void on_refusal_sent(h2o_socket_t *sock, const char *err)
{
    const struct connection *connection = sock->on_close.data;
    connection->refused(sock, err != NULL ? err : "refused");
}

static void refuse_upload(struct connection *connection)
{
    static const h2o_iovec_t answer = {H2O_STRLIT("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
                                                  "retry-after: 5\r\ncontent-length: 0\r\n\r\n")};
    struct worker *worker = connection->worker;
    security_event(worker, SECURITY_UPLOADS, &connection->peer, SPAN("no memory for it"));
    if (connection->guard != NULL) {
        size_t freed = http2_guard_refuse_newest(connection->guard);
        uploads_note(&worker->server->uploads, &connection->held,
                     connection->held > freed ? connection->held - freed : 0);
    } else {
        uploads_note(&worker->server->uploads, &connection->held, 0);
        connection->refused = connection_reader(connection);
        if (h2o_socket_is_writing(connection->sock)) {
            shutdown(h2o_socket_get_fd(connection->sock), SHUT_RDWR); /* it is being told to go on */
            return;
        }
        h2o_socket_read_stop(connection->sock);
        h2o_socket_write(connection->sock, (h2o_iovec_t *)&answer, 1, on_refusal_sent);
    }
}

void connections_sweep(struct deadline *deadline)
{
    struct worker *worker = H2O_STRUCT_FROM_MEMBER(struct worker, connections.sweep, deadline);
    const struct config *config = worker->site->config;
    uint64_t now = clock_us();
    connections_read_again(worker);
    struct connection *worst = look_at_uploads(worker, now);
    size_t most = uploads_unfinished_max(config->body_memory, config->max_body);
    for (int i = 0; i < 1000 && worst != NULL && uploads_unfinished(&worker->server->uploads) > most; i++) {
        refuse_upload(worst);
        worst = look_at_uploads(worker, now);
    }
    if (++worker->connections.sweeps % TRIM_EVERY == 0)
        large_buffers_trim(false);
    deadline_arm(&worker->deadlines, deadline, now + CONNECTION_SWEEP_US);
}
