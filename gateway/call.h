/* One request, whatever it came in by: the transport fills it in, the dependencies and the handler work on it, the
 * transport's callbacks carry the answer back. One thread. All spans belong to the transport and live as long as the
 * call. */
#ifndef WEIR_GATEWAY_CALL_H
#define WEIR_GATEWAY_CALL_H

#include "backends/exchange.h"
#include "base/ids.h"
#include "cache/entry.h"
#include "gateway/body.h"
#include "gateway/identity.h"
#include "gateway/site.h"

struct call;
struct call_limits;
struct chat;
struct completion;
struct pool;
struct stream;
struct worker;

#define CALL_REQUEST_ID_MAX 128
#define CALL_MODEL_MAX 256
#define CALL_KEY_MAX 71

/* How an answer goes back. Exactly one of the three is called, once. */
struct call_transport {
    /* An error. `retry_after` in seconds goes out as a header unless it is 0; `retry`: -1 says that trying again is
     * useless. */
    void (*refuse)(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry);
    /* A whole answer of weir's own; content_type is static, body is copied. */
    void (*answer)(struct call *call, int status, struct span content_type, struct span body);
    /* A backend's answer; the transport must subscribe to the stream before it returns. */
    void (*stream)(struct call *call, const struct exchange_head *head, struct stream *stream);
};

/* The API key that a client's connection brought last, if it was good: the next request is likely to bring it again,
 * and needs no SHA-256 then. A longer one is not remembered. Wiped with its connection. */
struct call_known_key {
    uint64_t site;             /* the site's number; 0: there is none */
    struct identity *identity; /* in that site; not counted */
    unsigned char len;
    char bytes[CALL_KEY_MAX];
};

/* What becomes known of a call on its way; for the log and the metrics. */
struct call_record {
    uint64_t started_us;
    uint64_t first_us; /* first token, or first byte of a plain answer; 0: none */
    int status;
    uint64_t bytes, events;
    struct usage usage;
    bool whole;                              /* the answer came to its proper end, so usage is final */
    const char *backend;                     /* that was asked last; NULL: none was */
    char backend_name[BACKEND_NAME_MAX + 1]; /* where `backend` points */
    unsigned attempts;                       /* backends tried */
    const char *end;          /* why it ended: "finished", "refused", "client_left", or stream_failure_name */
    uint64_t limit_remaining; /* of the tightest limit on requests, if `limited` */
    bool limited;
    const char *refusal;         /* which dependency or check refused it; NULL: none */
    enum stream_failure failure; /* the backend's, and in words */
    char problem[160];
};

/* Work of a handler that goes on after it returned; embedded in what the handler made. */
struct call_job {
    void (*end)(struct call_job *job); /* the call is over, or the client has left: stop and free */
};

/* What the response cache made of a call. */
enum call_cache_state { CALL_CACHE_UNUSED, CALL_CACHE_HIT, CALL_CACHE_MISS, CALL_CACHE_BYPASS, CALL_CACHE_STATES };

struct call_cache {
    enum call_cache_state state;
    struct cache_key key; /* of a miss: what comes is stored under it */
    struct cache_birth birth;
    bool by_key;               /* its answers belong to the API key */
    struct cache_entry *entry; /* of a hit; counted */
    uint64_t age;              /* seconds */
};

enum call_scan { CALL_NOT_SCANNED, CALL_SCANNED, CALL_BAD_JSON };

struct call {
    const struct call_transport *transport;
    struct worker *worker;
    struct site *site;              /* counted */
    struct pool *pool;              /* counted: the worker's, when the call came */
    const struct site_route *route; /* in site */
    unsigned next_depend;
    struct identity *identity;        /* counted; NULL: nobody in particular */
    struct call_known_key *known_key; /* its connection's; NULL: nothing is remembered */
    struct completion *completion;
    struct call_limits *limits; /* what it has taken of limits; NULL: nothing */
    struct call_cache cache;
    struct call_job *job; /* NULL: none */
    struct chat *chat;    /* of a call whose body weir has made from its query; NULL: any other */

    struct span method, path, query; /* as they came, but for the path's aliases; query without '?' */
    struct span body, content_type;
    bool has_body;
    const struct header *headers; /* all of them, names in lower case */
    size_t header_count;
    bool admin_address;     /* it came in by admin's own address */
    struct in6_addr client; /* IPv4 as mapped IPv6; all zero for unix sockets */

    char request_id[CALL_REQUEST_ID_MAX + 1];
    char trace_id[TRACE_ID_LEN + 1];
    const char *socket;                  /* the request id of the WebSocket that it came by, for the log; NULL: none */
    struct span traceparent, tracestate; /* to send on */

    /* Facts of the body; see call_scan_body. */
    enum call_scan scan;
    struct json_value root, fields[BODY_FIELDS_MAX];
    struct json_error json_error;
    char model[CALL_MODEL_MAX];
    size_t model_len;
    bool is_message;   /* a WebSocket's message, for limits that count those */
    bool model_unsure; /* a backend may see another model in the body than weir does */

    struct call_record record;
};

/* What a backend is asked. */
struct call_target {
    struct span method, path, query;
};

/* That of the call: its own method, path and query, unless weir asks in its own words. */
struct call_target call_target(const struct call *call);

/* Hands a backend's answer, or a stored one, to the transport, re-framed where the route wants that. The stream is
 * subscribed to, or over, or cancelled when this returns, and the call may be gone. */
void call_stream(struct call *call, const struct exchange_head *head, struct stream *stream);

/* The value of a header by its lower-case name; the first, if there are several; empty if there is none. */
struct span call_header(const struct call *call, struct span name);

/* The items of Sec-WebSocket-Protocol (RFC 6455 §11.3.4) in order; *cursor starts at 0. False at the end. */
bool call_subprotocol(const struct call *call, size_t *cursor, struct span *protocol);

/* Scans the body as JSON, once. The model's name is decoded into call->model; a name that is too long or no valid
 * Unicode leaves it empty. */
void call_scan_body(struct call *call, const struct body_descriptor *descriptor);

/* The model that the body names; empty if there is none. Scans JSON, looks for the form field in multipart. */
struct span call_model(struct call *call);

/* Whether the caller's key may use the model that the body names. */
bool call_may_use_model(struct call *call);

/* The value of the body's member of this name, if the route's descriptor has it and the body was scanned; else NULL. */
const struct json_value *call_field(const struct call *call, struct span name);

/* Whether the body asks for a streamed answer (after a scan). */
bool call_wants_stream(const struct call *call);

/* Refuses the call through its transport. `refusal` is static: the word for logs and metrics. */
void call_refuse(struct call *call, const char *refusal, const struct dialect_error *error);

/* Ends the call's job, if it has one; the transport calls it when the client has left and when the call is over. */
void call_end_job(struct call *call);

/* Runs the dependencies and then the handler. */
void call_run(struct call *call);

#endif
