#include "gateway/ws_backend.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "gateway/worker.h"
#include "gateway/ws_loop.h"
#include "gateway/ws_queue.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

#define CLOSE_US 2000000 /* for a close to come about */
#define MISSED_PONGS_MAX 2
#define PROTOCOL_MAX 256

enum phase { STARTING, RESOLVING, CONNECTING, OPEN, CLOSING };

struct ws_backend {
    struct worker *worker;
    struct upstream *upstream;                    /* lives as long as its owner wants to hear of it */
    const struct ws_backend_callbacks *callbacks; /* NULL: nobody wants to hear of it any more */
    void *ctx;
    enum phase phase;
    h2o_hostinfo_getaddr_req_t *resolving;
    struct lws_vhost *vhost; /* NULL: not yet */
    struct lws *wsi;
    struct deadline deadline; /* the next of: connect, ping, close, what is not sent */
    uint64_t connect_us, ping_us;
    unsigned unanswered; /* pings */
    int status;          /* of the answer to the handshake; 0: none came */
    bool in_connect, broken, paused, ping_due, close_issued;
    struct ws_queue queue;
    struct utf8_check utf8;
    unsigned close_code;
    char close_reason[WS_REASON_MAX + 1];
    char protocol[PROTOCOL_MAX];
    char *target, *protocols;
    struct span headers;
    char memory[];
};

/* In the order in which they fire. */
static void start(struct ws_backend *backend);
static void on_resolved(h2o_hostinfo_getaddr_req_t *req, const char *error, struct addrinfo *found, void *ctx);
static void on_opened(struct ws_backend *backend);
static void on_receive(struct ws_backend *backend, struct lws *wsi, struct span bytes);
static void on_writable(struct ws_backend *backend);
static void on_peer_close(struct ws_backend *backend, const unsigned char *payload, size_t len);
static void on_gone(struct ws_backend *backend, const char *why);
static void on_deadline(struct deadline *deadline);

/* ---- ends ---- */

/* Frees it, and ends libwebsockets' connection if there still is one. */
static void destroy(struct ws_backend *backend)
{
    deadline_disarm(&backend->worker->deadlines, &backend->deadline);
    if (backend->resolving != NULL)
        h2o_hostinfo_getaddr_cancel(backend->resolving);
    if (backend->wsi != NULL) {
        lws_set_wsi_user(backend->wsi, NULL);
        /* Never from within a callback of this connection's. Asked to do it later, libwebsockets would not wake up. */
        lws_set_timeout(backend->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_SYNC);
        ws_loop_touch(backend->worker->ws_loop);
    }
    if (backend->vhost != NULL)
        ws_loop_client_done(backend->worker->ws_loop, backend->vhost);
    ws_queue_drop(&backend->queue);
    free(backend);
}

/* Tells the owner how it ended, if there still is one. */
static void tell_end(struct ws_backend *backend, enum stream_failure why, const char *message)
{
    const struct ws_backend_callbacks *callbacks = backend->callbacks;
    backend->callbacks = NULL;
    if (callbacks == NULL)
        return;
    if (backend->phase < OPEN)
        callbacks->failed(backend->ctx, why, backend->status, message);
    else
        callbacks->closed(backend->ctx, WS_CLOSE_ABNORMAL, span_of(message));
}

static void fail(struct ws_backend *backend, enum stream_failure why, const char *message)
{
    tell_end(backend, why, message);
    destroy(backend);
}

/* Ends it from within a function of its owner's: the owner hears of it from the loop. */
static void break_soon(struct ws_backend *backend)
{
    backend->broken = true;
    deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us());
}

/* ---- connecting ---- */

static void begin(struct ws_backend *backend, const char *address, int port)
{
    const struct backend_settings *settings = upstream_settings(backend->upstream);
    SSL_CTX *tls = upstream_tls(backend->upstream);
    backend->vhost = ws_loop_client(backend->worker, tls);
    struct ws_loop *loop = backend->worker->ws_loop;
    if (backend->vhost == NULL) {
        fail(backend, STREAM_OVERFLOW, "libwebsockets cannot start");
        return;
    }
    int flags = LCCSCF_HTTP_NO_FOLLOW_REDIRECT;
    if (tls != NULL)
        flags |= LCCSCF_USE_SSL;
    if (tls != NULL && settings->url.host_is_ip)
        flags |= LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK; /* of its own, which stumbles over IPv6: the context has one */
    if (tls != NULL && !settings->tls.verify)
        flags |= LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK | LCCSCF_ALLOW_SELFSIGNED | LCCSCF_ALLOW_EXPIRED |
                 LCCSCF_ALLOW_INSECURE;
    struct lws_client_connect_info info = {
        .context = ws_loop_context(loop),
        .vhost = backend->vhost,
        .address = address,
        .port = port,
        .ssl_connection = flags,
        .path = backend->target,
        .host = settings->url.authority,
        .protocol = backend->protocols,
        .local_protocol_name = "weir-backend",
        .ietf_version_or_minus_one = -1,
        .userdata = backend,
        .pwsi = &backend->wsi,
        .alpn = "http/1.1",
    };
    backend->phase = CONNECTING;
    backend->in_connect = true;
    struct lws *wsi = lws_client_connect_via_info(&info);
    backend->in_connect = false;
    ws_loop_touch(loop);
    if (wsi == NULL) {
        backend->wsi = NULL; /* it is gone, with no callback */
        fail(backend, STREAM_CONNECT, "no connection to the backend");
    }
}

static void on_resolved(h2o_hostinfo_getaddr_req_t *req, const char *error, struct addrinfo *found, void *ctx)
{
    struct ws_backend *backend = ctx;
    char address[INET6_ADDRSTRLEN + 1];
    (void)req;
    backend->resolving = NULL;
    if (error != NULL) {
        fail(backend, STREAM_CONNECT, "the backend's name cannot be resolved");
        return;
    }
    struct addrinfo *one = h2o_hostinfo_select_one(found);
    if (getnameinfo(one->ai_addr, one->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST) != 0) {
        fail(backend, STREAM_CONNECT, "the backend's address cannot be used");
        return;
    }
    begin(backend, address, upstream_settings(backend->upstream)->url.port);
}

/* Connects, or finds out where to. */
static void find_address(struct ws_backend *backend)
{
    const struct backend_url *url = &upstream_settings(backend->upstream)->url;
    char text[120], port[8];
    if (strlen(url->authority) > WS_BACKEND_HOST_MAX) {
        fail(backend, STREAM_OVERFLOW, "the backend's name is too long for a WebSocket");
    } else if (url->unix_path != NULL) {
        snprintf(text, sizeof(text), "+%s", url->unix_path);
        begin(backend, text, 0);
    } else if (url->host_is_ip) {
        begin(backend, url->host, url->port);
    } else {
        snprintf(port, sizeof(port), "%u", url->port);
        backend->phase = RESOLVING;
        backend->resolving = h2o_hostinfo_getaddr(&backend->worker->ctx.receivers.hostinfo_getaddr,
                                                  h2o_iovec_init(url->host, strlen(url->host)),
                                                  h2o_iovec_init(port, strlen(port)), AF_UNSPEC, SOCK_STREAM,
                                                  IPPROTO_TCP, AI_ADDRCONFIG | AI_NUMERICSERV, on_resolved, backend);
    }
}

struct ws_backend *ws_backend_connect(struct worker *worker, struct upstream *upstream,
                                      const struct ws_backend_request *request,
                                      const struct ws_backend_callbacks *callbacks, void *ctx)
{
    size_t target = strlen(request->target) + 1;
    size_t protocols = request->protocols != NULL ? strlen(request->protocols) + 1 : 0;
    struct ws_backend *backend = h2o_mem_alloc(sizeof(*backend) + target + protocols + request->headers.len);
    memset(backend, 0, sizeof(*backend));
    backend->worker = worker;
    backend->upstream = upstream;
    backend->ctx = ctx;
    ws_queue_init(&backend->queue, WS_BACKEND_QUEUE_HIGH);
    backend->connect_us = request->connect_us;
    backend->ping_us = request->ping_us;
    backend->target = memcpy(backend->memory, request->target, target);
    if (protocols != 0)
        backend->protocols = memcpy(backend->memory + target, request->protocols, protocols);
    char *headers = backend->memory + target + protocols;
    if (request->headers.len != 0)
        memcpy(headers, request->headers.base, request->headers.len);
    backend->headers = (struct span){headers, request->headers.len};
    backend->callbacks = callbacks;
    backend->deadline.cb = on_deadline;
    deadline_arm(&worker->deadlines, &backend->deadline, clock_us()); /* the owner has the pointer first */
    return backend;
}

static void start(struct ws_backend *backend)
{
    if (backend->connect_us != 0)
        deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us() + backend->connect_us);
    find_address(backend);
}

void ws_backend_cancel(struct ws_backend *backend)
{
    backend->callbacks = NULL;
    destroy(backend);
}

/* ---- libwebsockets' events ---- */

/* Adds weir's own lines to the request. */
static int add_headers(struct ws_backend *backend, unsigned char **at, size_t room)
{
    if (backend->headers.len > room)
        return -1;
    if (backend->headers.len != 0)
        memcpy(*at, backend->headers.base, backend->headers.len);
    *at += backend->headers.len;
    return 0;
}

int ws_backend_on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct ws_backend *backend = user;
    switch (reason) { /* of some others `user` is something else */
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
    case LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP:
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH:
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
    case LWS_CALLBACK_CLIENT_RECEIVE:
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
    case LWS_CALLBACK_CLIENT_WRITEABLE:
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_CLOSED_CLIENT_HTTP:
    case LWS_CALLBACK_WSI_DESTROY:
        break;
    default:
        return 0;
    }
    if (backend == NULL || backend->in_connect)
        return 0; /* nobody's any more; or ws_backend's own begin() sees to it */
    if (reason == LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER)
        return add_headers(backend, in, len);
    if (reason == LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP)
        backend->status = (int)lws_http_client_http_response(wsi);
    else if (reason == LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH)
        lws_hdr_copy(wsi, backend->protocol, sizeof(backend->protocol), WSI_TOKEN_PROTOCOL);
    else if (reason == LWS_CALLBACK_CLIENT_ESTABLISHED)
        on_opened(backend);
    else if (reason == LWS_CALLBACK_CLIENT_RECEIVE)
        on_receive(backend, wsi, (struct span){in, len});
    else if (reason == LWS_CALLBACK_CLIENT_RECEIVE_PONG)
        backend->unanswered = 0;
    else if (reason == LWS_CALLBACK_CLIENT_WRITEABLE)
        on_writable(backend);
    else if (reason == LWS_CALLBACK_WS_PEER_INITIATED_CLOSE)
        on_peer_close(backend, in, len);
    else
        on_gone(backend, reason == LWS_CALLBACK_CLIENT_CONNECTION_ERROR ? in : NULL);
    return 0;
}

static void on_opened(struct ws_backend *backend)
{
    backend->phase = OPEN;
    deadline_disarm(&backend->worker->deadlines, &backend->deadline);
    if (backend->ping_us != 0)
        deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us() + backend->ping_us);
    backend->callbacks->opened(backend->ctx, span_of(backend->protocol));
}

/* libwebsockets' connection is gone, or about to go. */
static void on_gone(struct ws_backend *backend, const char *why)
{
    char message[120];
    enum stream_failure failure = backend->status != 0 ? STREAM_PROTOCOL : STREAM_CONNECT;
    lws_set_wsi_user(backend->wsi, NULL);
    backend->wsi = NULL;
    snprintf(message, sizeof(message), "%.100s", why != NULL ? why : "the backend closed the connection");
    fail(backend, failure, message);
}

/* ---- from the backend ---- */

static void on_receive(struct ws_backend *backend, struct lws *wsi, struct span bytes)
{
    struct ws_piece piece = {.bytes = bytes,
                             .binary = lws_frame_is_binary(wsi) != 0,
                             .first = lws_is_first_fragment(wsi) != 0,
                             .last = lws_is_final_fragment(wsi) != 0};
    backend->unanswered = 0;
    if (backend->callbacks == NULL || backend->broken)
        return;
    if (!piece.binary && (!utf8_feed(&backend->utf8, bytes) || (piece.last && !utf8_complete(&backend->utf8)))) {
        const struct ws_backend_callbacks *callbacks = backend->callbacks;
        void *ctx = backend->ctx;
        ws_backend_close(backend, WS_CLOSE_NOT_UTF8, SPAN("text is not UTF-8"));
        callbacks->closed(ctx, WS_CLOSE_ABNORMAL, SPAN("the backend sent text that is not UTF-8"));
        return;
    }
    /* Fragments of nothing say nothing. */
    if (bytes.len != 0 || piece.first || piece.last)
        backend->callbacks->message(backend->ctx, &piece);
}

static void on_peer_close(struct ws_backend *backend, const unsigned char *payload, size_t len)
{
    const struct ws_backend_callbacks *callbacks = backend->callbacks;
    struct utf8_check check = {0};
    unsigned code = len >= 2 ? (unsigned)payload[0] << 8 | payload[1] : WS_CLOSE_NO_STATUS;
    struct span reason = len > 2 ? (struct span){(const char *)payload + 2, len - 2} : SPAN_NONE;
    if (!utf8_feed(&check, reason) || !utf8_complete(&check))
        reason = SPAN_NONE;
    backend->callbacks = NULL;
    backend->phase = CLOSING;
    backend->close_issued = true; /* libwebsockets answers by itself */
    ws_queue_drop(&backend->queue);
    deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us() + CLOSE_US);
    if (callbacks != NULL)
        callbacks->closed(backend->ctx, code, reason);
}

void ws_backend_pause(struct ws_backend *backend)
{
    backend->paused = true;
    if (backend->wsi != NULL)
        lws_rx_flow_control(backend->wsi, 0);
}

void ws_backend_resume(struct ws_backend *backend)
{
    backend->paused = false;
    backend->unanswered = 0;
    if (backend->wsi == NULL)
        return;
    lws_rx_flow_control(backend->wsi, 1);
    ws_loop_touch(backend->worker->ws_loop);
}

/* ---- to the backend ---- */

static void ask_for_writable(struct ws_backend *backend)
{
    if (backend->wsi == NULL)
        return;
    lws_callback_on_writable(backend->wsi);
    ws_loop_touch(backend->worker->ws_loop);
}

enum ws_sent ws_backend_send(struct ws_backend *backend, enum ws_kind kind, struct span bytes)
{
    if (backend->callbacks == NULL || backend->phase != OPEN || backend->broken)
        return WS_CLOSED;
    if (ws_queue_is_empty(&backend->queue) && LWS_PRE + bytes.len <= WS_SCRATCH &&
        !lws_partial_buffered(backend->wsi)) {
        unsigned char *scratch = ws_loop_scratch(backend->worker->ws_loop);
        ws_queue_gather(scratch, &bytes, 1);
        if (ws_queue_write(backend->wsi, kind, scratch, bytes.len))
            return WS_SENT;
        break_soon(backend);
        return WS_CLOSED;
    }
    if (backend->queue.bytes + bytes.len > WS_BACKEND_QUEUE_MAX) {
        break_soon(backend);
        return WS_CLOSED;
    }
    if (ws_queue_is_empty(&backend->queue))
        ask_for_writable(backend);
    ws_queue_add(&backend->queue, kind, &bytes, 1, bytes.len);
    return backend->queue.is_full ? WS_FULL : WS_SENT;
}

static void on_writable(struct ws_backend *backend)
{
    unsigned char nothing[LWS_PRE];
    if (backend->broken || backend->close_issued)
        return;
    if (!ws_queue_flush(&backend->queue, backend->wsi, NULL, NULL)) {
        break_soon(backend);
        return;
    }
    if (!ws_queue_is_empty(&backend->queue) || lws_partial_buffered(backend->wsi)) {
        lws_callback_on_writable(backend->wsi);
    } else if (backend->phase == CLOSING) {
        backend->close_issued = true;
        lws_close_reason(backend->wsi, (enum lws_close_status)backend->close_code,
                         (unsigned char *)backend->close_reason, strlen(backend->close_reason));
        lws_close_free_wsi(backend->wsi, LWS_CLOSE_STATUS_NOSTATUS, "weir");
        return;
    } else if (backend->ping_due) {
        backend->ping_due = false;
        if (lws_write(backend->wsi, nothing + LWS_PRE, 0, LWS_WRITE_PING) < 0) {
            break_soon(backend);
            return;
        }
    }
    if (ws_queue_has_drained(&backend->queue) && backend->callbacks != NULL)
        backend->callbacks->writable(backend->ctx);
}

/* ---- time ---- */

static void keep_alive(struct ws_backend *backend)
{
    if (backend->unanswered >= MISSED_PONGS_MAX && !backend->paused) {
        fail(backend, STREAM_TIMEOUT_IDLE, "the backend answers no pings");
        return;
    }
    backend->unanswered++;
    backend->ping_due = true;
    ask_for_writable(backend);
    deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us() + backend->ping_us);
}

static void on_deadline(struct deadline *deadline)
{
    struct ws_backend *backend = H2O_STRUCT_FROM_MEMBER(struct ws_backend, deadline, deadline);
    if (backend->broken)
        fail(backend, STREAM_RESET, "the connection to the backend broke");
    else if (backend->phase == STARTING)
        start(backend);
    else if (backend->phase < OPEN)
        fail(backend, STREAM_TIMEOUT_CONNECT, "no connection to the backend in time");
    else if (backend->phase == OPEN)
        keep_alive(backend);
    else
        destroy(backend);
}

void ws_backend_close(struct ws_backend *backend, unsigned code, struct span reason)
{
    backend->callbacks = NULL;
    backend->phase = CLOSING;
    backend->close_code = code;
    reason = utf8_cut(reason, WS_REASON_MAX);
    if (reason.len != 0)
        memcpy(backend->close_reason, reason.base, reason.len);
    backend->close_reason[reason.len] = '\0';
    deadline_arm(&backend->worker->deadlines, &backend->deadline, clock_us() + CLOSE_US);
    ws_backend_resume(backend); /* or the answer to the close would not be read */
    ask_for_writable(backend);
}
