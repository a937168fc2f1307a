#include "gateway/telemetry.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/worker.h"
#include "gateway/ws_bridge.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

static const double token_buckets[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25,
                                       0.5,   0.75,  1,    2.5,  5,    7.5,  10,   30,  60};
static const double event_buckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                       0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   10,  30};
static const double duration_buckets[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                          2.5,   5,    10,    30,   60,  120,  300, 600};
#define BUCKETS(array) .buckets = (array), .bucket_count = sizeof(array) / sizeof((array)[0])

enum family {
    REQUESTS,
    DURATION,
    FIRST_TOKEN,
    BETWEEN_EVENTS,
    TOKENS,
    REFUSALS,
    UPSTREAM_ERRORS,
    REQUESTS_IN_FLIGHT,
    STREAMS_IN_FLIGHT,
    CONNECTIONS,
    BYTES,
    LIMITED,
    LIMIT_FALLBACKS,
    CACHED,
    BACKEND_IN_FLIGHT,
    RETRIES,
    RETRIES_REFUSED,
    QUEUED,
    WEBSOCKETS,
    WEBSOCKET_MESSAGES,
    WEBSOCKET_BYTES,
    WEBSOCKET_CLOSES,
    FLOODS,
    REFUSED_CONNECTIONS,
    SECURITY,
    FAMILIES,
};

static const struct metric_family families[FAMILIES] = {
    [REQUESTS] = {.name = "weir_requests_total",
                  .help = "Requests answered, by route, backend and status (499: the client left).",
                  .type = METRIC_COUNTER,
                  .labels = {"route", "backend", "status"}},
    [DURATION] = {.name = "weir_request_duration_seconds",
                  .help = "From a request's arrival to the end of its answer.",
                  .type = METRIC_HISTOGRAM,
                  .labels = {"route"},
                  BUCKETS(duration_buckets)},
    [FIRST_TOKEN] = {.name = "weir_time_to_first_token_seconds",
                     .help = "From a request's arrival to the first complete event of a streamed answer.",
                     .type = METRIC_HISTOGRAM,
                     .labels = {"model", "backend"},
                     BUCKETS(token_buckets),
                     .max_series = 500},
    [BETWEEN_EVENTS] = {.name = "weir_time_between_events_seconds",
                        .help = "From one event of a streamed answer to the next.",
                        .type = METRIC_HISTOGRAM,
                        BUCKETS(event_buckets)},
    [TOKENS] = {.name = "weir_tokens_total",
                .help = "Tokens as the backends report them; cached ones are part of prompt.",
                .type = METRIC_COUNTER,
                .labels = {"key", "model", "kind"},
                .max_series = 3000},
    [REFUSALS] = {.name = "weir_refusals_total",
                  .help = "Requests refused before a backend was asked.",
                  .type = METRIC_COUNTER,
                  .labels = {"route", "reason"}},
    [UPSTREAM_ERRORS] = {.name = "weir_upstream_errors_total",
                         .help = "Exchanges that a backend failed.",
                         .type = METRIC_COUNTER,
                         .labels = {"backend", "reason"}},
    [REQUESTS_IN_FLIGHT] = {.name = "weir_requests_in_flight",
                            .help = "Requests being worked on.",
                            .type = METRIC_GAUGE},
    [STREAMS_IN_FLIGHT] = {.name = "weir_streams_in_flight",
                           .help = "Streamed answers being sent.",
                           .type = METRIC_GAUGE},
    [CONNECTIONS] = {.name = "weir_connections", .help = "Client connections.", .type = METRIC_GAUGE},
    [BYTES] = {.name = "weir_response_bytes_total",
               .help = "Body bytes of backends' answers passed on.",
               .type = METRIC_COUNTER,
               .labels = {"route"}},
    [LIMITED] = {.name = "weir_limit_decisions_total",
                 .help = "Decisions of each limit.",
                 .type = METRIC_COUNTER,
                 .labels = {"limit", "result"}},
    [LIMIT_FALLBACKS] = {.name = "weir_limit_fallbacks_total",
                         .help = "Requests whose limits were decided on without Redis, and why.",
                         .type = METRIC_COUNTER,
                         .labels = {"reason"}},
    [CACHED] = {.name = "weir_cache_requests_total",
                .help =
                    "Requests that the response cache answered, could have answered, or was passed by for a reason.",
                .type = METRIC_COUNTER,
                .labels = {"result", "reason"}},
    [BACKEND_IN_FLIGHT] = {.name = "weir_backend_requests_in_flight",
                           .help =
                               "Requests that a backend works on, by the rule of its `models` that they fell under.",
                           .type = METRIC_GAUGE,
                           .labels = {"backend", "model"}},
    [RETRIES] = {.name = "weir_retries_total",
                 .help = "Attempts at a backend that were wasted: another was made in their place, for this reason.",
                 .type = METRIC_COUNTER,
                 .labels = {"backend", "reason"}},
    [RETRIES_REFUSED] = {.name = "weir_retries_refused_total",
                         .help = "Requests not tried again because the budget for retries was used up.",
                         .type = METRIC_COUNTER},
    [QUEUED] = {.name = "weir_queue_duration_seconds",
                .help = "How long requests waited for a backend with a free place, and what came of it.",
                .type = METRIC_HISTOGRAM,
                .labels = {"result"},
                BUCKETS(token_buckets)},
    [WEBSOCKETS] = {.name = "weir_websockets", .help = "Open WebSockets.", .type = METRIC_GAUGE, .labels = {"route"}},
    [WEBSOCKET_MESSAGES] = {.name = "weir_websocket_messages_total",
                            .help = "Messages from (in) and to (out) clients.",
                            .type = METRIC_COUNTER,
                            .labels = {"route", "direction"}},
    [WEBSOCKET_BYTES] = {.name = "weir_websocket_bytes_total",
                         .help = "Bytes of those messages.",
                         .type = METRIC_COUNTER,
                         .labels = {"route", "direction"}},
    [WEBSOCKET_CLOSES] = {.name = "weir_websocket_closes_total",
                          .help = "WebSockets that ended, by close code (1006: without a close frame).",
                          .type = METRIC_COUNTER,
                          .labels = {"route", "code"}},
    [FLOODS] = {.name = "weir_http2_floods_total",
                .help = "HTTP/2 connections closed for flooding, by what they flooded with.",
                .type = METRIC_COUNTER,
                .labels = {"kind"}},
    [REFUSED_CONNECTIONS] = {.name = "weir_connections_refused_total",
                             .help = "Connections closed as soon as they were accepted.",
                             .type = METRIC_COUNTER,
                             .labels = {"reason"}},
    [SECURITY] = {.name = "weir_security_events_total",
                  .help = "Events of the log's lines \"security\", also those that were left out there.",
                  .type = METRIC_COUNTER,
                  .labels = {"event"}},
};

void telemetry_init(struct telemetry *telemetry)
{
    telemetry->shard = metrics_shard_create(families, FAMILIES);
    telemetry->requests_in_flight = metrics_series(telemetry->shard, REQUESTS_IN_FLIGHT, NULL);
    telemetry->streams_in_flight = metrics_series(telemetry->shard, STREAMS_IN_FLIGHT, NULL);
    telemetry->connections = metrics_series(telemetry->shard, CONNECTIONS, NULL);
    telemetry->between_events = metrics_series(telemetry->shard, BETWEEN_EVENTS, NULL);
}

void telemetry_dispose(struct telemetry *telemetry)
{
    metrics_shard_destroy(telemetry->shard);
    free(telemetry->allowed);
}

static void count(struct worker *worker, enum family family, const struct span *labels, int64_t n)
{
    if (n != 0)
        metric_add(metrics_series(worker->telemetry.shard, family, labels), n);
}

void telemetry_limit_refused(struct worker *worker, const char *limit)
{
    struct span labels[] = {span_of(limit), SPAN("refused")};
    count(worker, LIMITED, labels, 1);
}

static struct metric_series *allowed_series(struct worker *worker, const struct config_limit *limit)
{
    struct span labels[] = {limit != NULL ? span_of(limit->name) : SPAN("key"), SPAN("allowed")};
    return metrics_series(worker->telemetry.shard, LIMITED, labels);
}

void telemetry_limit_allowed(const struct call *call, const struct config_limit *limit)
{
    struct worker *worker = call->worker;
    struct telemetry *telemetry = &worker->telemetry;
    const struct config *config = call->site->config;
    if (call->site != worker->site) { /* it will soon be gone */
        metric_add(allowed_series(worker, limit), 1);
        return;
    }
    if (telemetry->allowed_site != call->site->number) {
        free(telemetry->allowed);
        telemetry->allowed = calloc(config->limit_count + 1, sizeof(struct metric_series *));
        if (telemetry->allowed == NULL)
            abort();
        telemetry->allowed_site = call->site->number;
    }
    struct metric_series **series =
        &telemetry->allowed[limit != NULL ? (size_t)(limit - config->limits) : config->limit_count];
    if (*series == NULL)
        *series = allowed_series(worker, limit);
    metric_add(*series, 1);
}

void telemetry_limit_fallback(struct worker *worker, enum redis_failure why)
{
    const struct span labels[] = {span_of(redis_failure_name(why))};
    count(worker, LIMIT_FALLBACKS, labels, 1);
}

static const struct span cache_words[] = {
    [CALL_CACHE_HIT] = SPAN("hit"), [CALL_CACHE_MISS] = SPAN("miss"), [CALL_CACHE_BYPASS] = SPAN("bypass")};

void telemetry_cached(struct worker *worker, enum call_cache_state state, const char *reason)
{
    struct telemetry *telemetry = &worker->telemetry;
    struct span labels[] = {cache_words[state], span_of(reason)};
    if (*reason != '\0') {
        count(worker, CACHED, labels, 1);
        return;
    }
    if (telemetry->cached[state] == NULL)
        telemetry->cached[state] = metrics_series(telemetry->shard, CACHED, labels);
    metric_add(telemetry->cached[state], 1);
}

void telemetry_refused_connection(struct worker *worker, const char *reason)
{
    struct span label = span_of(reason);
    count(worker, REFUSED_CONNECTIONS, &label, 1);
}

void telemetry_flood(struct worker *worker, const char *kind)
{
    struct span label = span_of(kind);
    count(worker, FLOODS, &label, 1);
}

void telemetry_security(struct worker *worker, const char *event)
{
    struct span label = span_of(event);
    count(worker, SECURITY, &label, 1);
}

void telemetry_upstream_error(struct worker *worker, const char *backend, enum stream_failure why)
{
    if (backend == NULL)
        return; /* a stored answer broke: the cache counts that */
    struct span labels[] = {span_of(backend), span_of(stream_failure_name(why))};
    count(worker, UPSTREAM_ERRORS, labels, 1);
}

void telemetry_upstream_refused(struct worker *worker, const char *backend, int status)
{
    char text[24];
    snprintf(text, sizeof(text), "status_%d", status);
    struct span labels[] = {span_of(backend), span_of(text)};
    count(worker, UPSTREAM_ERRORS, labels, 1);
}

void telemetry_retried(struct worker *worker, const char *backend, const char *reason)
{
    struct span labels[] = {span_of(backend), span_of(reason)};
    count(worker, RETRIES, labels, 1);
}

void telemetry_retry_refused(struct worker *worker)
{
    count(worker, RETRIES_REFUSED, NULL, 1);
}

void telemetry_queued(struct worker *worker, const char *result, uint64_t waited_us)
{
    struct span label = span_of(result);
    metric_observe_us(metrics_series(worker->telemetry.shard, QUEUED, &label), waited_us);
}

struct metric_series *telemetry_backend_in_flight(struct worker *worker, const char *backend, const char *model)
{
    struct span labels[] = {span_of(backend), span_of(model)};
    return metrics_series(worker->telemetry.shard, BACKEND_IN_FLIGHT, labels);
}

/* Labels come from the route table, the configuration and, for answers that a backend gave with 200, the model's name:
 * clients cannot make series at will. */
static void count_call(struct call *call, uint64_t duration_us)
{
    struct worker *worker = call->worker;
    const struct call_record *record = &call->record;
    struct span route = call->route != NULL ? call->route->route.path : SPAN("none");
    struct span backend = span_of(record->backend), model = {call->model, call->model_len};
    char digits[12];
    struct strbuf status;
    strbuf_init_fixed(&status, digits, sizeof(digits));
    strbuf_i64(&status, record->status);
    struct span request_labels[] = {route, backend, strbuf_span(&status)};
    count(worker, REQUESTS, request_labels, 1);
    metric_observe_us(metrics_series(worker->telemetry.shard, DURATION, &route), duration_us);
    count(worker, BYTES, &route, (int64_t)record->bytes);
    if (record->refusal != NULL) {
        struct span labels[] = {route, span_of(record->refusal)};
        count(worker, REFUSALS, labels, 1);
    }
    if (record->events != 0 && record->first_us != 0) {
        struct span labels[] = {model, backend};
        metric_observe_us(metrics_series(worker->telemetry.shard, FIRST_TOKEN, labels),
                          record->first_us - record->started_us);
    }
    if (record->usage.known) {
        struct span key = call->identity != NULL ? span_of(call->identity->name) : SPAN_NONE;
        struct span labels[] = {key, model, SPAN("prompt")};
        count(worker, TOKENS, labels, (int64_t)record->usage.prompt);
        labels[2] = SPAN("completion");
        count(worker, TOKENS, labels, (int64_t)record->usage.completion);
        labels[2] = SPAN("cached");
        count(worker, TOKENS, labels, (int64_t)record->usage.cached);
    }
}

void telemetry_log_client(struct log_line *line, const struct in6_addr *client)
{
    char text[INET6_ADDRSTRLEN];
    if (IN6_IS_ADDR_UNSPECIFIED(client))
        return;
    if (!IN6_IS_ADDR_V4MAPPED(client)) {
        inet_ntop(AF_INET6, client, text, sizeof(text));
        log_str(line, "client", span_of(text));
        return;
    }
    char *at = text; /* inet_ntop is made of printf, which costs as much as half the line */
    for (size_t i = 12; i < 16; i++) {
        unsigned octet = client->s6_addr[i];
        if (octet >= 100)
            *at++ = (char)('0' + octet / 100);
        if (octet >= 10)
            *at++ = (char)('0' + octet / 10 % 10);
        *at++ = (char)('0' + octet % 10);
        *at++ = '.';
    }
    log_str(line, "client", (struct span){text, (size_t)(at - text) - 1});
}

static void log_call(struct call *call, uint64_t duration_us)
{
    const struct call_record *record = &call->record;
    enum log_level level = record->failure != STREAM_NOT_FAILED ? LOG_WARN : LOG_INFO;
    if (!log_enabled(level))
        return;
    struct log_line line;
    log_begin(&line, level, "request");
    log_str(&line, "request_id", span_of(call->request_id));
    log_str(&line, "socket", span_of(call->socket));
    log_str(&line, "trace_id", span_of(call->trace_id));
    telemetry_log_client(&line, &call->client);
    log_str(&line, "key", call->identity != NULL ? span_of(call->identity->name) : SPAN_NONE);
    log_str(&line, "method", call->method);
    log_str(&line, "path", call->path); /* never the query: it may hold a key */
    log_str(&line, "route", call->route != NULL ? call->route->route.path : SPAN_NONE);
    log_str(&line, "model", (struct span){call->model, call->model_len});
    log_str(&line, "backend", span_of(record->backend));
    if (record->attempts > 1)
        log_int(&line, "attempts", record->attempts);
    log_int(&line, "status", record->status);
    log_int(&line, "bytes", (int64_t)record->bytes);
    if (record->events != 0)
        log_int(&line, "events", (int64_t)record->events);
    if (record->usage.known) {
        log_int(&line, "prompt_tokens", (int64_t)record->usage.prompt);
        log_int(&line, "completion_tokens", (int64_t)record->usage.completion);
        if (record->usage.cached != 0)
            log_int(&line, "cached_tokens", (int64_t)record->usage.cached);
    }
    if (record->limited)
        log_int(&line, "limit_remaining", (int64_t)record->limit_remaining);
    if (call->cache.state != CALL_CACHE_UNUSED)
        log_str(&line, "cache", cache_words[call->cache.state]);
    if (record->first_us != 0)
        log_ms(&line, "first_ms", record->first_us - record->started_us);
    log_ms(&line, "duration_ms", duration_us);
    log_str(&line, "end", span_of(record->end));
    log_str(&line, "refusal", span_of(record->refusal));
    log_str(&line, "problem", span_of(record->problem));
    log_end(&line);
}

void telemetry_call_done(struct call *call)
{
    uint64_t duration_us = clock_us() - call->record.started_us;
    count_call(call, duration_us);
    log_call(call, duration_us);
}

void telemetry_bad_request(struct worker *worker, int status, const char *request_id)
{
    char text[12];
    snprintf(text, sizeof(text), "%d", status);
    struct span labels[] = {SPAN("none"), SPAN_NONE, span_of(text)};
    count(worker, REQUESTS, labels, 1);
    struct span reason[] = {SPAN("none"), SPAN("malformed")};
    count(worker, REFUSALS, reason, 1);
    struct log_line line;
    log_begin(&line, LOG_INFO, "request");
    log_str(&line, "request_id", span_of(request_id));
    log_int(&line, "status", status);
    log_str(&line, "end", SPAN("refused"));
    log_str(&line, "refusal", SPAN("malformed"));
    log_end(&line);
}

void telemetry_websocket_opened(const struct ws_session *session, struct metric_series **series)
{
    struct metrics_shard *shard = session->worker->telemetry.shard;
    struct span route = session->route->route.path;
    count(session->worker, WEBSOCKETS, &route, 1);
    for (size_t i = 0; i < 2; i++) {
        struct span labels[] = {route, i == 0 ? SPAN("in") : SPAN("out")};
        series[2 * i] = metrics_series(shard, WEBSOCKET_MESSAGES, labels);
        series[2 * i + 1] = metrics_series(shard, WEBSOCKET_BYTES, labels);
    }
}

void telemetry_websocket_received(struct metric_series *const *series, bool last, size_t bytes)
{
    metric_add(series[0], last);
    metric_add(series[1], (int64_t)bytes);
}

void telemetry_websocket_sent(struct metric_series *const *series, bool last, size_t bytes)
{
    metric_add(series[2], last);
    metric_add(series[3], (int64_t)bytes);
}

/* Of a client's own codes only their kind: it may send any. */
static void code_label(unsigned code, char out[12])
{
    if (code < 3000)
        snprintf(out, 12, "%u", code);
    else
        snprintf(out, 12, "%uxxx", code / 1000);
}

void telemetry_websocket_closed(const struct ws_session *session, const struct telemetry_websocket *facts)
{
    struct worker *worker = session->worker;
    struct span route = session->route->route.path;
    char code[12];
    code_label(facts->code, code);
    count(worker, WEBSOCKETS, &route, -1);
    struct span labels[] = {route, span_of(code)};
    count(worker, WEBSOCKET_CLOSES, labels, 1);
    if (!log_enabled(LOG_INFO))
        return;
    struct log_line line;
    log_begin(&line, LOG_INFO, "websocket");
    log_str(&line, "request_id", span_of(session->request_id));
    log_str(&line, "trace_id", span_of(session->trace_id));
    telemetry_log_client(&line, &session->client);
    log_str(&line, "key", session->identity != NULL ? span_of(session->identity->name) : SPAN_NONE);
    log_str(&line, "route", route);
    log_int(&line, "code", facts->code);
    log_str(&line, "reason", facts->reason);
    log_str(&line, "closed_by", facts->by_client ? SPAN("client") : SPAN("gateway"));
    log_int(&line, "messages_in", (int64_t)facts->messages[0]);
    log_int(&line, "messages_out", (int64_t)facts->messages[1]);
    log_int(&line, "bytes_in", (int64_t)facts->bytes[0]);
    log_int(&line, "bytes_out", (int64_t)facts->bytes[1]);
    log_ms(&line, "duration_ms", clock_us() - facts->opened_us);
    log_end(&line);
}
