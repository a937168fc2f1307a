#include "backends/http_exchange.h"
#include "backends/http_body.h"
#include "backends/receive.h"
#include "backends/request_head.h"
#include "base/clock.h"
#include "base/recycle.h"
#include "base/strbuf.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

#define HEAD_USUAL ((size_t)2048) /* so many bytes are kept for the next request */
#define SEND_WHOLE_MAX 4096       /* bytes of a request that are copied to be sent in one piece */
#define STALE_US 1000000
#define INTERIM_MAX 20 /* 1xx heads before the answer proper */
/* Bounds what one read callback can bring (the kernel doubles it). */
#define RECEIVE_BUFFER (128 * 1024)
/* From so many open streams of a thread on, what a packet costs counts for more than what receive_stream may cost. */
#define STREAMS_MANY 64

struct http_exchange {
    struct exchange super;
    struct upstream *upstream;
    struct exchange_request request;
    struct exchange_callbacks callbacks;
    void *ctx;
    bool *gone; /* set when the exchange is freed: exchange_start is still on the stack */

    h2o_socketpool_connect_request_t *connecting;
    h2o_socket_t *sock;
    struct strbuf out; /* the request's head */
    char *out_memory;  /* of HEAD_USUAL bytes, if any */
    struct deadline deadline;
    struct backend_timeouts timeouts;
    uint64_t started_us;    /* for first_token and total */
    uint64_t connecting_us; /* for connect */
    uint64_t sent_us, resumed_us;

    struct stream *stream; /* NULL until the answer's head is there */
    struct http_body body;
    size_t head_seen;
    unsigned interim;

    bool connected, reused, retried, sent, answered, writing, write_failed, keep_alive, sse, paused, first_event;
};

/* In the order in which they fire. */
static void connect_to_backend(struct http_exchange *ex);
static void on_connect(h2o_socket_t *sock, const char *err, void *ctx);
static void on_handshake(h2o_socket_t *sock, const char *err);
static void send_request(struct http_exchange *ex);
static void on_written(h2o_socket_t *sock, const char *err);
static void on_read(h2o_socket_t *sock, const char *err);
static void read_head(struct http_exchange *ex);
static void read_body(struct http_exchange *ex);
static void on_deadline(struct deadline *deadline);
static void on_resume(void *ctx);
static void on_cancel(void *ctx);

static __thread unsigned streams_open;
static __thread struct recycle recycled, heads;

/* ---- ends ---- */

/* Lets go of the connection: into the pool if it may serve again. */
static void drop_connection(struct http_exchange *ex, bool reusable)
{
    if (ex->connecting != NULL) {
        h2o_socketpool_cancel_connect(ex->connecting);
        ex->connecting = NULL;
    }
    if (ex->sock == NULL)
        return;
    h2o_socket_t *sock = ex->sock;
    ex->sock = NULL;
    h2o_socket_dont_read(sock, 0);
    if (reusable && !ex->writing && !ex->paused && sock->input->size == 0) {
        upstream_keep_idle(ex->upstream, sock);
        return;
    }
    h2o_socket_read_stop(sock);
    /* A server that does not read must not hold up TLS's farewell, and a cancelled one is to notice at once. */
    if (sock->ssl != NULL)
        shutdown(h2o_socket_get_fd(sock), SHUT_RDWR);
    h2o_socket_close(sock);
}

static void free_head(struct http_exchange *ex)
{
    strbuf_dispose(&ex->out);
    if (ex->out_memory != NULL)
        recycle_give(&heads, ex->out_memory);
    ex->out_memory = NULL;
}

static void destroy(struct http_exchange *ex)
{
    drop_connection(ex, false);
    deadline_disarm(ex->upstream->deadlines, &ex->deadline);
    if (ex->sse)
        streams_open--;
    free_head(ex);
    if (ex->gone != NULL)
        *ex->gone = true;
    recycle_give(&recycled, ex);
}

/* The end after the head. */
static void leave(struct http_exchange *ex, enum stream_failure why)
{
    struct exchange_callbacks callbacks = ex->callbacks;
    struct stream *stream = ex->stream;
    void *ctx = ex->ctx;
    destroy(ex);
    if (callbacks.on_over != NULL)
        callbacks.on_over(ctx, why, stream);
}

static void fail(struct http_exchange *ex, enum stream_failure why, const char *message)
{
    struct stream *stream = ex->stream;
    if (stream != NULL) {
        leave(ex, why);
        stream_break(stream, why, message);
        return;
    }
    if (why == STREAM_RESET && ex->reused && !ex->retried && !ex->answered && clock_us() < ex->sent_us + STALE_US) {
        /* The server closed the idle connection just as it was used again. Later than that it may have been at work. */
        drop_connection(ex, false);
        ex->retried = true;
        ex->writing = false;
        connect_to_backend(ex);
        return;
    }
    struct exchange_callbacks callbacks = ex->callbacks;
    void *ctx = ex->ctx;
    bool sent = ex->sent;
    destroy(ex);
    callbacks.on_fail(ctx, why, message, sent);
}

static void complete(struct http_exchange *ex, bool reusable)
{
    struct stream *stream = ex->stream;
    drop_connection(ex, reusable);
    leave(ex, STREAM_NOT_FAILED);
    stream_end(stream);
}

static void on_cancel(void *ctx)
{
    fail(ctx, STREAM_CANCELLED, NULL);
}

static void cancel_before_head(struct exchange *exchange)
{
    destroy((struct http_exchange *)exchange);
}

/* ---- time ---- */

static uint64_t after(uint64_t from_us, uint64_t timeout_us)
{
    return timeout_us != 0 ? from_us + timeout_us : UINT64_MAX;
}

/* When the exchange fails next, and of what, if nothing happens until then. */
static uint64_t next_deadline(const struct http_exchange *ex, enum stream_failure *why)
{
    const struct backend_timeouts *timeouts = &ex->timeouts;
    uint64_t at = after(ex->started_us, timeouts->total), other;
    if (ex->request.deadline_us != 0 && ex->request.deadline_us < at)
        at = ex->request.deadline_us;
    *why = STREAM_TIMEOUT_TOTAL;
    if (!ex->connected) {
        other = after(ex->connecting_us, timeouts->connect);
        if (other < at)
            at = other, *why = STREAM_TIMEOUT_CONNECT;
    } else if (ex->request.wants_stream && !ex->first_event && (ex->stream == NULL || ex->sse)) {
        other = after(ex->started_us, timeouts->first_token);
        if (other < at)
            at = other, *why = STREAM_TIMEOUT_FIRST;
    } else if (ex->stream != NULL && ex->sse && !ex->paused) {
        uint64_t last = stream_facts(ex->stream)->last_event_us;
        other = after(last > ex->resumed_us ? last : ex->resumed_us, timeouts->idle);
        if (other < at)
            at = other, *why = STREAM_TIMEOUT_IDLE;
    }
    return at;
}

/* Called where the next deadline may have come closer; where it only moves away (at each event) it is looked at again
 * when the old one fires. */
static void arm(struct http_exchange *ex)
{
    enum stream_failure why;
    uint64_t at = next_deadline(ex, &why);
    if (at == UINT64_MAX)
        deadline_disarm(ex->upstream->deadlines, &ex->deadline);
    else
        deadline_arm(ex->upstream->deadlines, &ex->deadline, at);
}

static void on_deadline(struct deadline *deadline)
{
    struct http_exchange *ex = H2O_STRUCT_FROM_MEMBER(struct http_exchange, deadline, deadline);
    enum stream_failure why;
    if (next_deadline(ex, &why) > clock_us()) {
        arm(ex);
        return;
    }
    static const char *const messages[STREAM_FAILURES] = {
        [STREAM_TIMEOUT_CONNECT] = "no connection to the backend in time",
        [STREAM_TIMEOUT_FIRST] = "no first token from the backend in time",
        [STREAM_TIMEOUT_IDLE] = "the backend fell silent in the middle of the stream",
        [STREAM_TIMEOUT_TOTAL] = "the backend did not finish in time",
    };
    fail(ex, why, messages[why]);
}

/* ---- the request ---- */

struct exchange *http_exchange_start(struct upstream *upstream, const struct exchange_request *request,
                                     const struct exchange_callbacks *callbacks, void *ctx)
{
    bool gone = false;
    struct http_exchange *ex = recycle_take(&recycled, sizeof(*ex));
    *ex = (struct http_exchange){.super.cancel = cancel_before_head,
                                 .upstream = upstream,
                                 .request = *request,
                                 .callbacks = *callbacks,
                                 .ctx = ctx,
                                 .gone = &gone,
                                 .deadline.cb = on_deadline,
                                 .timeouts =
                                     request->timeouts != NULL ? *request->timeouts : upstream->settings->timeouts,
                                 .started_us = clock_us()};
    ex->out_memory = recycle_take(&heads, HEAD_USUAL);
    strbuf_init_lent(&ex->out, REQUEST_HEAD_MAX, ex->out_memory, HEAD_USUAL);
    if (!request_head_write(&ex->out, upstream->settings, request))
        fail(ex, STREAM_PROTOCOL, "the request cannot be sent to the backend as it is");
    else
        connect_to_backend(ex);
    if (gone)
        return NULL;
    ex->gone = NULL;
    return &ex->super;
}

static void connect_to_backend(struct http_exchange *ex)
{
    struct upstream *upstream = ex->upstream;
    ex->connected = false;
    /* After a stale connection the others may be as stale: a fresh one settles it. */
    ex->reused = !ex->retried && (ex->sock = upstream_take_idle(upstream)) != NULL;
    if (ex->reused) {
        ex->sock->data = ex;
        send_request(ex);
        return;
    }
    bool gone = false, *outer = ex->gone;
    ex->gone = &gone;
    ex->connecting_us = clock_us();
    h2o_socketpool_connect(&ex->connecting, &upstream->pool, upstream->ctx->loop,
                           &upstream->ctx->receivers.hostinfo_getaddr, on_connect, ex);
    if (gone) {
        if (outer != NULL)
            *outer = true;
        return;
    }
    ex->gone = outer;
    arm(ex);
}

static void on_connect(h2o_socket_t *sock, const char *err, void *ctx)
{
    struct http_exchange *ex = ctx;
    ex->connecting = NULL;
    if (sock == NULL) {
        fail(ex, STREAM_CONNECT, err);
        return;
    }
    ex->sock = sock;
    sock->data = ex;
    sock->on_close.cb = NULL; /* libh2o's pool counts what it made, and may be gone when the connection closes */
    setsockopt(h2o_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUF, &(int){RECEIVE_BUFFER}, sizeof(int));
    if (ex->upstream->tls != NULL) {
        /* An address is no name to indicate (RFC 6066 §3); the empty string makes libh2o leave it out. */
        const struct backend_url *url = &ex->upstream->settings->url;
        h2o_socket_ssl_handshake(sock, ex->upstream->tls, url->host_is_ip ? "" : url->host, on_handshake);
        return;
    }
    send_request(ex);
}

static void on_handshake(h2o_socket_t *sock, const char *err)
{
    struct http_exchange *ex = sock->data;
    /* libh2o's own check of the name knows no addresses and not every version; OpenSSL has done it already. */
    if (err != NULL && err != h2o_socket_error_ssl_cert_name_mismatch) {
        char message[256];
        snprintf(message, sizeof(message), "TLS with the backend failed: %s", err);
        fail(ex, STREAM_CONNECT, message);
        return;
    }
    send_request(ex);
}

/* How much of a request in clear text the socket takes at once. Most requests are small: one send(2) of the body behind
 * its head costs less than writev(2) of both and libh2o's round for the callback that says that they were written. */
static size_t send_at_once(struct http_exchange *ex, const h2o_iovec_t *out, size_t count, size_t length)
{
    char whole[SEND_WHOLE_MAX];
    const char *bytes = out[0].base;
    if (ex->sock->ssl != NULL || length > sizeof(whole))
        return 0;
    if (count != 1) {
        char *at = whole;
        for (size_t i = 0; i < count; i++)
            at = mempcpy(at, out[i].base, out[i].len);
        bytes = whole;
    }
    ssize_t sent = send(h2o_socket_get_fd(ex->sock), bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0; /* libh2o will see an error, too */
}

static void send_request(struct http_exchange *ex)
{
    h2o_iovec_t out[1 + EXCHANGE_BODY_PIECES], *rest = out;
    size_t count = 0, length = ex->out.len;
    out[count++] = h2o_iovec_init(ex->out.base, ex->out.len);
    for (size_t i = 0; i < EXCHANGE_BODY_PIECES; i++)
        if (ex->request.body[i].len != 0) {
            out[count++] = h2o_iovec_init(ex->request.body[i].base, ex->request.body[i].len);
            length += ex->request.body[i].len;
        }
    ex->connected = ex->sent = true;
    ex->sent_us = clock_us();
    arm(ex);
    size_t sent = send_at_once(ex, out, count, length);
    ex->writing = sent != length;
    if (ex->writing) {
        for (; sent >= rest->len; rest++, count--)
            sent -= rest->len;
        rest->base += sent;
        rest->len -= sent;
        h2o_socket_write(ex->sock, rest, count, on_written);
    }
    h2o_socket_dont_read(ex->sock, ex->sock->ssl == NULL);
    h2o_socket_read_start(ex->sock, on_read); /* a server may answer before it has read everything */
}

static void on_written(h2o_socket_t *sock, const char *err)
{
    struct http_exchange *ex = sock->data;
    ex->writing = false;
    /* After an error the connection is unfit for more, but an answer may have come before it: reading tells. */
    if (err != NULL)
        ex->write_failed = true;
}

/* ---- the answer ---- */

static void on_read(h2o_socket_t *sock, const char *err)
{
    struct http_exchange *ex = sock->data;
    if (sock->ssl == NULL)
        err = receive(sock);
    if (sock->bytes_read != 0 && sock->input->size != 0) {
        ex->answered = true;
        if (ex->stream == NULL)
            read_head(ex);
        else
            read_body(ex);
        return; /* an error that came with bytes comes again without */
    }
    if (err == NULL)
        return;
    if (ex->stream != NULL && ex->body.framing == HTTP_BODY_UNTIL_CLOSE && err == h2o_socket_error_closed)
        complete(ex, false);
    else if (ex->stream != NULL)
        fail(ex, STREAM_RESET, "the backend closed the connection before its answer was complete");
    else
        fail(ex, STREAM_RESET, "the backend closed the connection without an answer");
}

static void begin_body(struct http_exchange *ex, const struct http_head *head)
{
    struct stream_settings settings = {
        .dialect = dialect_get(ex->request.dialect),
        .sse = head->sse,
        .json = head->json && head->status == 200,
        .hide_usage = ex->request.hide_usage,
    };
    struct stream_producer producer = {.resume = on_resume, .cancel = on_cancel, .ctx = ex};
    ex->stream = stream_create(&settings, &producer);
    http_body_begin(&ex->body, head->framing, head->content_length);
    ex->keep_alive = head->keep_alive && !ex->write_failed;
    ex->sse = head->sse;
    struct exchange_head public = {
        .status = head->status,
        .headers = head->headers,
        .header_count = head->header_count,
        .content_length = head->content_length,
        .sse = head->sse,
    };
    if (!ex->writing)
        free_head(ex); /* a stream may be open for long */
    if (head->sse && ++streams_open >= STREAMS_MANY)
        receive_stream(ex->sock);
    ex->callbacks.on_head(ex->ctx, &public, ex->stream);
    h2o_buffer_consume(&ex->sock->input, head->length);
    if (!stream_is_wanted(ex->stream))
        fail(ex, STREAM_CANCELLED, NULL);
    else if (ex->body.framing == HTTP_BODY_NONE)
        complete(ex, ex->keep_alive);
    else if (ex->sock->input->size != 0)
        read_body(ex);
}

static void read_head(struct http_exchange *ex)
{
    struct http_head head;
    bool to_head = span_eq(ex->request.method, SPAN("HEAD"));
    h2o_buffer_t *input;
    while ((input = ex->sock->input)->size != 0) {
        switch (http_head_parse(input->bytes, input->size, ex->head_seen, to_head, &head)) {
        case HTTP_HEAD_INCOMPLETE:
            ex->head_seen = input->size;
            return;
        case HTTP_HEAD_BAD:
            fail(ex, STREAM_PROTOCOL, head.problem);
            return;
        case HTTP_HEAD_INTERIM:
            if (++ex->interim > INTERIM_MAX) {
                fail(ex, STREAM_PROTOCOL, "the backend sends interim answers without end");
                return;
            }
            ex->head_seen = 0;
            h2o_buffer_consume(&ex->sock->input, head.length);
            break;
        case HTTP_HEAD_FINAL:
            begin_body(ex, &head);
            return;
        }
    }
}

static void read_body(struct http_exchange *ex)
{
    bool done = false, excess = false;
    enum stream_demand demand = STREAM_GO_ON;
    h2o_buffer_t *input = ex->sock->input;
    const char *problem = http_body_unframe(&ex->body, input->bytes, &input->size, &done, &excess);
    if (input->size == 0) {
        /* Nothing but framing: do not sit on an empty buffer until the next event. */
        h2o_buffer_dispose(&ex->sock->input);
        h2o_buffer_init(&ex->sock->input, &h2o_socket_buffer_prototype);
    }
    if (done && problem == NULL) {
        stream_append_last(ex->stream, &ex->sock->input);
        complete(ex, ex->keep_alive && !excess);
        return;
    }
    demand = stream_append_buffer(ex->stream, &ex->sock->input);
    if (demand == STREAM_UNWANTED) {
        fail(ex, STREAM_CANCELLED, NULL);
    } else if (problem != NULL) {
        fail(ex, STREAM_PROTOCOL, problem);
    } else if (demand == STREAM_FULL) {
        fail(ex, STREAM_OVERFLOW, "more of the answer waits than may be held");
    } else {
        if (demand == STREAM_PAUSE) {
            ex->paused = true;
            h2o_socket_read_stop(ex->sock);
        }
        if (!ex->first_event && ex->sse && stream_facts(ex->stream)->events != 0) {
            ex->first_event = true;
            arm(ex);
        }
    }
}

static void on_resume(void *ctx)
{
    struct http_exchange *ex = ctx;
    ex->paused = false;
    ex->resumed_us = clock_us();
    arm(ex);
    h2o_socket_read_start(ex->sock, on_read);
}
