#include "gateway/realtime_request.h"
#include "base/http_text.h"
#include "base/query.h"
#include "gateway/attempt.h"
#include "gateway/ws_backend.h"

/* ---- the target ---- */

static void put_pair(struct strbuf *out, struct span name, struct span value, size_t start)
{
    if (out->len != start)
        strbuf_putc(out, '&');
    strbuf_add(out, name);
    strbuf_putc(out, '=');
    strbuf_add(out, value);
}

void realtime_request_query(struct span query, struct span model, bool drop_key, struct strbuf *out)
{
    struct span name, value;
    size_t start = out->len;
    if (model.len != 0) {
        strbuf_puts(out, "model=");
        query_encode(model, out);
    }
    while (query_next(&query, &name, &value))
        if (!query_is_name(name, SPAN("model")) && !(drop_key && query_is_name(name, SPAN("api_key"))))
            put_pair(out, name, value, start);
}

static void put_target(const struct call *call, const struct backend_url *url, struct span model, struct strbuf *out)
{
    struct span path = call->path;
    if (url->path[0] != '\0') {
        strbuf_puts(out, url->path);
        if (span_starts(path, SPAN("/v1/")))
            path = span_skip(path, 3);
    }
    strbuf_add(out, path);
    strbuf_putc(out, '?');
    if (url->query != NULL) {
        strbuf_puts(out, url->query);
        strbuf_putc(out, '&');
    }
    size_t start = out->len;
    realtime_request_query(call->query, model, call->site->config->key_count != 0, out);
    if (out->len == start) /* nothing came behind the separator */
        out->len--;
}

/* ---- headers ---- */

static bool is_credential(struct span name)
{
    return span_eq(name, SPAN("authorization")) || span_eq(name, SPAN("x-api-key")) || span_eq(name, SPAN("api-key"));
}

static bool is_overridden(const struct call *call, const struct backend_settings *settings, struct span name)
{
    if (is_credential(name) && (settings->api_key != NULL || call->site->config->key_count != 0))
        return true;
    for (size_t i = 0; i < settings->header_count; i++)
        if (span_ieq(span_of(settings->headers[i].name), name))
            return true;
    return false;
}

static void put_header(struct strbuf *out, struct span name, struct span value)
{
    strbuf_add(out, name);
    strbuf_add(out, SPAN(": "));
    strbuf_add(out, value);
    strbuf_add(out, SPAN("\r\n"));
}

/* False if there is a line in it that could end early. */
static bool put_headers(const struct call *call, const struct backend_settings *settings, struct strbuf *out)
{
    static const char *const auth_headers[] = {
        [BACKEND_AUTH_BEARER] = "authorization: Bearer ",
        [BACKEND_AUTH_X_API_KEY] = "x-api-key: ",
        [BACKEND_AUTH_API_KEY] = "api-key: ",
    };
    /* libwebsockets writes its own. */
    static const struct span replaced[] = {SPAN("cache-control"), SPAN("pragma"), SPAN("content-type")};
    for (size_t i = 0; i < call->header_count; i++) {
        struct span name = call->headers[i].name, value = call->headers[i].value;
        if (!http_text_is_clean(name) || !http_text_is_clean(value))
            return false;
        if (attempt_forwards(call, name) && !span_starts(name, SPAN("sec-websocket-")) &&
            !span_in(name, replaced, sizeof(replaced) / sizeof(replaced[0])) && !is_overridden(call, settings, name))
            put_header(out, name, value);
    }
    for (size_t i = 0; i < settings->header_count; i++)
        put_header(out, span_of(settings->headers[i].name), span_of(settings->headers[i].value));
    put_header(out, SPAN("x-request-id"), span_of(call->request_id));
    put_header(out, SPAN("traceparent"), call->traceparent);
    if (call->tracestate.len != 0)
        put_header(out, SPAN("tracestate"), call->tracestate);
    if (settings->api_key != NULL) {
        strbuf_puts(out, auth_headers[settings->auth]);
        strbuf_puts(out, settings->api_key);
        strbuf_add(out, SPAN("\r\n"));
    }
    return true;
}

/* All that the client offers where weir accepts no keys, else without those that carry one. */
static void put_protocols(const struct call *call, const struct backend_settings *settings, struct strbuf *out)
{
    struct span protocol;
    bool all = call->site->config->key_count == 0 && settings->api_key == NULL;
    for (size_t cursor = 0;
         all ? call_subprotocol(call, &cursor, &protocol) : ws_offered_protocol(call, &cursor, &protocol);) {
        if (!http_text_is_token(protocol))
            continue;
        if (out->len != 0)
            strbuf_add(out, SPAN(", "));
        strbuf_add(out, protocol);
    }
}

bool realtime_request_make(const struct call *call, const struct backend_settings *settings, struct span model,
                           struct realtime_request *request)
{
    strbuf_init(&request->target, WS_BACKEND_TARGET_MAX);
    strbuf_init(&request->protocols, WS_BACKEND_PROTOCOLS_MAX);
    strbuf_init(&request->headers, WS_BACKEND_HEADERS_MAX);
    put_target(call, &settings->url, model, &request->target);
    put_protocols(call, settings, &request->protocols);
    bool clean = put_headers(call, settings, &request->headers);
    struct span target = strbuf_span(&request->target);
    return clean && http_text_is_clean(target) && memchr(target.base, ' ', target.len) == NULL &&
           !request->target.overflow && !request->protocols.overflow && !request->headers.overflow;
}

void realtime_request_dispose(struct realtime_request *request)
{
    strbuf_dispose(&request->target);
    strbuf_dispose(&request->protocols);
    strbuf_dispose(&request->headers);
}
