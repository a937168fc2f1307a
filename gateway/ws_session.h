/* Between the files of the WebSocket bridge: a session with its two sockets and its connection of libwebsockets'.
 * ws_bridge.c has the beginning, the deadlines and the end; ws_tunnel.c carries bytes; ws_session.c has what passes
 * through libwebsockets. */
#ifndef WEIR_GATEWAY_WS_SESSION_H
#define WEIR_GATEWAY_WS_SESSION_H

#include "base/deadline.h"
#include "base/utf8.h"
#include "gateway/telemetry.h"
#include "gateway/ws_bridge.h"
#include "gateway/ws_loop.h"
#include "gateway/ws_queue.h"

#define WS_RX_BUFFER 4096 /* libwebsockets holds so much for each connection */
#define WS_TX_PACKET 65536
#define WS_CLOSE_US 5000000 /* for a close to come about */

enum ws_phase {
    WS_HANDSHAKE, /* libwebsockets has not answered yet */
    WS_UPGRADING, /* libh2o is sending the 101 */
    WS_OPEN,
    WS_LINGERING, /* all is said; what the client still sends is dropped, so that it reads the close frame */
};

struct ws_wire {
    struct ws_session session;
    h2o_linklist_t link;    /* in the worker's sessions */
    struct http_call *http; /* until the 101 is under way */
    struct call_job job;
    h2o_socket_t *client; /* NULL until WS_OPEN */
    h2o_socket_t *up;     /* our end of the socketpair */
    struct lws *wsi;      /* NULL: not yet, or no more */
    struct ws_guard guard;
    struct deadline deadline; /* the next of: handshake, ping, a client that takes nothing, a close */
    enum ws_phase phase;
    int upgrading;        /* the client's descriptor while libh2o has its socket; only for WS_UPGRADING */
    struct span protocol; /* in the request's pool, until WS_OPEN */

    /* Towards the client. */
    char *rest; /* what libh2o is writing; NULL where TLS has its own copy */
    bool writing;
    bool up_stopped; /* not reading from libwebsockets, because of that */
    bool up_ended;
    uint64_t progress_us, acknowledged;
    struct ws_queue queue;
    bool corked;

    /* From the client. */
    size_t cleared; /* bytes of client->input that may pass */
    bool paused, up_full, client_ended;
    bool deaf; /* it broke the protocol: what it sends is dropped */
    struct utf8_check utf8;

    bool closing, close_issued, closed_by_client, broken;
    unsigned close_code;
    char close_reason[WS_REASON_MAX + 1];
    uint64_t close_by_us;
    unsigned unanswered;   /* pings */
    uint64_t frames_heard; /* of the client's, when the last ping went out */
    uint64_t ping_us;      /* when the next ping is due */

    struct metric_series *series[TELEMETRY_WEBSOCKET_SERIES];
    uint64_t opened_us, messages_in, messages_out, bytes_in, bytes_out;
};

static inline struct ws_wire *ws_wire_of(const struct ws_session *session)
{
    return H2O_STRUCT_FROM_MEMBER(struct ws_wire, session, session);
}

/* libwebsockets' callback for connections from clients. */
int ws_session_on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);

/* Closes because of what the client did or did not do: what is queued is dropped. */
void ws_session_fail(struct ws_wire *wire, unsigned code, const char *why);

/* Sends a ping, if libwebsockets has nothing that must go before. */
void ws_session_ping(struct ws_wire *wire);

/* The connection is beyond saving: it ends as soon as the loop turns. */
void ws_bridge_break(struct ws_wire *wire);

/* Sets the deadline anew. */
void ws_bridge_arm(struct ws_wire *wire);

/* It is over: tells its type, and frees it. Only from callbacks of libh2o's and deadlines, never from libwebsockets'.
 */
void ws_bridge_end(struct ws_wire *wire);

/* The client has its 101: begins to carry bytes. */
void ws_tunnel_start(struct ws_wire *wire);

/* Carries what libwebsockets has said on to the client. Never ends the session. */
void ws_tunnel_pump(struct ws_wire *wire);

/* Tells libwebsockets that nothing more comes from the client. */
void ws_tunnel_hang_up(struct ws_wire *wire);

#endif
