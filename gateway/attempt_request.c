/* The request as a backend gets it. */
#include "base/http_text.h"
#include "base/strbuf.h"
#include "gateway/attempt.h"
#include "gateway/splice.h"

/* Headers that end here: RFC 9110 §7.6.1, what weir decides itself, and what concerns this gateway alone. By length,
 * because each header of each request is asked about. */
static bool always_ends_here(struct span name)
{
    switch (name.len) {
    case 2:
        return span_eq(name, SPAN("te"));
    case 4:
        return span_eq(name, SPAN("host"));
    case 6:
        return span_eq(name, SPAN("expect"));
    case 7:
        return span_eq(name, SPAN("trailer")) || span_eq(name, SPAN("upgrade"));
    case 9:
        return span_eq(name, SPAN("forwarded"));
    case 10:
        return span_eq(name, SPAN("connection")) || span_eq(name, SPAN("keep-alive")) ||
               span_eq(name, SPAN("tracestate"));
    case 11:
        return span_eq(name, SPAN("traceparent"));
    case 12:
        return span_eq(name, SPAN("x-request-id"));
    case 14:
        return span_eq(name, SPAN("content-length"));
    case 15:
        return span_eq(name, SPAN("accept-encoding")) || span_eq(name, SPAN("x-forwarded-for"));
    case 16:
        return span_eq(name, SPAN("proxy-connection")) || span_eq(name, SPAN("x-forwarded-host"));
    case 17:
        return span_eq(name, SPAN("transfer-encoding")) || span_eq(name, SPAN("x-forwarded-proto"));
    case 19:
        return span_eq(name, SPAN("proxy-authorization"));
    default:
        return false;
    }
}

static bool ends_here(const struct call *call, struct span name)
{
    /* A browser's cookies and origin are between it and this gateway; Ollama, for one, refuses origins it does not
     * know. */
    static const struct span browser[] = {SPAN("cookie"), SPAN("origin")};
    return always_ends_here(name) || span_starts(name, SPAN("x-weir-")) ||
           (call->route->proxy == NULL && span_in(name, browser, sizeof(browser) / sizeof(browser[0])));
}

static bool is_connection(const struct header *header)
{
    return span_eq(header->name, SPAN("connection"));
}

/* Whether the request's first `count` headers name this one as the connection's. */
static bool is_connection_option(const struct call *call, size_t count, struct span name)
{
    for (size_t i = 0; i < count; i++)
        if (is_connection(&call->headers[i]) && http_text_list_has(call->headers[i].value, name))
            return true;
    return false;
}

bool attempt_forwards(const struct call *call, struct span name)
{
    return !ends_here(call, name) && !is_connection_option(call, call->header_count, name);
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
    size_t options = call->header_count; /* no header Connection stands behind these */
    while (options != 0 && !is_connection(&call->headers[options - 1]))
        options--;
    for (size_t i = 0; i < call->header_count; i++) {
        struct span name = call->headers[i].name;
        if (!ends_here(call, name) && !is_connection_option(call, options, name))
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
