/* How the model-server fake answers: the head, then the body, paced, cut or mangled as the request's behaviour says.
 * advance is the state machine; every function that may close the connection returns false once it is gone and freed.
 */
#ifndef WEIR_TESTS_FAKE_ANSWER_H
#define WEIR_TESTS_FAKE_ANSWER_H

#include "fake_conn.h"

#define EVENTS_PER_TURN 64 /* unpaced events that one connection may send before others get their turn */
#define FLOOD_BLOCK 65536

static bool advance(struct conn *conn);
static bool send_head(struct conn *conn);
static bool finish(struct conn *conn);
static bool send_event(struct conn *conn);

/* From the command line. */
static struct {
    struct behave behave;
    const char *models;
    int send_buffer;
    SSL_CTX *tls;
} settings = {.models = "fake-1"};

/* The last request that was not about the fake itself. */
static struct {
    char head[32768], body[65536], transport[300];
    size_t head_len, body_len; /* body_len: all of it, even if only its digest was kept */
    unsigned char digest[32];
} last;

/* Requests that come at the same time get parts far from each other: multiples of the golden ratio, modulo 1. */
static uint64_t part_of_spread(const struct conn *conn)
{
    uint64_t part = (stats.requests * 2654435769u) & 0xffffffff;
    return part * ((uint64_t)conn->behave.spread_ms * 1000) >> 32;
}

/* Goes on with the answer as far as time and the socket allow. False: gone and freed. */
static bool advance(struct conn *conn)
{
    static const char interim[] = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
    static const char filler[] = "x-filler: 0123456789012345678901234567890123456789012345678901\r\n";
    for (int turn = 0; conn->out_len == 0 && conn->timer_index == 0; turn++) {
        if (turn == EVENTS_PER_TURN) {
            timer_arm(conn, now_us());
            return true;
        }
        switch (conn->phase) {
        case DELAYING:
            if (conn->behave.drop) {
                conn_close(conn, conn->behave.drop == 2);
                return false;
            }
            conn->phase = conn->interim_left > 0 || conn->behave.interim_forever ? INTERIM : OPENING;
            if (conn->phase == OPENING && !send_head(conn))
                return false;
            break;
        case INTERIM:
            if (!conn_send(conn, interim, sizeof(interim) - 1))
                return false;
            if (conn->behave.interim_forever)
                timer_arm(conn, now_us() + 1000);
            else if (--conn->interim_left == 0 && (conn->phase = OPENING, !send_head(conn)))
                return false;
            break;
        case HEADING:
            if (!conn_send(conn, filler, sizeof(filler) - 1))
                return false;
            break;
        case OPENING:
            conn->phase = STREAMING;
            conn->late_us = part_of_spread(conn);
            conn->due_us = now_us() + (uint64_t)conn->behave.first_ms * 1000 + conn->late_us;
            if (conn->behave.first_ms > 0 || conn->late_us != 0)
                timer_arm(conn, conn->due_us);
            break;
        case STREAMING:
            if (!send_event(conn))
                return false;
            break;
        case CLOSING:
            if (conn->behave.early == 1) {
                shutdown(conn->fd, SHUT_WR);
                conn->phase = LINGERING;
                return true;
            }
            conn_close(conn, false);
            return false;
        case RESETTING:
            conn_close(conn, true);
            return false;
        case READING:
        case STALLED:
        case LINGERING:
            return true;
        }
    }
    return true;
}

/* Describes the last request as JSON. False: its head was too long to be kept. */
static bool describe_last(struct text *out)
{
    struct request request;
    struct view body = {last.body_len <= sizeof(last.body) ? last.body : NULL, last.body_len};
    if (last.head_len == 0 || request_parse(&request, last.head, last.head_len) != 1)
        return false;
    if (body.base != NULL)
        SHA256((unsigned char *)last.body, last.body_len, last.digest);
    request_describe(&request, body, last.digest, last.transport, out);
    return true;
}

/* The body of an answer that is not streamed. */
static void plain_body(struct conn *conn, struct text *body)
{
    bool refuses = conn->behave.status != 0 && conn->behave.status != 200;
    if (refuses || conn->behave.error_event >= 0) {
        char json[200];
        long status = refuses ? conn->behave.status : 500; /* some tell of it in a 200 */
        snprintf(json, sizeof(json),
                 "{\"error\":{\"message\":\"fake answers "
                 "%ld\",\"type\":\"fake_error\",\"param\":null,\"code\":\"fake_%ld\"}}",
                 status, status);
        text_puts(body, json);
    } else if (conn->dialect == MODELS) {
        char names[256], *save, *name, *next = names;
        snprintf(names, sizeof(names), "%s", settings.models);
        text_puts(body, "{\"object\":\"list\",\"data\":[");
        for (; (name = strtok_r(next, ",", &save)) != NULL; next = NULL) {
            text_puts(body, next != NULL ? "{\"id\":\"" : ",{\"id\":\"");
            text_puts(body, name);
            text_puts(body, "\",\"object\":\"model\",\"created\":" CREATED ",\"owned_by\":\"fake\"}");
        }
        text_puts(body, "]}");
    } else if (conn->dialect == ECHO) {
        if (conn->echo.len != 0)
            text_add(body, conn->echo.base, conn->echo.len);
    } else {
        dialect_json(conn->dialect, conn->behave.size, conn->base64, body);
    }
}

/* All of a streamed body, where its length must be announced. */
static void whole_stream(struct conn *conn, struct text *body)
{
    dialect_opening(conn->dialect, newline_of(&conn->behave), body);
    for (long i = 1; i <= conn->behave.events; i++) {
        template_patch(conn->template, i);
        text_add(body, conn->template->bytes + conn->template->event, conn->template->event_len);
    }
    dialect_closing(conn->dialect, newline_of(&conn->behave), conn->behave.events, conn->usage, body);
}

static const char *reason_of(long status)
{
    return status == 200 ? "OK" : status == 429 ? "Too Many Requests" : status >= 500 ? "Trouble" : "Fake";
}

/* The lines that say how long the body is. */
static void framing(struct conn *conn, size_t length, struct text *head)
{
    char line[80];
    const struct behave *behave = &conn->behave;
    bool chunked = conn->stream ? !behave->length_body && !behave->close_body : behave->chunked != 0;
    if (behave->gzip_te) {
        text_puts(head, "transfer-encoding: gzip, chunked\r\n");
    } else if (behave->bad_length == 1) {
        text_puts(head, "content-length: abc\r\n");
    } else if (behave->bad_length == 2) {
        text_puts(head, "content-length: 5\r\ncontent-length: 7\r\n");
    } else if (behave->bad_length == 3) {
        text_puts(head, "content-length: 5\r\ntransfer-encoding: chunked\r\n");
    } else if (chunked || behave->half_chunk || behave->bad_chunk) {
        text_puts(head, "transfer-encoding: chunked\r\n");
    } else if (!behave->close_body) {
        snprintf(line, sizeof(line), "content-length: %zu\r\n", length);
        text_puts(head, line);
    }
    if (behave->close_body || !conn->keep)
        text_puts(head, "connection: close\r\n");
}

static void head_lines(struct conn *conn, long status, size_t length, struct text *head)
{
    char line[160];
    snprintf(line, sizeof(line),
             "HTTP/1.1 %ld %s\r\ncontent-type: %s\r\nx-request-id: fake-%lu\r\nopenai-processing-ms: 7\r\n", status,
             reason_of(status), conn->stream ? "text/event-stream; charset=utf-8" : "application/json", stats.requests);
    text_puts(head, line);
    if (conn->behave.retry_after >= 0) {
        snprintf(line, sizeof(line), "retry-after: %ld\r\n", conn->behave.retry_after);
        text_puts(head, line);
    }
    if (conn->behave.setcookie)
        text_puts(head, "set-cookie: session=fake; Path=/\r\nx-ratelimit-limit-requests: 60\r\n");
    framing(conn, length, head);
    text_puts(head, "\r\n");
}

/* The body of a plain answer behind its head, chunked or cut short where the behaviour says so. */
static void append_plain(struct conn *conn, const struct text *body, struct text *out)
{
    char size[24];
    const struct behave *behave = &conn->behave;
    size_t len = behave->short_length || behave->half_chunk ? body->len / 2 : body->len;
    snprintf(size, sizeof(size), "%zx\r\n", body->len);
    bool chunked = behave->chunked || behave->half_chunk || behave->gzip_te;
    if (behave->bad_chunk)
        text_puts(out, "zzz\r\n");
    else if (chunked)
        text_puts(out, size);
    text_add(out, body->base, len);
    if (chunked && !behave->half_chunk)
        text_puts(out, "\r\n0\r\n\r\n");
}

/* Sends the head, and with it the whole body of an answer that is not streamed and need not wait. */
static bool send_head(struct conn *conn)
{
    static const char garbage[] = "\x16\x03\xff this is not HTTP \x01\x02\r\n\r\n";
    static const char endless[] = "HTTP/1.1 200 OK\r\n";
    struct text head = {0}, body = {0};
    long status = conn->behave.status != 0 ? conn->behave.status : 200;
    if (conn->behave.garbage) {
        conn->phase = CLOSING;
        return conn_send(conn, garbage, sizeof(garbage) - 1);
    }
    if (conn->behave.head_endless) {
        conn->phase = HEADING;
        return conn_send(conn, endless, sizeof(endless) - 1);
    }
    if (!conn->stream)
        plain_body(conn, &body);
    else if (conn->behave.length_body)
        whole_stream(conn, &body);
    if (conn->stream)
        stats.streams_begun++;
    head_lines(conn, status, body.len, &head);
    bool alive = true, broken = conn->behave.short_length || conn->behave.half_chunk || conn->behave.bad_chunk;
    bool wait = !conn->stream && conn->behave.first_ms > 0;
    if (body.base != NULL && !conn->head_only && !wait)
        append_plain(conn, &body, &head);
    bool complete = !wait && (body.base != NULL || conn->head_only);
    alive = conn_send(conn, head.base, head.len);
    free(head.base);
    free(body.base);
    if (alive && complete && conn->stream)
        stats.streams_finished++;
    if (alive && complete && broken)
        conn->phase = CLOSING;
    else if (alive && complete)
        alive = finish(conn);
    return alive;
}

/* The answer is complete. */
static bool finish(struct conn *conn)
{
    journal_end(conn, "done");
    conn->phase = READING;
    conn->stale = conn->behave.stale != 0;
    if (conn->behave.close_body || conn->behave.close_idle || conn->behave.gzip_te || conn->behave.bad_length ||
        !conn->keep)
        conn->phase = CLOSING;
    return true;
}

/* Sends a piece of a streamed body as one chunk, or bare where the end of the connection frames it. */
static bool send_piece(struct conn *conn, const struct text *piece)
{
    char size[24];
    struct text framed = {0};
    if (conn->behave.close_body)
        return conn_send(conn, piece->base, piece->len);
    int size_len = snprintf(size, sizeof(size), "%zx\r\n", piece->len);
    text_add(&framed, size, (size_t)size_len);
    text_add(&framed, piece->base, piece->len);
    text_puts(&framed, "\r\n");
    bool alive = conn_send(conn, framed.base, framed.len);
    free(framed.base);
    return alive;
}

static bool end_of_body(struct conn *conn)
{
    stats.streams_finished++;
    return (conn->behave.close_body || conn_send(conn, "0\r\n\r\n", 5)) && finish(conn);
}

/* Half of the event that would be next, and then whatever the behaviour asks for. */
static bool half_event(struct conn *conn)
{
    struct template *t = conn->template;
    template_patch(t, conn->sent_events + 1);
    struct text half = {t->bytes + t->event, t->event_len / 2, 0};
    if (conn->behave.half_chunk) {
        conn->phase = CLOSING;
        return conn_send(conn, t->bytes, t->len / 2);
    }
    if (!send_piece(conn, &half))
        return false;
    if (conn->behave.cut_inside > 0) {
        conn->phase = CLOSING;
        return true;
    }
    return end_of_body(conn);
}

/* What happens in place of the next event, if the behaviour has something to say about it. False: gone and
 * freed. */
static bool instead_of_event(struct conn *conn, bool *handled)
{
    const struct behave *behave = &conn->behave;
    long sent = conn->sent_events;
    *handled = true;
    if (behave->stall_after == sent) {
        conn->phase = STALLED;
        return true;
    }
    if (behave->cut_after == sent) {
        conn->phase = CLOSING;
        return true;
    }
    if (behave->reset_after == sent) { /* an RST overtakes what the peer has not read yet, so give it time */
        conn->phase = RESETTING;
        timer_arm(conn, now_us() + 50000);
        return true;
    }
    if (behave->end_after == sent)
        return end_of_body(conn);
    if (behave->cut_inside == sent + 1 || behave->end_inside == sent + 1 || (behave->half_chunk && sent == 1))
        return half_event(conn);
    if (behave->bad_chunk && sent == 1) {
        conn->phase = CLOSING;
        return conn_send(conn, "zzz\r\ndata", 9);
    }
    if (behave->error_event == sent) {
        struct text event = {0};
        dialect_error(conn->dialect, newline_of(behave), &event);
        bool alive = send_piece(conn, &event) && end_of_body(conn);
        free(event.base);
        return alive;
    }
    *handled = false;
    return true;
}

/* As many events as make up a block, in one write. */
static bool send_flood(struct conn *conn)
{
    static char block[FLOOD_BLOCK];
    size_t len = 0;
    struct template *t = conn->template;
    do {
        template_patch(t, ++conn->sent_events);
        stats.events++;
        if (t->len > sizeof(block))
            return conn_send(conn, t->bytes, t->len);
        memcpy(block + len, t->bytes, t->len);
        len += t->len;
    } while (len + t->len <= sizeof(block) && conn->sent_events < conn->behave.events);
    return conn_send(conn, block, len);
}

static bool send_content(struct conn *conn)
{
    struct template *t = conn->template;
    if (conn->behave.big_line > 0 && conn->sent_events == 0)
        t = template_get(conn->dialect, &conn->behave, conn->behave.big_line);
    if (conn->behave.flood)
        return send_flood(conn);
    template_patch(t, ++conn->sent_events);
    stats.events++;
    if (conn->behave.close_body)
        return conn_send(conn, t->bytes + t->event, t->event_len);
    return conn_send(conn, t->bytes, t->len);
}

static bool send_edge(struct conn *conn, bool opening)
{
    struct text piece = {0};
    const char *nl = newline_of(&conn->behave);
    if (opening)
        dialect_opening(conn->dialect, nl, &piece);
    else
        dialect_closing(conn->dialect, nl, conn->behave.events, conn->usage, &piece);
    bool alive = piece.len == 0 || send_piece(conn, &piece);
    free(piece.base);
    return alive;
}

/* A plain answer whose body was held back after the head. */
static bool send_late_body(struct conn *conn)
{
    struct text body = {0}, out = {0};
    plain_body(conn, &body);
    append_plain(conn, &body, &out);
    bool alive = conn_send(conn, out.base, out.len);
    free(body.base);
    free(out.base);
    if (!alive)
        return false;
    if (conn->behave.short_length || conn->behave.half_chunk || conn->behave.bad_chunk)
        conn->phase = CLOSING;
    else
        finish(conn);
    return true;
}

static bool send_event(struct conn *conn)
{
    bool handled;
    if (!conn->stream)
        return send_late_body(conn);
    bool alive = instead_of_event(conn, &handled);
    if (handled)
        return alive;
    if (!conn->opened) {
        conn->opened = true;
        return send_edge(conn, true);
    }
    if (conn->closed)
        return end_of_body(conn);
    if (conn->sent_events >= conn->behave.events) {
        conn->closed = true;
        uint64_t wait_us = (uint64_t)(conn->behave.end_ms + conn->behave.spread_ms) * 1000 - conn->late_us;
        if (wait_us != 0)
            timer_arm(conn, now_us() + wait_us);
        return send_edge(conn, false) && (wait_us != 0 || end_of_body(conn));
    }
    if (!send_content(conn))
        return false;
    if (conn->behave.pace_ms > 0 && !conn->sending_split) {
        uint64_t now = now_us();
        conn->due_us += (uint64_t)conn->behave.pace_ms * 1000;
        if (conn->due_us + 1000000 < now) /* held up by the reader: go on from now instead of catching up */
            conn->due_us = now;
        timer_arm(conn, conn->due_us);
    }
    return true;
}

#endif
