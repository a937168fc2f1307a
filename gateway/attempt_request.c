/* The request as a backend gets it. */
#include "base/http_text.h"
#include "base/strbuf.h"
#include "gateway/attempt.h"
#include "gateway/splice.h"

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

bool attempt_forwards(const struct call *call, struct span name)
{
    return !ends_here(call, name) && !is_connection_option(call, name);
}

void attempt_request(struct call *call, struct header *headers, struct exchange_request *request)
{
    struct call_target target = call_target(call);
    *request = (struct exchange_request){
        .method = target.method,
        .path = target.path,
        .query = target.query,
        .headers = headers,
        .has_body = call->has_body,
        .forward_credentials = call->site->config->key_count == 0, /* else it may be a key to this gateway */
        .dialect = call->chat != NULL ? DIALECT_CHAT : call->route->route.dialect,
        .wants_stream = call_wants_stream(call),
    };
    for (size_t i = 0; i < call->header_count; i++) {
        struct span name = call->headers[i].name;
        if (attempt_forwards(call, name))
            headers[request->header_count++] = call->headers[i];
    }
    headers[request->header_count++] = (struct header){SPAN("x-request-id"), span_of(call->request_id)};
    headers[request->header_count++] = (struct header){SPAN("traceparent"), call->traceparent};
    if (call->tracestate.len != 0)
        headers[request->header_count++] = (struct header){SPAN("tracestate"), call->tracestate};
}

void attempt_request_body(struct call *call, struct span name, bool ask, struct strbuf *json,
                          struct exchange_request *request)
{
    struct splice splices[SPLICES_MAX];
    size_t count = 0;
    request->model = name;
    const struct json_value *model = &call->fields[BODY_MODEL], *options = call_field(call, SPAN("stream_options"));
    if (model->type == JSON_STRING && !span_eq(name, call_model(call))) {
        strbuf_json(json, name);
        splices[count++] = (struct splice){model->raw, strbuf_span(json)};
    }
    if (ask && request->wants_stream && options != NULL && splice_usage(&call->root, options, &splices[count])) {
        request->hide_usage = true;
        count++;
    }
    splice_body(call->body, splices, count, request->body);
}
