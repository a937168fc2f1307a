/* Answers that weir makes itself, and the parts that all answers share. */
#include "base/clock.h"
#include "gateway/answer_cache.h"
#include "gateway/http_whole.h"
#include "gateway/limit.h"
#include "gateway/security.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"

#define ERROR_BODY_MAX ((size_t)16384)

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return status < 400 ? "OK" : "Error";
}

void http_reply_header(struct http_call *http, struct span name, struct span value)
{
    if (http_whole_begun(http)) {
        http_whole_header(http, name, value);
        return;
    }
    h2o_add_header_by_str(&http->req->pool, &http->req->res.headers, name.base, name.len, 1, NULL, value.base,
                          value.len);
}

/* As http_reply_header, for a name that libh2o has no token for. */
static void add_named(struct http_call *http, struct span name, struct span value)
{
    if (http_whole_begun(http)) {
        http_whole_header(http, name, value);
        return;
    }
    h2o_add_header_by_str(&http->req->pool, &http->req->res.headers, name.base, name.len, 0, NULL, value.base,
                          value.len);
}

static struct span pool_copy(struct http_call *http, struct span text)
{
    h2o_iovec_t copy = h2o_strdup(&http->req->pool, text.base, text.len);
    return (struct span){copy.base, copy.len};
}

/* For headers whose values are made on the way: copies the value. */
static void add_copied(void *ctx, struct span name, struct span value)
{
    http_reply_header(ctx, name, http_whole_begun(ctx) ? value : pool_copy(ctx, value));
}

static void add_limit(void *ctx, struct span name, struct span value)
{
    add_named(ctx, name, value);
}

static void add_limits(struct http_call *http)
{
    char lines[LIMIT_HEADERS_LINES];
    if (http_whole_begun(http))
        http_whole_lines(http, limit_header_lines(&http->call, lines));
    else
        limit_headers(&http->call, h2o_mem_alloc_pool(&http->req->pool, LIMIT_HEADERS_TEXT), add_limit, http);
}

/* How many backends were asked; nearly always one. */
static void add_attempts(struct http_call *http)
{
    char text[12];
    struct span value = SPAN("1");
    if (http->call.record.attempts != 1) {
        int len = snprintf(text, sizeof(text), "%u", http->call.record.attempts);
        value = pool_copy(http, (struct span){text, (size_t)len});
    }
    add_named(http, SPAN("x-weir-attempts"), value);
}

void http_reply_common_headers(struct http_call *http)
{
    if (http_whole_begun(http))
        http_whole_header(http, SPAN("server"), SPAN("weir"));
    else
        h2o_add_header(&http->req->pool, &http->req->res.headers, H2O_TOKEN_SERVER, NULL, H2O_STRLIT("weir"));
    add_named(http, SPAN("x-request-id"), span_of(http->call.request_id));
    if (http->call.record.attempts != 0)
        add_attempts(http);
    if (limit_has_headers(&http->call))
        add_limits(http);
    answer_cache_headers(&http->call, add_copied, http);
    if (http->call.site->config->cors.count == 0)
        return;
    if (http->cors_vary)
        http_reply_header(http, SPAN("vary"), SPAN("Origin"));
    if (http->cors_origin.len != 0) {
        http_reply_header(http, SPAN("access-control-allow-origin"), http->cors_origin);
        http_reply_header(http, SPAN("access-control-expose-headers"), SPAN("x-request-id, retry-after"));
    }
}

void http_reply_start(struct http_call *http)
{
    http->phase = HTTP_STREAMING;
    http_whole_give_up(http);
    h2o_start_response(http->req, &http->generator);
}

/* Sends a whole answer; `body` lives in the request's pool or is static. */
static void send_whole(struct http_call *http, int status, struct span content_type, struct span body)
{
    h2o_req_t *req = http->req;
    req->res.status = status;
    req->res.reason = http_reason(status);
    /* RFC 9110 §8.6: a 204 has none, a 304's were that of a 200. */
    req->res.content_length = status != 204 && status != 304 ? body.len : SIZE_MAX;
    if (content_type.len != 0)
        http_reply_header(http, SPAN("content-type"), content_type);
    http_reply_common_headers(http);
    http->call.record.status = status;
    http->call.record.bytes = body.len;
    if (http->call.record.end == NULL)
        http->call.record.end = http->call.record.refusal != NULL ? "refused" : "finished";
    limit_settle(&http->call);
    http->generator = (h2o_generator_t){NULL, NULL};
    h2o_start_response(req, &http->generator);
    http->phase = HTTP_ENDED;
    http->sent_us = clock_us();
    http_stream_watch_end(http);
    h2o_iovec_t out = h2o_iovec_init(body.base, body.len);
    bool bodyless = span_eq(http->call.method, SPAN("HEAD")) || body.len == 0;
    h2o_send(req, &out, bodyless ? 0 : 1, H2O_SEND_STATE_FINAL);
}

/* Forgets a backend's head that was prepared and not sent. */
static void forget_head(struct http_call *http)
{
    http_whole_forget(http);
    memset(&http->req->res.headers, 0, sizeof(http->req->res.headers));
    http->head_ready = false;
}

void http_reply_answer(struct call *call, int status, struct span content_type, struct span body)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, call, call);
    if (http->phase != HTTP_WAITING) {
        /* Committed to a stream by early_head, while a dependency waited. */
        struct dialect_error error = {.status = 502,
                                      .code = "no_stream",
                                      .message = "The answer is no stream, and the gateway has begun one (early_head).",
                                      .request_id = call->request_id};
        http_stream_fail(http, &error);
        return;
    }
    if (status != 304)
        http_reply_header(http, SPAN("cache-control"), SPAN("no-store"));
    send_whole(http, status, content_type, pool_copy(http, body));
}

/* Errors follow the route's dialect; a path that no route covers still tells whose SDK is asking. */
static const struct dialect *error_dialect(const struct call *call)
{
    if (call->route != NULL)
        return dialect_get(call->route->route.dialect);
    return dialect_get(span_starts(call->path, SPAN("/v1/messages")) ? DIALECT_MESSAGES : DIALECT_NONE);
}

void http_reply_refuse(struct call *call, const struct dialect_error *given, unsigned retry_after, int retry)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, call, call);
    struct dialect_error error = *given;
    error.request_id = call->request_id;
    if (http->phase != HTTP_WAITING) {
        http_stream_fail(http, &error);
        return;
    }
    if (http->head_ready)
        forget_head(http);
    struct strbuf body;
    strbuf_init(&body, ERROR_BODY_MAX);
    dialect_error_body(error_dialect(call), &error, &body);
    if (error.status == 401)
        http_reply_header(http, SPAN("www-authenticate"), SPAN("Bearer"));
    if (retry_after != 0) {
        char text[12];
        snprintf(text, sizeof(text), "%u", retry_after);
        http_reply_header(http, SPAN("retry-after"), pool_copy(http, span_of(text)));
    }
    if (retry < 0 || retry_after > 60)
        http_reply_header(http, SPAN("x-should-retry"), SPAN("false"));
    struct span copy = pool_copy(http, strbuf_span(&body));
    strbuf_dispose(&body);
    send_whole(http, error.status, SPAN("application/json"), copy);
}

void http_reply_method_not_allowed(struct http_call *http, unsigned methods)
{
    char allow[64];
    route_allow(methods, allow);
    http_reply_header(http, SPAN("allow"), pool_copy(http, span_of(allow)));
    struct dialect_error error = {.status = 405, .message = "Method Not Allowed"};
    http_reply_refuse(&http->call, &error, 0, 0);
}

void http_reply_preflight(struct http_call *http, bool allowed)
{
    struct span headers = call_header(&http->call, SPAN("access-control-request-headers"));
    if (!allowed) {
        send_whole(http, 400, SPAN("text/plain; charset=utf-8"), SPAN("Disallowed CORS origin"));
        return;
    }
    http_reply_header(http, SPAN("access-control-allow-methods"), SPAN("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    http_reply_header(http, SPAN("access-control-max-age"), SPAN("600"));
    if (headers.len != 0)
        http_reply_header(http, SPAN("access-control-allow-headers"), headers);
    send_whole(http, 200, SPAN("text/plain; charset=utf-8"), SPAN("OK"));
}

/* ---- errors that libh2o makes before any handler runs ---- */

struct library_error {
    h2o_ostream_t super;
    struct span body;
};

static void send_library_error(h2o_ostream_t *ostream, h2o_req_t *req, h2o_iovec_t *bufs, size_t count,
                               h2o_send_state_t state)
{
    struct library_error *self = (struct library_error *)ostream;
    (void)bufs;
    (void)count;
    h2o_iovec_t out = h2o_iovec_init(self->body.base, self->body.len);
    bool to_head = h2o_memis(req->input.method.base, req->input.method.len, H2O_STRLIT("HEAD"));
    h2o_ostream_send_next(&self->super, req, &out, to_head ? 0 : 1, state);
}

struct span http_reply_library_error(h2o_req_t *req)
{
    char id[REQUEST_ID_LEN + 1];
    ids_request(id);
    const char *message = req->res.status == 413   ? "The request body is larger than this gateway accepts (max_body)."
                          : req->res.status == 417 ? "Only 'Expect: 100-continue' is understood."
                                                   : "Malformed request.";
    bool messages = span_starts((struct span){req->input.path.base, req->input.path.len}, SPAN("/v1/messages"));
    struct dialect_error error = {.status = req->res.status, .message = message, .request_id = id};
    struct strbuf body;
    strbuf_init(&body, ERROR_BODY_MAX);
    dialect_error_body(dialect_get(messages ? DIALECT_MESSAGES : DIALECT_NONE), &error, &body);
    h2o_iovec_t copy = h2o_strdup(&req->pool, body.base, body.len),
                id_copy = h2o_strdup(&req->pool, id, REQUEST_ID_LEN);
    strbuf_dispose(&body);
    req->res.content_length = copy.len;
    memset(&req->res.headers, 0, sizeof(req->res.headers));
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_SERVER, NULL, H2O_STRLIT("weir"));
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, H2O_STRLIT("application/json"));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("x-request-id"), 0, NULL, id_copy.base,
                          id_copy.len);
    if (req->res.status == 400) {
        struct in6_addr client = http_peer_address(req);
        security_event(worker_of(req), SECURITY_MALFORMED, &client, SPAN("framing"));
    }
    telemetry_bad_request(worker_of(req), req->res.status, id);
    return (struct span){copy.base, copy.len};
}

/* Puts the usual body in place of libh2o's text. */
static void on_library_error(h2o_filter_t *filter, h2o_req_t *req, h2o_ostream_t **slot)
{
    (void)filter;
    struct library_error *self = (struct library_error *)h2o_add_ostream(req, sizeof(*self), slot);
    self->super.do_send = send_library_error;
    self->body = http_reply_library_error(req);
    h2o_setup_next_ostream(req, &self->super.next);
}

void http_reply_register_library_errors(h2o_hostconf_t *host)
{
    h2o_filter_t *filter = h2o_create_filter(&host->fallback_path, sizeof(*filter));
    filter->on_setup_ostream = on_library_error;
}
