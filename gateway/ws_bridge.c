#include "gateway/ws_bridge.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/http_call.h"
#include "gateway/limit.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include "gateway/ws_session.h"
#include <errno.h>
#include <h2o/http1.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define HANDSHAKE_US 10000000
#define SOCKET_BUFFER (64 * 1024) /* of the client's bytes, in the kernel, on each side of weir */
#define MISSED_PONGS_MAX 2

/* In the order in which they fire. */
static void on_call_end(struct call_job *job);
static void on_answer(h2o_socket_t *up, const char *err);
static void on_upgraded(void *ctx, h2o_socket_t *client, size_t request_size);
static void on_deadline(struct deadline *deadline);

/* ---- the handshake ---- */

static void refuse(struct call *call, int status, const char *code, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .message = message};
    call_refuse(call, "websocket_handshake", &error);
}

/* The request as libwebsockets gets it: nothing in it is the client's but the key, which was checked. */
static bool send_request(struct ws_wire *wire, struct span key)
{
    char request[256];
    int n = snprintf(request, sizeof(request),
                     "GET / HTTP/1.1\r\nHost: weir\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %.*s\r\n\r\n",
                     (int)key.len, key.base);
    return send(h2o_socket_get_fd(wire->up), request, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Gives libwebsockets one end of a socketpair. */
static bool connect_libwebsockets(struct ws_wire *wire, struct ws_loop *loop, struct span key)
{
    int pair[2], size = SOCKET_BUFFER;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    wire->up = h2o_evloop_socket_create(wire->session.worker->ctx.loop, pair[0], H2O_SOCKET_FLAG_DONT_READ);
    wire->up->data = wire;
    lws_adopt_desc_t adopt = {
        .vh = ws_loop_server(loop), .type = LWS_ADOPT_SOCKET | LWS_ADOPT_HTTP, .fd.sockfd = pair[1], .opaque = wire};
    wire->wsi = lws_adopt_descriptor_vhost_via_info(&adopt); /* closes the descriptor if it fails */
    if (wire->wsi == NULL)
        return false;
    ws_loop_touch(loop);
    h2o_socket_read_start(wire->up, on_answer);
    return send_request(wire, key);
}

static struct ws_wire *create(struct call *call, const struct ws_session_type *type, void *ctx)
{
    struct ws_wire *wire = h2o_mem_alloc(sizeof(*wire));
    memset(wire, 0, sizeof(*wire));
    struct ws_session *session = &wire->session;
    session->type = type;
    session->ctx = ctx;
    session->worker = call->worker;
    session->site = site_retain(call->site);
    session->pool = pool_retain(call->pool);
    session->route = call->route;
    session->identity = call->identity != NULL ? identity_retain(call->identity) : NULL;
    session->client = call->client;
    memcpy(session->request_id, call->request_id, sizeof(session->request_id));
    memcpy(session->trace_id, call->trace_id, sizeof(session->trace_id));
    wire->guard.max_message = call->site->config->websocket.max_message;
    ws_queue_init(&wire->queue, WS_QUEUE_HIGH);
    wire->deadline.cb = on_deadline;
    wire->job.end = on_call_end;
    h2o_linklist_insert(&call->worker->ws_sessions, &wire->link);
    return wire;
}

static void settle_limits(struct ws_session *session)
{
    struct call call = {.worker = session->worker, .site = session->site, .limits = session->limits};
    limit_settle(&call);
}

/* Frees all but what belongs to the type. */
static void destroy(struct ws_wire *wire)
{
    struct ws_session *session = &wire->session;
    deadline_disarm(&session->worker->deadlines, &wire->deadline);
    h2o_linklist_unlink(&wire->link);
    if (wire->wsi != NULL)
        lws_set_opaque_user_data(wire->wsi, NULL); /* it ends by itself when its socket does */
    if (wire->up != NULL)
        h2o_socket_close(wire->up);
    if (wire->client != NULL)
        h2o_socket_close(wire->client);
    ws_queue_drop(&wire->queue);
    free(wire->rest);
    settle_limits(session);
    identity_release(session->identity);
    site_release(session->site);
    pool_release(session->pool);
    free(wire);
}

struct ws_session *ws_open(struct call *call, const struct ws_session_type *type, void *ctx, struct span protocol)
{
    struct http_call *http = http_call_of(call);
    call->job = NULL;
    if (!ws_handshake_check(call))
        return NULL;
    struct ws_loop *loop = ws_loop_get(call->worker);
    if (loop == NULL) {
        refuse(call, 503, "websockets_unavailable", "WebSockets are not available on this gateway.");
        return NULL;
    }
    struct ws_wire *wire = create(call, type, ctx);
    if (!connect_libwebsockets(wire, loop, call_header(call, SPAN("sec-websocket-key")))) {
        destroy(wire);
        refuse(call, 503, "out_of_descriptors", "The gateway has no room for another WebSocket.");
        return NULL;
    }
    wire->http = http;
    if (protocol.len != 0) {
        h2o_iovec_t copy = h2o_strdup(&http->req->pool, protocol.base, protocol.len);
        wire->protocol = (struct span){copy.base, copy.len};
    }
    call->job = &wire->job;
    ws_bridge_arm(wire);
    return &wire->session;
}

static void on_call_end(struct call_job *job)
{
    struct ws_wire *wire = H2O_STRUCT_FROM_MEMBER(struct ws_wire, job, job);
    wire->http = NULL;
    ws_bridge_end(wire);
}

/* Nothing came of it. */
static void fail_handshake(struct ws_wire *wire)
{
    struct call *call = &wire->http->call;
    call->job = NULL;
    wire->http = NULL;
    ws_bridge_end(wire);
    refuse(call, 502, "websocket_failed", "The WebSocket could not be set up.");
}

/* The value of libwebsockets' Sec-WebSocket-Accept; empty if this is no 101, or not all of it. */
static struct span find_accept(struct span answer)
{
    static const char name[] = "\r\nSec-WebSocket-Accept: ";
    if (!span_starts(answer, SPAN("HTTP/1.1 101 ")) || memmem(answer.base, answer.len, "\r\n\r\n", 4) == NULL)
        return SPAN_NONE;
    const char *at = memmem(answer.base, answer.len, name, sizeof(name) - 1);
    if (at == NULL)
        return SPAN_NONE;
    struct span value = span_skip(answer, (size_t)(at - answer.base) + sizeof(name) - 1);
    value.len = (size_t)((const char *)memchr(value.base, '\r', value.len) - value.base);
    return value;
}

/* Reads libwebsockets' answer, and has libh2o send ours. */
static void on_answer(h2o_socket_t *up, const char *err)
{
    struct ws_wire *wire = up->data;
    char answer[1024];
    (void)err;
    struct http_call *http = wire->http;
    h2o_req_t *req = http->req;
    ssize_t n = recv(h2o_socket_get_fd(up), answer, sizeof(answer), 0);
    if (n == -1 && (errno == EAGAIN || errno == EINTR))
        return;
    struct span accept = find_accept((struct span){answer, n > 0 ? (size_t)n : 0});
    if (accept.len == 0) {
        fail_handshake(wire);
        return;
    }
    h2o_iovec_t copy = h2o_strdup(&req->pool, accept.base, accept.len);
    req->res.status = 101;
    req->res.reason = "Switching Protocols";
    http_reply_header(http, SPAN("upgrade"), SPAN("websocket"));
    http_reply_header(http, SPAN("sec-websocket-accept"), (struct span){copy.base, copy.len});
    if (wire->protocol.len != 0)
        http_reply_header(http, SPAN("sec-websocket-protocol"), wire->protocol);
    http_reply_common_headers(http);
    wire->session.limits = http->call.limits;
    http->call.limits = NULL;
    http->phase = HTTP_ENDED;
    http->call.record.status = 101;
    http->call.record.end = "upgraded";
    http->call.job = NULL;
    wire->http = NULL;
    wire->phase = WS_UPGRADING;
    wire->upgrading = h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn));
    h2o_socket_read_stop(up);
    h2o_http1_upgrade(req, NULL, 0, on_upgraded, wire);
}

static void on_upgraded(void *ctx, h2o_socket_t *client, size_t request_size)
{
    struct ws_wire *wire = ctx;
    struct ws_session *session = &wire->session;
    int size = SOCKET_BUFFER;
    if (client == NULL) {
        ws_bridge_end(wire);
        return;
    }
    h2o_buffer_consume(&client->input, request_size);
    client->data = wire;
    wire->client = client;
    wire->phase = WS_OPEN;
    wire->opened_us = wire->progress_us = clock_us();
    wire->ping_us = wire->opened_us + session->site->config->websocket.ping_us;
    connection_request_begins(client->on_close.data, false); /* it is never idle from now on */
    setsockopt(h2o_socket_get_fd(client), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    telemetry_websocket_opened(session, wire->series);
    ws_bridge_arm(wire);
    if ((!ws_queue_is_empty(&wire->queue) || wire->closing) && wire->wsi != NULL)
        lws_callback_on_writable(wire->wsi);
    ws_loop_touch(session->worker->ws_loop);
    session->type->opened(session);
    if (session->worker->drain_by_us != 0 && !wire->closing)
        ws_close(session, WS_CLOSE_GOING_AWAY, SPAN("the gateway is ending"));
    ws_tunnel_start(wire);
}

/* ---- time ---- */

void ws_bridge_arm(struct ws_wire *wire)
{
    const struct config *config = wire->session.site->config;
    uint64_t now = clock_us(), at = UINT64_MAX;
    if (wire->broken)
        at = now;
    else if (wire->phase == WS_HANDSHAKE || wire->phase == WS_UPGRADING)
        at = now + HANDSHAKE_US;
    else if (wire->closing)
        at = wire->close_by_us;
    else {
        if (config->websocket.ping_us != 0)
            at = wire->ping_us;
        if ((wire->writing || !ws_queue_is_empty(&wire->queue)) && wire->progress_us + config->send_timeout_us < at)
            at = wire->progress_us + config->send_timeout_us;
    }
    if (at != UINT64_MAX)
        deadline_arm(&wire->session.worker->deadlines, &wire->deadline, at);
}

void ws_bridge_break(struct ws_wire *wire)
{
    wire->broken = true;
    ws_bridge_arm(wire);
}

/* Whether a client that owes us room in its window has taken nothing for send_timeout. */
static bool is_stalled(struct ws_wire *wire, uint64_t now)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    if ((!wire->writing && ws_queue_is_empty(&wire->queue)) ||
        now < wire->progress_us + wire->session.site->config->send_timeout_us)
        return false;
    if (getsockopt(h2o_socket_get_fd(wire->client), IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        info.tcpi_bytes_acked == wire->acknowledged)
        return true;
    wire->acknowledged = info.tcpi_bytes_acked;
    wire->progress_us = now;
    return false;
}

/* Pings, and notices that nothing was heard for two of them. False if the session is over. */
static bool keep_alive(struct ws_wire *wire, uint64_t now)
{
    uint64_t every = wire->session.site->config->websocket.ping_us;
    if (every == 0 || now < wire->ping_us)
        return true;
    if (wire->guard.frames != wire->frames_heard)
        wire->unanswered = 0;
    wire->frames_heard = wire->guard.frames;
    if (wire->unanswered >= MISSED_PONGS_MAX && !wire->paused) {
        ws_bridge_end(wire);
        return false;
    }
    wire->unanswered++;
    wire->ping_us = now + every;
    ws_session_ping(wire);
    return true;
}

static void on_deadline(struct deadline *deadline)
{
    struct ws_wire *wire = H2O_STRUCT_FROM_MEMBER(struct ws_wire, deadline, deadline);
    uint64_t now = clock_us();
    if (wire->phase == WS_HANDSHAKE) {
        fail_handshake(wire);
        return;
    }
    if (wire->phase == WS_UPGRADING) {
        shutdown(wire->upgrading, SHUT_RDWR); /* it takes not even its 101: libh2o's write fails now */
        return;
    }
    if (wire->broken || wire->closing) {
        ws_bridge_end(wire);
        return;
    }
    if (is_stalled(wire, now)) {
        ws_session_fail(wire, WS_CLOSE_TRY_LATER, "the client reads too slowly");
        return;
    }
    if (keep_alive(wire, now))
        ws_bridge_arm(wire);
}

/* ---- the end ---- */

/* The code of the close that ended it: weir's, if weir began; else the client's. */
static unsigned final_code(const struct ws_wire *wire, struct span *reason)
{
    *reason = SPAN_NONE;
    if (wire->close_code != 0) {
        *reason = span_of(wire->close_reason);
        return wire->close_code;
    }
    if (!wire->guard.closed)
        return WS_CLOSE_ABNORMAL;
    *reason = span_of(wire->guard.reason);
    return wire->guard.close_code;
}

void ws_bridge_end(struct ws_wire *wire)
{
    struct ws_session *session = &wire->session;
    struct span reason;
    unsigned code = final_code(wire, &reason);
    wire->closing = true; /* what the type still sends is not sent */
    session->type->closed(session, code, reason);
    if (wire->opened_us != 0)
        telemetry_websocket_closed(session,
                                   &(struct telemetry_websocket){.code = code,
                                                                 .reason = reason,
                                                                 .by_client = wire->close_code == 0,
                                                                 .opened_us = wire->opened_us,
                                                                 .messages = {wire->messages_in, wire->messages_out},
                                                                 .bytes = {wire->bytes_in, wire->bytes_out}});
    destroy(wire);
}

void ws_sessions_drain(struct worker *worker)
{
    for (h2o_linklist_t *link = worker->ws_sessions.next; link != &worker->ws_sessions; link = link->next) {
        struct ws_session *session = &H2O_STRUCT_FROM_MEMBER(struct ws_wire, link, link)->session;
        if (session->type->drain != NULL)
            session->type->drain(session);
        else
            ws_close(session, WS_CLOSE_GOING_AWAY, SPAN("the gateway is ending"));
    }
}

void ws_sessions_close(struct worker *worker)
{
    for (h2o_linklist_t *link = worker->ws_sessions.next; link != &worker->ws_sessions; link = link->next)
        ws_close(&H2O_STRUCT_FROM_MEMBER(struct ws_wire, link, link)->session, WS_CLOSE_GOING_AWAY,
                 SPAN("the gateway is ending"));
}
