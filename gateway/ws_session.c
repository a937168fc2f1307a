/* What passes through libwebsockets: messages of the client's on their way to the session's type, and back. */
#include "gateway/ws_session.h"
#include "base/clock.h"
#include "gateway/worker.h"

/* libwebsockets' own value for a close frame, which its public header leaves out. */
#define WRITE_CLOSE ((enum lws_write_protocol)4)

/* In the order in which they fire. */
static void on_established(struct ws_wire *wire, struct lws *wsi);
static void on_receive(struct ws_wire *wire, struct lws *wsi, struct span bytes);
static void on_writable(struct ws_wire *wire);
static bool on_peer_close(struct ws_wire *wire, unsigned char *payload, size_t len);
static void on_closed(struct ws_wire *wire);

int ws_session_on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    (void)user;
    struct ws_wire *wire = lws_get_opaque_user_data(wsi);
    if (wire == NULL)
        return 0; /* not about a connection, or about one whose session is over */
    switch (reason) {
    case LWS_CALLBACK_ESTABLISHED:
        on_established(wire, wsi);
        break;
    case LWS_CALLBACK_RECEIVE:
        on_receive(wire, wsi, (struct span){in, len});
        break;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        on_writable(wire);
        break;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return on_peer_close(wire, in, len) ? 0 : -1;
    case LWS_CALLBACK_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
        on_closed(wire);
        break;
    default:
        break;
    }
    return 0;
}

static void on_established(struct ws_wire *wire, struct lws *wsi)
{
    wire->wsi = wsi;
    if (!ws_queue_is_empty(&wire->queue) || wire->closing)
        lws_callback_on_writable(wsi);
}

/* ---- from the client ---- */

static void on_receive(struct ws_wire *wire, struct lws *wsi, struct span bytes)
{
    struct ws_piece piece = {.bytes = bytes,
                             .binary = lws_frame_is_binary(wsi) != 0,
                             .first = lws_is_first_fragment(wsi) != 0,
                             .last = lws_is_final_fragment(wsi) != 0};
    if (wire->closing)
        return;
    if (!piece.binary && (!utf8_feed(&wire->utf8, bytes) || (piece.last && !utf8_complete(&wire->utf8)))) {
        ws_session_fail(wire, WS_CLOSE_NOT_UTF8, "text is not UTF-8");
        return;
    }
    wire->messages_in += piece.last;
    wire->bytes_in += bytes.len;
    telemetry_websocket_received(wire->series, piece.last, bytes.len);
    wire->session.type->message(&wire->session, &piece);
}

/* False if there is nothing to answer: it is the answer. */
static bool on_peer_close(struct ws_wire *wire, unsigned char *payload, size_t len)
{
    if (wire->close_issued)
        return false;
    /* The answer repeats the code; libwebsockets takes some good ones (1012 to 1014) for bad and has put 1002 in their
     * place. This is its own buffer, from which the answer is made. */
    if (len >= 2 && wire->guard.close_code != WS_CLOSE_NO_STATUS) {
        payload[0] = (unsigned char)(wire->guard.close_code >> 8);
        payload[1] = (unsigned char)wire->guard.close_code;
    }
    wire->closed_by_client = !wire->closing;
    wire->closing = true;
    wire->close_issued = true;
    wire->close_by_us = clock_us() + WS_CLOSE_US;
    ws_queue_drop(&wire->queue);
    ws_bridge_arm(wire);
    return true;
}

static void on_closed(struct ws_wire *wire)
{
    /* What it has said still stands in the socketpair; its end follows. */
    if (wire->wsi == NULL)
        return;
    wire->wsi = NULL;
    if (!wire->closing) {
        wire->closing = true;
        wire->close_by_us = clock_us() + WS_CLOSE_US;
        ws_bridge_arm(wire);
    }
}

/* ---- to the client ---- */

static void count_sent(void *ctx, enum ws_kind kind, size_t len)
{
    struct ws_wire *wire = ctx;
    bool last = kind == WS_TEXT || kind == WS_BINARY || kind == WS_END;
    wire->bytes_out += len;
    wire->messages_out += last;
    telemetry_websocket_sent(wire->series, last, len);
}

static void ask_for_writable(struct ws_wire *wire)
{
    if (wire->wsi == NULL)
        return;
    lws_callback_on_writable(wire->wsi);
    ws_loop_touch(wire->session.worker->ws_loop);
}

enum ws_sent ws_send(struct ws_session *session, enum ws_kind kind, const struct span *pieces, size_t count)
{
    struct ws_wire *wire = ws_wire_of(session);
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += pieces[i].len;
    if (wire->closing || wire->broken)
        return WS_CLOSED;
    if (wire->phase == WS_OPEN && wire->wsi != NULL && ws_queue_is_empty(&wire->queue) && LWS_PRE + len <= WS_SCRATCH &&
        !lws_partial_buffered(wire->wsi)) {
        unsigned char *scratch = ws_loop_scratch(session->worker->ws_loop);
        ws_queue_gather(scratch, pieces, count);
        count_sent(wire, kind, len);
        if (!ws_queue_write(wire->wsi, kind, scratch, len))
            ws_bridge_break(wire);
        else if (!wire->corked)
            ws_tunnel_pump(wire);
        return wire->broken ? WS_CLOSED : WS_SENT;
    }
    if (!ws_queue_is_empty(&wire->queue) && wire->queue.bytes + len > WS_QUEUE_MAX) {
        ws_session_fail(wire, WS_CLOSE_TRY_LATER, "the client reads too slowly");
        return WS_CLOSED;
    }
    if (ws_queue_is_empty(&wire->queue)) {
        if (!wire->writing)
            wire->progress_us = clock_us(); /* from which on the client owes some */
        ask_for_writable(wire);
    }
    ws_queue_add(&wire->queue, kind, pieces, count, len);
    return wire->queue.is_full ? WS_FULL : WS_SENT;
}

void ws_cork(struct ws_session *session)
{
    ws_wire_of(session)->corked = true;
}

void ws_uncork(struct ws_session *session)
{
    struct ws_wire *wire = ws_wire_of(session);
    wire->corked = false;
    if (wire->phase == WS_OPEN && !wire->broken)
        ws_tunnel_pump(wire);
}

bool ws_is_full(const struct ws_session *session)
{
    return ws_wire_of(session)->queue.is_full;
}

void ws_session_ping(struct ws_wire *wire)
{
    unsigned char nothing[LWS_PRE];
    if (wire->wsi == NULL || !ws_queue_is_empty(&wire->queue) || lws_partial_buffered(wire->wsi))
        return;
    if (lws_write(wire->wsi, nothing + LWS_PRE, 0, LWS_WRITE_PING) < 0)
        ws_bridge_break(wire);
    else
        ws_tunnel_pump(wire);
}

/* Writes the close frame. lws_close_reason will not do: the close waits in the buffer that a ping which comes meanwhile
 * is copied into. */
static void issue_close(struct ws_wire *wire)
{
    unsigned char frame[LWS_PRE + 2 + WS_REASON_MAX];
    size_t n = strlen(wire->close_reason);
    wire->close_issued = true;
    frame[LWS_PRE] = (unsigned char)(wire->close_code >> 8);
    frame[LWS_PRE + 1] = (unsigned char)wire->close_code;
    memcpy(frame + LWS_PRE + 2, wire->close_reason, n);
    if (lws_write(wire->wsi, frame + LWS_PRE, n + 2, WRITE_CLOSE) < 0)
        ws_bridge_break(wire);
    else if (wire->deaf)
        ws_tunnel_hang_up(wire);
}

static void on_writable(struct ws_wire *wire)
{
    if (wire->phase == WS_HANDSHAKE || wire->phase == WS_UPGRADING)
        return; /* the 101 goes first; it asks again */
    if (!ws_queue_flush(&wire->queue, wire->wsi, count_sent, wire)) {
        ws_bridge_break(wire);
        return;
    }
    if (ws_queue_has_drained(&wire->queue) && wire->session.type->writable != NULL && !wire->closing)
        wire->session.type->writable(&wire->session);
    if (!ws_queue_is_empty(&wire->queue))
        lws_callback_on_writable(wire->wsi);
    else if (wire->closing && !wire->close_issued)
        issue_close(wire);
}

/* ---- closing ---- */

static void begin_close(struct ws_wire *wire, unsigned code, struct span reason)
{
    reason = utf8_cut(reason, WS_REASON_MAX);
    wire->closing = true;
    wire->close_code = code == WS_CLOSE_NO_STATUS     ? WS_CLOSE_NORMAL
                       : ws_guard_code_is_valid(code) ? code
                                                      : WS_CLOSE_INTERNAL;
    if (reason.len != 0)
        memcpy(wire->close_reason, reason.base, reason.len);
    wire->close_reason[reason.len] = '\0';
    wire->close_by_us = clock_us() + WS_CLOSE_US;
    ask_for_writable(wire);
    ws_bridge_arm(wire);
}

void ws_close(struct ws_session *session, unsigned code, struct span reason)
{
    struct ws_wire *wire = ws_wire_of(session);
    if (!wire->closing)
        begin_close(wire, code, reason);
}

bool ws_is_closing(const struct ws_session *session)
{
    return ws_wire_of(session)->closing;
}

void ws_session_fail(struct ws_wire *wire, unsigned code, const char *why)
{
    if (wire->close_issued)
        return;
    ws_queue_drop(&wire->queue);
    wire->deaf = true;
    begin_close(wire, code, span_of(why));
}
