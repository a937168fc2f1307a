/* A call that came in by HTTP/1.1 or HTTP/2: libh2o's request on one side, the transport-neutral call on the other.
 * Belongs to the request's memory pool and ends, in its dispose, however the request ends. One thread. */
#ifndef WEIR_GATEWAY_HTTP_CALL_H
#define WEIR_GATEWAY_HTTP_CALL_H

#include "base/strbuf.h"
#include "gateway/completion.h"
#include "gateway/connection.h"

enum http_phase {
    HTTP_WAITING,   /* nothing of the answer has been given to libh2o */
    HTTP_STREAMING, /* the head has */
    HTTP_ENDED,     /* the last bytes have */
};

struct http_call {
    h2o_linklist_t link;   /* in the worker's calls */
    struct handle *handle; /* of libh2o's: counts it */
    struct call call;
    struct completion completion;
    h2o_req_t *req;
    struct connection *connection;
    struct connection_watch watch; /* HTTP/1 only: HTTP/2 tells of clients that leave */
    h2o_generator_t generator;
    struct stream_subscriber subscriber;
    struct deadline deadline; /* the next of: early head, ping, a stalled client */
    enum http_phase phase;
    bool streamed;   /* the stream is of server-sent events */
    bool head_ready; /* the backend's head stands in req->res */
    bool head_sent;  /* and has been written */
    bool sending;    /* libh2o has bytes and will call proceed */
    bool counted_stream;
    size_t body_kept; /* bytes, by uploads_keep */
    bool client_gone;
    bool had_everything; /* the stream's last event was handed over, whatever came of the body's end */
    bool stalled;
    bool connection_knows_stalled;
    uint64_t acknowledged;  /* bytes of the connection, when last asked */
    h2o_iovec_t last_words; /* an error event that waits for what is being sent */
    size_t in_flight;       /* stream bytes in what is being sent */
    char chunk_head[8];     /* of a chunk that http_direct_send has begun: its length, a line of its own */
    unsigned char chunk_head_len;
    struct strbuf whole; /* http_whole.h's text, in whole_memory; its first lines are no headers of the table */
    char *whole_memory;  /* NULL: there is no text */
    size_t whole_first;
    uint64_t sent_us; /* when something was last given to libh2o, or taken by the client */
    uint64_t events_seen, last_event_us;
    struct span cors_origin; /* what to allow; empty: nothing */
    bool cors_vary;
};

/* The call's own, if it came by HTTP; NULL if it came by something else. */
struct http_call *http_call_of(struct call *call);

/* Makes `host` answer all paths by weir. */
void http_call_register(h2o_hostconf_t *host);

/* ---- between the files of this transport ---- */

/* Fills the call in from the request. Returns false, having answered, if the request is not fit to be looked at. */
bool http_request_read(struct http_call *http);

/* The address of the other end of the connection, which may be a proxy's. */
struct in6_addr http_peer_address(h2o_req_t *req);

/* call_transport's three ways to answer; see call.h. */
void http_reply_refuse(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry);
void http_reply_answer(struct call *call, int status, struct span content_type, struct span body);
void http_stream_begin(struct call *call, const struct exchange_head *head, struct stream *stream);

/* Adds a response header; name and value must live as long as the request. */
void http_reply_header(struct http_call *http, struct span name, struct span value);

/* The headers that every answer carries: request id, CORS. */
void http_reply_common_headers(struct http_call *http);

/* Answers a CORS preflight (Fetch standard, "CORS-preflight request"). */
void http_reply_preflight(struct http_call *http, bool allowed);

/* Answers 405 with Allow. */
void http_reply_method_not_allowed(struct http_call *http, unsigned methods);

/* Makes the answer to a request that no handler has seen out of its res.status (400, 413, 417): headers and length.
 * Counts and logs it. Returns the body, which lives in the request's pool. */
struct span http_reply_library_error(h2o_req_t *req);

/* Gives libh2o's own errors, which come before any handler runs (400, 413, 417), the usual body. */
void http_reply_register_library_errors(h2o_hostconf_t *host);

/* Gives the head to libh2o. */
void http_reply_start(struct http_call *http);

/* The reason phrase of a status. */
const char *http_reason(int status);

/* Arms early_head's timer, if the configuration wants it and the call asks for a stream. */
void http_stream_arm_early_head(struct http_call *http);

/* An error after the head has gone out: in the stream, or by breaking it off. */
void http_stream_fail(struct http_call *http, const struct dialect_error *error);

/* libh2o has the last bytes: sees to it that they are taken. */
void http_stream_watch_end(struct http_call *http);

/* The client has left. */
void http_stream_client_gone(struct http_call *http);

/* The request is gone: copies the stream's facts into the record and unsubscribes. */
void http_stream_leave(struct http_call *http);

/* The gateway ends: tells the client, in the stream if that stands between two events, else by breaking off. */
void http_stream_abort(struct http_call *http);

/* http_stream_abort for all calls of a worker. */
void http_calls_abort(struct worker *worker);

#endif
