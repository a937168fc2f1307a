#include "gateway/completion.h"
#include "base/http_text.h"
#include "base/strbuf.h"
#include "gateway/answer_cache.h"
#include "gateway/splice.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <stdio.h>

#define EXTRA_HEADERS 3
#define MODEL_JSON_MAX ((size_t)4096)

static void try_next(struct completion *completion);
static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream);
static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent);

/* ---- the request as a backend gets it ---- */

/* Headers that end here: RFC 9110 §7.6.1, what weir decides itself, and what concerns this gateway alone. */
static bool ends_here(const struct call *call, struct span name)
{
    static const struct span names[] = {
        SPAN("connection"),
        SPAN("keep-alive"),
        SPAN("proxy-connection"),
        SPAN("proxy-authorization"),
        SPAN("te"),
        SPAN("trailer"),
        SPAN("transfer-encoding"),
        SPAN("upgrade"),
        SPAN("content-length"),
        SPAN("host"),
        SPAN("expect"),
        SPAN("accept-encoding"),
        SPAN("x-forwarded-for"),
        SPAN("x-forwarded-proto"),
        SPAN("x-forwarded-host"),
        SPAN("forwarded"),
        SPAN("x-request-id"),
        SPAN("traceparent"),
        SPAN("tracestate"),
    };
    /* A browser's cookies and origin are between it and this gateway; Ollama, for one, refuses origins it does not
     * know. */
    static const struct span browser[] = {SPAN("cookie"), SPAN("origin")};
    return span_in(name, names, sizeof(names) / sizeof(names[0])) || span_starts(name, SPAN("x-weir-")) ||
           (call->route->proxy == NULL && span_in(name, browser, sizeof(browser) / sizeof(browser[0])));
}

static bool is_connection_option(const struct call *call, struct span name)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (span_eq(call->headers[i].name, SPAN("connection")) && http_text_list_has(call->headers[i].value, name))
            return true;
    return false;
}

/* Fills in everything but the body. `headers` has room for the call's own and EXTRA_HEADERS more. */
static void make_request(struct call *call, struct header *headers, struct exchange_request *request)
{
    *request = (struct exchange_request){
        .method = call->method,
        .path = call->path,
        .query = call->query,
        .headers = headers,
        .has_body = call->has_body,
        .forward_credentials = call->site->config->key_count == 0, /* else it may be a key to this gateway */
        .dialect = call->route->route.dialect,
        .wants_stream = call_wants_stream(call),
    };
    for (size_t i = 0; i < call->header_count; i++) {
        struct span name = call->headers[i].name;
        if (!ends_here(call, name) && !is_connection_option(call, name))
            headers[request->header_count++] = call->headers[i];
    }
    headers[request->header_count++] = (struct header){SPAN("x-request-id"), span_of(call->request_id)};
    headers[request->header_count++] = (struct header){SPAN("traceparent"), call->traceparent};
    if (call->tracestate.len != 0)
        headers[request->header_count++] = (struct header){SPAN("tracestate"), call->tracestate};
}

/* Puts the backend's own name for the model into the body, and where `ask` the question for its usage. */
static void set_body(struct completion *completion, struct span name, bool ask, struct exchange_request *request)
{
    struct call *call = completion->call;
    struct splice splices[SPLICES_MAX];
    size_t count = 0;
    request->model = name;
    const struct json_value *model = &call->fields[BODY_MODEL], *options = call_field(call, SPAN("stream_options"));
    if (model->type == JSON_STRING && !span_eq(name, call_model(call))) {
        strbuf_reset(&completion->_model);
        strbuf_json(&completion->_model, name);
        splices[count++] = (struct splice){model->raw, strbuf_span(&completion->_model)};
    }
    if (ask && request->wants_stream && options != NULL && splice_usage(&call->root, options, &splices[count])) {
        request->hide_usage = true;
        count++;
    }
    splice_body(call->body, splices, count, request->body);
}

/* ---- the walk ---- */

void completion_start(struct completion *completion, struct call *call)
{
    completion->call = call;
    strbuf_init(&completion->_model, MODEL_JSON_MAX);
    pool_walk_start(call->pool, &completion->_walk, call_model(call), call->route->proxy);
    try_next(completion);
}

void completion_end(struct completion *completion)
{
    if (completion->call == NULL)
        return;
    if (completion->_exchange != NULL)
        exchange_cancel(completion->_exchange);
    completion->_exchange = NULL;
    completion->call = NULL;
    strbuf_dispose(&completion->_model);
}

static void refuse_unknown_model(struct call *call)
{
    char message[CALL_MODEL_MAX + 80];
    struct span model = call_model(call);
    snprintf(message, sizeof(message), "The model '%.*s' does not exist or you do not have access to it.",
             (int)model.len, model.base);
    struct dialect_error error = {.status = 404, .code = "model_not_found", .param = "model", .message = message};
    call_refuse(call, "model_not_found", &error);
}

static void try_next(struct completion *completion)
{
    struct call *call = completion->call;
    struct span upstream_model;
    struct upstream *upstream = pool_walk_next(call->pool, &completion->_walk, &upstream_model);
    if (upstream == NULL) {
        if (call->record.attempts == 0)
            refuse_unknown_model(call);
        else
            completion_failed(call, call->record.failure, call->record.problem);
        return;
    }
    static const struct exchange_callbacks callbacks = {.on_head = on_head, .on_fail = on_fail};
    call->record.attempts++;
    call->record.backend = upstream_settings(upstream)->name;
    struct header headers[call->header_count + EXTRA_HEADERS];
    struct exchange_request request;
    make_request(call, headers, &request);
    set_body(completion, upstream_model, upstream_settings(upstream)->usage == BACKEND_USAGE_ASK, &request);
    /* After NULL on_fail has been called, and with it perhaps the end of the call: nothing may be touched. */
    struct exchange *exchange = exchange_start(upstream, &request, &callbacks, completion);
    if (exchange != NULL)
        completion->_exchange = exchange;
}

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream)
{
    struct completion *completion = ctx;
    completion->_exchange = NULL;
    answer_cache_store(completion->call, head, stream);
    completion->call->transport->stream(completion->call, head, stream);
}

static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent)
{
    struct completion *completion = ctx;
    struct call *call = completion->call;
    completion->_exchange = NULL;
    call->record.failure = why;
    snprintf(call->record.problem, sizeof(call->record.problem), "%s", message != NULL ? message : "");
    telemetry_upstream_error(call->worker, call->record.backend, why);
    if (!sent)
        try_next(completion);
    else
        completion_failed(call, why, call->record.problem);
}

/* ---- failures ---- */

void completion_error(enum stream_failure why, const char *message, struct dialect_error *error)
{
    *error = (struct dialect_error){.status = 502, .code = "backend_failed", .message = message};
    switch (why) {
    case STREAM_CONNECT:
        error->code = "backend_unreachable";
        error->message = "The model's server cannot be reached.";
        break;
    case STREAM_TIMEOUT_CONNECT:
    case STREAM_TIMEOUT_FIRST:
    case STREAM_TIMEOUT_IDLE:
    case STREAM_TIMEOUT_TOTAL:
        error->status = 504;
        error->code = "backend_timeout";
        break;
    default:
        break;
    }
}

void completion_failed(struct call *call, enum stream_failure why, const char *message)
{
    struct dialect_error error;
    completion_error(why, message, &error);
    call->record.end = stream_failure_name(why);
    /* Once the request was sent, generation may have begun: trying again would pay for it twice. */
    bool generating = why == STREAM_TIMEOUT_FIRST || why == STREAM_TIMEOUT_IDLE || why == STREAM_TIMEOUT_TOTAL;
    call->transport->refuse(call, &error, 0, generating ? -1 : 0);
}
