#include "backends/request_head.h"
#include "base/http_text.h"

static bool is_credential(struct span name)
{
    return span_eq(name, SPAN("authorization")) || span_eq(name, SPAN("x-api-key")) || span_eq(name, SPAN("api-key"));
}

/* Whether the backend's settings decide about this header themselves. */
static bool is_overridden(const struct backend_settings *settings, const struct exchange_request *request,
                          struct span name)
{
    if (is_credential(name) && (settings->api_key != NULL || !request->forward_credentials))
        return true;
    for (size_t i = 0; i < settings->header_count; i++)
        if (span_ieq(span_of(settings->headers[i].name), name))
            return true;
    return false;
}

/* A url with a path takes the place of the client's /v1. */
static void add_target(struct strbuf *out, const struct backend_url *url, const struct exchange_request *request)
{
    struct span path = request->path;
    if (url->path[0] != '\0' && !request->from_root) {
        strbuf_puts(out, url->path);
        if (span_starts(path, SPAN("/v1/")))
            path = span_skip(path, 3);
    }
    strbuf_add(out, path);
    char separator = '?';
    if (url->query != NULL) {
        strbuf_putc(out, separator);
        strbuf_puts(out, url->query);
        separator = '&';
    }
    if (request->query.len != 0) {
        strbuf_putc(out, separator);
        strbuf_add(out, request->query);
    }
}

static uint64_t body_length(const struct exchange_request *request)
{
    uint64_t length = 0;
    for (size_t i = 0; i < EXCHANGE_BODY_PIECES; i++)
        length += request->body[i].len;
    return length;
}

/* About how long the head will be. */
static size_t head_length(const struct exchange_request *request)
{
    size_t length = 256 + request->path.len + request->query.len;
    for (size_t i = 0; i < request->header_count; i++)
        length += request->headers[i].name.len + request->headers[i].value.len + 4;
    return length;
}

bool request_head_write(struct strbuf *out, const struct backend_settings *settings,
                        const struct exchange_request *request)
{
    static const char *const auth_headers[] = {
        [BACKEND_AUTH_BEARER] = "authorization: Bearer ",
        [BACKEND_AUTH_X_API_KEY] = "x-api-key: ",
        [BACKEND_AUTH_API_KEY] = "api-key: ",
    };
    strbuf_expect(out, head_length(request));
    if (!http_text_is_clean(request->path) || !http_text_is_clean(request->query) ||
        memchr(request->path.base, ' ', request->path.len) != NULL ||
        (request->query.len != 0 && memchr(request->query.base, ' ', request->query.len) != NULL))
        return false;
    strbuf_add(out, request->method);
    strbuf_putc(out, ' ');
    add_target(out, &settings->url, request);
    strbuf_add(out, SPAN(" HTTP/1.1\r\n"));
    http_text_add_header(out, SPAN("host"), span_of(settings->url.authority));
    for (size_t i = 0; i < request->header_count; i++) {
        const struct header *header = &request->headers[i];
        if (is_overridden(settings, request, header->name))
            continue;
        size_t at = out->len;
        http_text_add_header(out, header->name, header->value);
        if (out->overflow || !http_text_is_clean((struct span){out->base + at, out->len - at - 2}))
            return false;
    }
    for (size_t i = 0; i < settings->header_count; i++)
        http_text_add_header(out, span_of(settings->headers[i].name), span_of(settings->headers[i].value));
    strbuf_add(out, SPAN("accept-encoding: identity\r\n"));
    if (settings->api_key != NULL) {
        strbuf_puts(out, auth_headers[settings->auth]);
        strbuf_puts(out, settings->api_key);
        strbuf_add(out, SPAN("\r\n"));
    }
    if (request->has_body) {
        strbuf_add(out, SPAN("content-length: "));
        strbuf_u64(out, body_length(request));
        strbuf_add(out, SPAN("\r\n"));
    }
    strbuf_add(out, SPAN("\r\n"));
    return !out->overflow;
}
