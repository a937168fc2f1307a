/* A WebSocket's bytes: between the client's socket, which is libh2o's, and our end of the socketpair. */
#include "base/clock.h"
#include "gateway/worker.h"
#include "gateway/ws_session.h"
#include <errno.h>
#include <sys/socket.h>

#define LINGER_US 1000000

/* In the order in which they fire. */
static void on_client_readable(h2o_socket_t *client, const char *err);
static void on_up_writable(h2o_socket_t *up, const char *err);
static void on_up_readable(h2o_socket_t *up, const char *err);
static void on_client_written(h2o_socket_t *client, const char *err);
static void feed(struct ws_wire *wire);

void ws_tunnel_start(struct ws_wire *wire)
{
    h2o_socket_read_start(wire->up, on_up_readable);
    feed(wire);
}

/* ---- from the client to libwebsockets ---- */

static void read_client(struct ws_wire *wire, bool read)
{
    bool reads = h2o_socket_is_reading(wire->client);
    if (read && !reads)
        h2o_socket_read_start(wire->client, on_client_readable);
    else if (!read && reads)
        h2o_socket_read_stop(wire->client);
}

/* Gives the memory of an empty input buffer back: most sockets are idle most of the time. */
static void release_input(h2o_socket_t *client)
{
    if (client->input->size != 0)
        return;
    h2o_buffer_dispose(&client->input);
    h2o_buffer_init(&client->input, &h2o_socket_buffer_prototype);
}

/* Passes on what stands in the client's input, as far as it may and the socketpair takes it. */
static void feed(struct ws_wire *wire)
{
    h2o_buffer_t **input = &wire->client->input;
    struct span unseen = span_skip((struct span){(*input)->bytes, (*input)->size}, wire->cleared);
    if (wire->up_full)
        return;
    if (unseen.len != 0 && !wire->deaf)
        wire->cleared += ws_guard_pass(&wire->guard, unseen, clock_us());
    if (wire->cleared != 0 && !wire->up_ended) {
        ssize_t n = send(h2o_socket_get_fd(wire->up), (*input)->bytes, wire->cleared, MSG_NOSIGNAL);
        if (n == -1 && errno != EAGAIN && errno != EINTR)
            n = (ssize_t)wire->cleared; /* libwebsockets has closed: its end is being read, or will be */
        if (n > 0) {
            h2o_buffer_consume(input, (size_t)n);
            wire->cleared -= (size_t)n;
        }
        if (wire->cleared != 0) {
            wire->up_full = true;
            read_client(wire, false);
            h2o_socket_notify_write(wire->up, on_up_writable);
            return;
        }
    }
    if (wire->guard.problem != 0 && !wire->deaf)
        ws_session_fail(wire, wire->guard.problem, wire->guard.why);
    if (wire->deaf || wire->guard.closed || wire->up_ended)
        h2o_buffer_consume(input, (*input)->size);
    release_input(wire->client);
    read_client(wire, !wire->client_ended && (!wire->paused || wire->closing));
}

static void on_up_writable(h2o_socket_t *up, const char *err)
{
    struct ws_wire *wire = up->data;
    (void)err; /* tells itself by its end */
    wire->up_full = false;
    feed(wire);
    if (wire->client_ended && !wire->up_full && !wire->deaf)
        shutdown(h2o_socket_get_fd(up), SHUT_WR);
}

static void on_client_readable(h2o_socket_t *client, const char *err)
{
    struct ws_wire *wire = client->data;
    if (client->input->size != 0)
        feed(wire);
    if (err == NULL)
        return;
    /* A client may go right behind its close frame: what it said before still counts. */
    wire->client_ended = true;
    read_client(wire, false);
    if (!wire->guard.closed || wire->phase != WS_OPEN || wire->up_ended)
        ws_bridge_end(wire);
}

void ws_tunnel_hang_up(struct ws_wire *wire)
{
    shutdown(h2o_socket_get_fd(wire->up), SHUT_WR);
}

void ws_pause(struct ws_session *session)
{
    struct ws_wire *wire = ws_wire_of(session);
    wire->paused = true;
    if (wire->client != NULL && !wire->closing)
        read_client(wire, false);
}

void ws_resume(struct ws_session *session)
{
    struct ws_wire *wire = ws_wire_of(session);
    wire->paused = false;
    wire->unanswered = 0;
    if (wire->phase == WS_OPEN && !wire->up_full && !wire->client_ended)
        read_client(wire, true);
}

/* ---- from libwebsockets to the client ---- */

/* Gives the client bytes that stand in memory which will be used again. */
static void write_client(struct ws_wire *wire, struct span bytes)
{
    h2o_socket_t *client = wire->client;
    if (client->ssl == NULL) {
        ssize_t n = send(h2o_socket_get_fd(client), bytes.base, bytes.len, MSG_NOSIGNAL);
        if (n == -1 && errno != EAGAIN && errno != EINTR) {
            ws_bridge_break(wire);
            return;
        }
        if (n > 0)
            wire->progress_us = clock_us();
        bytes = span_skip(bytes, n > 0 ? (size_t)n : 0);
        if (bytes.len == 0)
            return;
        wire->rest = memcpy(h2o_mem_alloc(bytes.len), bytes.base, bytes.len);
        bytes.base = wire->rest;
    }
    h2o_iovec_t out = h2o_iovec_init(bytes.base, bytes.len);
    wire->writing = true;
    wire->progress_us = clock_us();
    h2o_socket_write(client, &out, 1, on_client_written);
    ws_bridge_arm(wire);
}

void ws_tunnel_pump(struct ws_wire *wire)
{
    char *scratch = (char *)ws_loop_scratch(wire->session.worker->ws_loop);
    while (!wire->writing && !wire->up_ended && !wire->broken) {
        ssize_t n = recv(h2o_socket_get_fd(wire->up), scratch, WS_SCRATCH, 0);
        if (n == -1 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            wire->up_ended = true;
            return;
        }
        write_client(wire, (struct span){scratch, (size_t)n});
        if ((size_t)n < WS_SCRATCH)
            return; /* more, if there is, makes the socket readable again */
    }
}

/* libwebsockets is done: what it said has gone out. */
static void finish(struct ws_wire *wire)
{
    if (!wire->deaf || wire->phase == WS_LINGERING || wire->client_ended) {
        ws_bridge_end(wire);
        return;
    }
    /* Closing now, with bytes unread, would reset the connection and could take the close frame with it. */
    wire->phase = WS_LINGERING;
    h2o_socket_read_stop(wire->up);
    if (wire->client->ssl == NULL)
        shutdown(h2o_socket_get_fd(wire->client), SHUT_WR);
    wire->close_by_us = clock_us() + LINGER_US;
    ws_bridge_arm(wire);
    feed(wire);
}

static void on_up_readable(h2o_socket_t *up, const char *err)
{
    struct ws_wire *wire = up->data;
    (void)err;
    ws_tunnel_pump(wire);
    if (wire->broken) {
        ws_bridge_end(wire);
    } else if (wire->writing) {
        wire->up_stopped = true;
        h2o_socket_read_stop(up);
    } else if (wire->up_ended) {
        finish(wire);
    }
}

static void on_client_written(h2o_socket_t *client, const char *err)
{
    struct ws_wire *wire = client->data;
    free(wire->rest);
    wire->rest = NULL;
    wire->writing = false;
    wire->progress_us = clock_us();
    if (err == NULL)
        ws_tunnel_pump(wire);
    if (err != NULL || wire->broken) {
        ws_bridge_end(wire);
    } else if (!wire->writing && wire->up_ended) {
        finish(wire);
    } else if (!wire->writing && wire->up_stopped) {
        wire->up_stopped = false;
        h2o_socket_read_start(wire->up, on_up_readable);
    }
}
