/* What the gateway measures: the table of metric families, and the access log's line for each request. */
#ifndef WEIR_GATEWAY_TELEMETRY_H
#define WEIR_GATEWAY_TELEMETRY_H

#include "base/log.h"
#include "base/metrics.h"
#include "base/redis_link.h"
#include "gateway/call.h"

/* Series that hot paths use; one set for each worker. */
struct telemetry {
    struct metrics_shard *shard;
    struct metric_series *requests_in_flight, *streams_in_flight, *connections;
    struct metric_series *between_events; /* seconds from one event to the next, all streams */
    uint64_t allowed_site;                /* the number of the site whose limits `allowed` is of; 0: none */
    struct metric_series **allowed;       /* what its limits let through, behind them a key's own; NULL: not yet used */
    struct metric_series
        *cached[CALL_CACHE_STATES]; /* what the cache made of requests, without a reason; NULL: not yet used */
};

/* Prepares a worker's metrics. */
void telemetry_init(struct telemetry *telemetry);
void telemetry_dispose(struct telemetry *telemetry);

/* A limit (its name in the configuration, "key" or "max_streams") has refused a request. */
void telemetry_limit_refused(struct worker *worker, const char *limit);

/* A limit of the call's configuration has let it through; NULL: its key's own. */
void telemetry_limit_allowed(const struct call *call, const struct config_limit *limit);

/* A request's limits were decided on without Redis. */
void telemetry_limit_fallback(struct worker *worker, enum redis_failure why);

/* What the response cache made of a request, and why it was passed by, or that a hit was Redis's ("" otherwise). */
void telemetry_cached(struct worker *worker, enum call_cache_state state, const char *reason);

/* A backend failed an exchange. */
void telemetry_upstream_error(struct worker *worker, const char *backend, enum stream_failure why);

/* A backend answered 429 or 5xx. */
void telemetry_upstream_refused(struct worker *worker, const char *backend, int status);

/* An attempt at a backend came to nothing, and another one is made in its place. `reason` as for failures. */
void telemetry_retried(struct worker *worker, const char *backend, const char *reason);

/* A request that might have been tried again was not, because the budget for that is used up. */
void telemetry_retry_refused(struct worker *worker);

/* A request has waited for a place; `result` is "served", "timeout", "full" or "left". */
void telemetry_queued(struct worker *worker, const char *result, uint64_t waited_us);

/* The gauge of requests that a backend has in flight; `model` as the configuration names it. */
struct metric_series *telemetry_backend_in_flight(struct worker *worker, const char *backend, const char *model);

/* A request is over: counts it and writes its line. */
void telemetry_call_done(struct call *call);

/* A request that ended before it was one (malformed, too large). */
void telemetry_bad_request(struct worker *worker, int status, const char *request_id);

struct ws_session;

/* What a WebSocket came to. */
struct telemetry_websocket {
    unsigned code; /* of the close, see ws_bridge.h */
    struct span reason;
    bool by_client;
    uint64_t opened_us;
    uint64_t messages[2], bytes[2]; /* from the client, to the client */
};

/* What each message counts in: messages and bytes, from the client and to it. */
#define TELEMETRY_WEBSOCKET_SERIES 4

/* A WebSocket is open: counts it, finds its series. */
void telemetry_websocket_opened(const struct ws_session *session, struct metric_series **series);

/* A piece of a message has come, or gone out; `last`: the message's last. */
void telemetry_websocket_received(struct metric_series *const *series, bool last, size_t bytes);
void telemetry_websocket_sent(struct metric_series *const *series, bool last, size_t bytes);

/* It is over: counts it and writes its line. */
void telemetry_websocket_closed(const struct ws_session *session, const struct telemetry_websocket *facts);
/* A connection was refused ("max", "per_address", "penalty"), closed for flooding, an event for security_event. */
void telemetry_refused_connection(struct worker *worker, const char *reason);
void telemetry_flood(struct worker *worker, const char *kind);
void telemetry_security(struct worker *worker, const char *event);

/* The field that says who the client is; none for the unspecified address. */
void telemetry_log_client(struct log_line *line, const struct in6_addr *client);

/* Writes all metrics of all workers and of the process, in Prometheus' text format. */
void telemetry_write(struct worker *const *workers, size_t count, struct fleet *fleet, struct strbuf *out);

#endif
