/* WebSockets on the same port as HTTP (RFC 6455). libh2o sees the request, the route's dependencies run as for any, the
 * route's handler calls ws_open; from then on libwebsockets does the framing on one end of a socketpair, and weir
 * carries bytes between its other end and the client:
 *
 *      client ◀─TLS─▶ libh2o's socket ◀─ws_bridge: ws_guard─▶ socketpair ◀─▶ libwebsockets ◀─ws_session─▶ session type
 *
 * libwebsockets sees a request that weir wrote, with nothing of the client's but the handshake's key; who the client is
 * goes along in memory. What a session does with messages is its type's business (ws_chat, a proxy): a table of
 * callbacks.
 *
 * One thread: the worker's. A session is freed by the bridge, after `closed`; a type's callbacks may call any of the
 * functions below, none of which ever calls back synchronously or frees the session.
 *
 * Limits: a message of the client's `max_message`; frames per second, see ws_guard.h; towards the client WS_QUEUE_HIGH
 * bytes until its producers pause and WS_QUEUE_MAX (or one message) until it is closed with 1013, likewise when it
 * takes nothing for send_timeout. */
#ifndef WEIR_GATEWAY_WS_BRIDGE_H
#define WEIR_GATEWAY_WS_BRIDGE_H

#include "base/strbuf.h"
#include "gateway/call.h"
#include "gateway/ws_guard.h"
#include <h2o.h>

#define WS_QUEUE_HIGH ((size_t)64 * 1024)
#define WS_QUEUE_MAX ((size_t)4 * 1024 * 1024)
/* After ws_pause up to so many bytes of messages may still come: those that were under way. */
#define WS_PAUSE_SLACK ((size_t)256 * 1024)
#define WS_REASON_MAX 123 /* bytes: RFC 6455 §5.5 */

struct ws_session;

/* A piece of a message of the client's: a message comes in one or more of them, in order, whatever its frames were.
 * Pieces of text are UTF-8, but may end inside of a character. */
struct ws_piece {
    struct span bytes; /* valid during the callback only; may be empty */
    bool binary;
    bool first, last; /* of its message */
};

/* What a kind of session does. `opened` and `closed` come exactly once each, `closed` last (and alone, if the handshake
 * came to nothing). */
struct ws_session_type {
    const char *name;                           /* for the log */
    void (*opened)(struct ws_session *session); /* the client has its 101; sending has been possible since ws_open */
    void (*message)(struct ws_session *session, const struct ws_piece *piece);
    /* The queue, which had been full, is not any more. May be NULL. */
    void (*writable)(struct ws_session *session);
    /* The gateway is ending: close the session (1001) as soon as what runs is done. NULL: it is closed at once. */
    void (*drain)(struct ws_session *session);
    /* It is over: stop everything, free session->ctx. `code` is that of the close frame which ended it, the client's or
     * weir's; WS_CLOSE_NO_STATUS if it had none, WS_CLOSE_ABNORMAL if none came. `reason` is UTF-8 and may be empty. */
    void (*closed)(struct ws_session *session, unsigned code, struct span reason);
};

/* What types may read of it, and the one field that is theirs. */
struct ws_session {
    const struct ws_session_type *type;
    void *ctx; /* the type's */
    struct worker *worker;
    struct site *site; /* counted */
    struct pool *pool; /* counted; both those of the handshake: a conversation keeps them through a reload */
    const struct site_route *route;
    struct identity *identity; /* counted; NULL: nobody in particular */
    struct in6_addr client;
    char request_id[CALL_REQUEST_ID_MAX + 1]; /* of the handshake: the socket's own id */
    char trace_id[TRACE_ID_LEN + 1];
    struct call_limits *limits; /* the handshake's: its place under max_streams is the socket's as long as it lasts */
};

/* Looks at the request's handshake (RFC 6455 §4.2.1) and its Origin. False if it is none, or a bad one: then the call
 * has been refused. ws_open does this too; a handler that has other things to do first may ask earlier. */
bool ws_handshake_check(struct call *call);

/* The subprotocols that the client offers, one by one: *cursor starts at 0; false at the end. Without those that carry
 * credentials (openai-insecure-api-key.*, openai-organization.*, openai-project.*). */
bool ws_offered_protocol(const struct call *call, size_t *cursor, struct span *protocol);

/* Takes the call over into a session: from a route's handler, or later while it waits with call->job set (which ws_open
 * replaces). `protocol` is the subprotocol to select, copied; empty: none. On NULL the call has been refused, and `ctx`
 * still is the caller's; else it is the session's, and `closed` will be called in the end. */
struct ws_session *ws_open(struct call *call, const struct ws_session_type *type, void *ctx, struct span protocol);

enum ws_kind {
    WS_TEXT, /* a whole message */
    WS_BINARY,
    WS_TEXT_BEGIN, /* the first of several fragments; then WS_MORE, in the end WS_END */
    WS_BINARY_BEGIN,
    WS_MORE,
    WS_END,
};

enum ws_sent {
    WS_SENT,
    WS_FULL,   /* sent, or queued; but pause what produces it, until `writable` */
    WS_CLOSED, /* not sent: the session is closing */
};

/* Sends a message or a fragment, put together from pieces and copied. Text must be UTF-8. Beyond WS_QUEUE_MAX the
 * session is closed with 1013. */
enum ws_sent ws_send(struct ws_session *session, enum ws_kind kind, const struct span *pieces, size_t count);

/* Around several messages that are sent in one go: between the two they are only gathered, so that they share a write
 * to the client. Does not nest. */
void ws_cork(struct ws_session *session);
void ws_uncork(struct ws_session *session);

/* Whether the queue is full now. */
bool ws_is_full(const struct ws_session *session);

/* Closes it, once what is queued is sent. `reason` is cut to WS_REASON_MAX bytes (between characters). Of codes that
 * may not be sent, WS_CLOSE_NO_STATUS becomes WS_CLOSE_NORMAL, the others WS_CLOSE_INTERNAL. A second call does
 * nothing. */
void ws_close(struct ws_session *session, unsigned code, struct span reason);

/* Whether it is closing already, by whichever side. */
bool ws_is_closing(const struct ws_session *session);

/* Reads no more from the client, and goes on reading. Neither nests. */
void ws_pause(struct ws_session *session);
void ws_resume(struct ws_session *session);

/* For the worker: tells all sessions that the gateway ends; closes them all at once (1001). */
void ws_sessions_drain(struct worker *worker);
void ws_sessions_close(struct worker *worker);

#endif
