/* From libh2o's request to a call. */
#include "base/clock.h"
#include "base/http_text.h"
#include "gateway/address.h"
#include "gateway/http2_guard.h"
#include "gateway/http2_rules.h"
#include "gateway/http_call.h"
#include "gateway/security.h"
#include "gateway/worker.h"
#include <arpa/inet.h>

#define HEADERS_MAX 100 /* HTTP/2 has no bounds of its own */
#define HEAD_MAX ((size_t)64 * 1024)

/* ---- what libh2o lets through ---- */

/* libh2o takes a request with both Content-Length and Transfer-Encoding, or two Content-Lengths, and hides those
 * headers; a server behind that reads them the other way would see a request that was smuggled in (RFC 9112 §6.1,
 * §6.3). The head still stands in the socket's buffer, names in lower case. Returns what is wrong with it, or NULL. */
static const char *find_ambiguity(h2o_req_t *req)
{
    h2o_buffer_t *input = req->conn->callbacks->get_socket(req->conn)->input;
    const char *at = input->bytes, *end = at + input->size;
    unsigned lengths = 0, codings = 0, hosts = 0;
    while (at < end && (*at == '\r' || *at == '\n'))
        at++;
    for (bool first = true; at < end; first = false) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL || *at == '\r')
            break;
        if (newline == at)
            return "a line ends without a carriage return";
        if (!first && (*at == ' ' || *at == '\t'))
            return "a header line is folded";
        /* Some take a line feed alone for the end of a line, some for a part of it (RFC 9112 §2.2). */
        if (newline[-1] != '\r')
            return "a line ends without a carriage return";
        size_t n = (size_t)(newline - at);
        if (!first && n > 15 && memcmp(at, "content-length:", 15) == 0)
            lengths++;
        else if (!first && n > 18 && memcmp(at, "transfer-encoding:", 18) == 0)
            codings++;
        else if (!first && n > 5 && memcmp(at, "host:", 5) == 0)
            hosts++;
        at = newline + 1;
    }
    if (lengths + codings > 1)
        return "Content-Length and Transfer-Encoding contradict each other or stand twice";
    if (hosts > 1)
        return "the Host header stands twice";
    if (hosts == 0 && req->version == 0x101)
        return "the Host header is missing"; /* RFC 9112 §3.2 */
    if (codings == 1 && req->version < 0x101)
        return "Transfer-Encoding in an HTTP/1.0 request";
    return NULL;
}

static struct span span_of_iovec(h2o_iovec_t iovec)
{
    return (struct span){iovec.base, iovec.len};
}

/* HTTP/2 carries any byte in a name or value; as a line of HTTP/1.1 some would be a header, or a request, of their own.
 */
static const char *find_dirt(h2o_req_t *req)
{
    /* libh2o refuses the others (RFC 9113 §8.2.2). */
    static const struct span of_connections[] = {SPAN("keep-alive"), SPAN("proxy-connection")};
    if (!http2_rules_length_agrees(req))
        return "Content-Length promises a body that does not come";
    if (!http_text_is_clean(span_of_iovec(req->path)) || memchr(req->path.base, ' ', req->path.len) != NULL ||
        !http_text_is_token(span_of_iovec(req->method)) || !http_text_is_clean(span_of_iovec(req->authority)))
        return "the request line has characters that do not belong there";
    if (memchr(req->authority.base, '@', req->authority.len) != NULL)
        return "the authority names a user"; /* RFC 9113 §8.3.1 */
    for (size_t i = 0; i < req->headers.size; i++) {
        struct span name = span_of_iovec(*req->headers.entries[i].name);
        struct span value = span_of_iovec(req->headers.entries[i].value);
        if (span_in(name, of_connections, sizeof(of_connections) / sizeof(of_connections[0])))
            return "a header that HTTP/2 does not have";
        if (!http_text_is_clean(value) || !http_text_is_token(name))
            return "a header's name or value has characters that do not belong there";
        if (span_trim(value).len != value.len)
            return "a header's value begins or ends with white space"; /* RFC 9113 §8.2.1 */
    }
    return NULL;
}

/* ---- who and where from ---- */

struct in6_addr http_peer_address(h2o_req_t *req)
{
    struct sockaddr_storage sa;
    socklen_t len = req->conn->callbacks->get_peername(req->conn, (struct sockaddr *)&sa);
    return address_of(len != 0 ? &sa : NULL);
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80". */
static bool parse_address(struct span text, struct in6_addr *out)
{
    char buf[64];
    struct in_addr v4;
    text = span_trim(text);
    if (text.len == 0)
        return false;
    if (text.base[0] == '[') {
        const char *close = memchr(text.base, ']', text.len);
        if (close == NULL)
            return false;
        text = (struct span){text.base + 1, (size_t)(close - text.base - 1)};
    } else {
        const char *colon = memchr(text.base, ':', text.len);
        if (colon != NULL && memchr(colon + 1, ':', (size_t)(text.base + text.len - colon - 1)) == NULL)
            text.len = (size_t)(colon - text.base);
    }
    if (text.len == 0 || text.len >= sizeof(buf))
        return false;
    memcpy(buf, text.base, text.len);
    buf[text.len] = '\0';
    if (inet_pton(AF_INET, buf, &v4) == 1) {
        memset(out, 0, sizeof(*out));
        out->s6_addr[10] = out->s6_addr[11] = 0xff;
        memcpy(&out->s6_addr[12], &v4, 4);
        return true;
    }
    return inet_pton(AF_INET6, buf, out) == 1;
}

/* The right-most address in X-Forwarded-For that is no trusted proxy's, if the peer is one. */
static void find_client(struct call *call, h2o_req_t *req)
{
    const struct config *config = call->site->config;
    call->client = http_peer_address(req);
    if (!config_is_trusted_proxy(config, &call->client))
        return;
    for (size_t i = call->header_count; i-- > 0;) {
        if (!span_eq(call->headers[i].name, SPAN("x-forwarded-for")))
            continue;
        struct span list = call->headers[i].value;
        while (list.len != 0) {
            const char *comma = memrchr(list.base, ',', list.len);
            struct span last = list;
            if (comma != NULL)
                last = span_skip(list, (size_t)(comma + 1 - list.base));
            struct in6_addr address;
            if (!parse_address(last, &address))
                return;
            call->client = address;
            if (!config_is_trusted_proxy(config, &address))
                return;
            list.len = comma != NULL ? (size_t)(comma - list.base) : 0;
        }
    }
}

static void find_ids(struct http_call *http)
{
    struct call *call = &http->call;
    uint8_t flags = 0;
    struct span parent = call_header(call, SPAN("traceparent"));
    if (ids_traceparent_parse(parent, call->trace_id, &flags)) {
        call->traceparent = parent;
        call->tracestate = call_header(call, SPAN("tracestate"));
    } else {
        char *made = h2o_mem_alloc_pool(&http->req->pool, 56);
        ids_hex(call->trace_id, TRACE_ID_LEN);
        call->trace_id[TRACE_ID_LEN] = '\0';
        memcpy(made, "00-", 3);
        memcpy(made + 3, call->trace_id, TRACE_ID_LEN);
        made[3 + TRACE_ID_LEN] = '-';
        ids_hex(made + 4 + TRACE_ID_LEN, SPAN_ID_LEN);
        memcpy(made + 52, "-00", 4);
        call->traceparent = (struct span){made, 55};
    }
    struct span id = call_header(call, SPAN("x-request-id"));
    if (id.len <= CALL_REQUEST_ID_MAX && ids_request_is_sane(id)) {
        memcpy(call->request_id, id.base, id.len);
        call->request_id[id.len] = '\0';
    } else {
        ids_request(call->request_id);
    }
}

static void find_cors(struct http_call *http)
{
    const struct config *config = http->call.site->config;
    if (config->cors.count == 0)
        return;
    struct span origin = call_header(&http->call, SPAN("origin"));
    for (size_t i = 0; i < config->cors.count; i++) {
        if (strcmp(config->cors.origins[i], "*") == 0 && origin.len != 0)
            http->cors_origin = SPAN("*");
        else if (span_eq(span_of(config->cors.origins[i]), origin) && origin.len != 0)
            http->cors_origin = origin;
    }
    http->cors_vary = !span_eq(http->cors_origin, SPAN("*"));
}

/* ---- the whole ---- */

/* Over HTTP/2 each cookie may come in a field of its own, which HTTP/1.1 does not know (RFC 9113 §8.2.3). Returns how
 * many headers are left. */
static size_t join_cookies(h2o_mem_pool_t *pool, struct header *headers, size_t count)
{
    size_t size = 0, cookies = 0, kept = 0, first = 0;
    for (size_t i = 0; i < count; i++) {
        if (!span_eq(headers[i].name, SPAN("cookie")))
            continue;
        if (cookies++ == 0)
            first = i;
        size += headers[i].value.len + 2;
    }
    if (cookies < 2)
        return count;
    char *joined = h2o_mem_alloc_pool(pool, size), *at = joined;
    for (size_t i = 0; i < count; i++) {
        bool cookie = span_eq(headers[i].name, SPAN("cookie"));
        if (cookie) {
            if (i != first)
                at = mempcpy(at, "; ", 2);
            at = mempcpy(at, headers[i].value.base, headers[i].value.len);
        }
        if (!cookie || i == first)
            headers[kept++] = headers[i];
    }
    headers[first].value = (struct span){joined, (size_t)(at - joined)};
    return kept;
}

static void copy_headers(struct http_call *http)
{
    h2o_req_t *req = http->req;
    if (req->headers.size > HEADERS_MAX)
        return; /* to be refused */
    struct header *headers = h2o_mem_alloc_pool(&req->pool, (req->headers.size + 1) * sizeof(headers[0]));
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *header = &req->headers.entries[i];
        headers[i] = (struct header){{header->name->base, header->name->len}, {header->value.base, header->value.len}};
    }
    http->call.headers = headers;
    http->call.header_count = req->headers.size;
    if (req->version >= 0x200)
        http->call.header_count = join_cookies(&req->pool, headers, req->headers.size);
}

/* The path and query of a target in absolute form (RFC 9112 §3.2.2); any other target as it is. */
static struct span origin_form(struct span target)
{
    size_t scheme = span_starts(target, SPAN("http://")) ? 7 : span_starts(target, SPAN("https://")) ? 8 : 0;
    const char *slash = scheme != 0 ? memchr(target.base + scheme, '/', target.len - scheme) : NULL;
    return slash != NULL ? span_skip(target, (size_t)(slash - target.base)) : target;
}

static size_t head_size(const struct call *call)
{
    size_t size = call->path.len + call->query.len;
    for (size_t i = 0; i < call->header_count; i++)
        size += call->headers[i].name.len + call->headers[i].value.len + 4;
    return size;
}

/* Whether a path could mean another one to a server behind: then no prefix of it can be trusted. */
static bool is_plain_path(struct span path)
{
    for (size_t i = 0; i < path.len; i++) {
        struct span rest = span_skip(path, i);
        if (path.base[i] == '\\' || span_starts(rest, SPAN("//")) || span_starts(rest, SPAN("/./")) ||
            span_starts(rest, SPAN("/../")) || span_eq(rest, SPAN("/.")) || span_eq(rest, SPAN("/..")))
            return false;
        if (path.base[i] == '%' && rest.len >= 3 &&
            (span_ieq((struct span){rest.base + 1, 2}, SPAN("2e")) ||
             span_ieq((struct span){rest.base + 1, 2}, SPAN("2f")) ||
             span_ieq((struct span){rest.base + 1, 2}, SPAN("5c"))))
            return false;
    }
    return true;
}

static bool refuse_large_head(struct http_call *http)
{
    struct dialect_error error = {
        .status = 431, .code = "head_too_large", .message = "The request's headers are too large."};
    call_refuse(&http->call, "head_too_large", &error);
    return false;
}

static bool refuse(struct http_call *http, const char *problem)
{
    char message[200];
    snprintf(message, sizeof(message), "Malformed request: %s.", problem);
    struct dialect_error error = {.status = 400, .code = "malformed_request", .message = message};
    security_event(http->call.worker, SECURITY_MALFORMED, &http->call.client, span_of(problem));
    http->req->http1_is_persistent = 0; /* whatever follows on the connection is not to be believed either */
    call_refuse(&http->call, "malformed", &error);
    return false;
}

bool http_request_read(struct http_call *http)
{
    h2o_req_t *req = http->req;
    struct call *call = &http->call;
    size_t fields = req->headers.size;
    if (req->version >= 0x200)
        http2_rules_cut_trailers(req);
    copy_headers(http);
    find_ids(http);
    find_client(call, req);
    find_cors(http);
    call->method = (struct span){req->method.base, req->method.len};
    call->body = (struct span){req->entity.base, req->entity.len};
    unsigned method = route_method(call->method);
    call->has_body = req->entity.base != NULL || (method & (METHOD_POST | METHOD_PUT | METHOD_PATCH)) != 0;
    call->content_type = call_header(call, SPAN("content-type"));
    struct span target = origin_form((struct span){req->path.base, req->path.len});
    const char *mark = memchr(target.base, '?', target.len);
    size_t n = mark != NULL ? (size_t)(mark - target.base) : target.len;
    call->query = span_skip(target, n + 1);
    call->path = route_canonical((struct span){target.base, n});

    const char *problem = req->version < 0x200 ? find_ambiguity(req) : find_dirt(req);
    if (problem == NULL && (n == 0 || target.base[0] != '/' || memchr(target.base, '#', target.len) != NULL))
        problem = "the request target is not a path";
    if (problem != NULL)
        return refuse(http, problem);
    if (fields > HTTP2_GUARD_FIELDS_MAX)
        connection_too_many_fields(http->connection);
    if (req->headers.size > HEADERS_MAX || head_size(call) > HEAD_MAX)
        return refuse_large_head(http);
    call->admin_address = connection_is_admin(http->connection);
    call->route = site_route_find(call->site, call->path);
    if (call->route != NULL && !site_route_is_at(call->site, call->route, call->admin_address))
        call->route = NULL;
    if (call->route != NULL && call->route->route.path.base[call->route->route.path.len - 1] == '*' &&
        !is_plain_path(call->path))
        call->route = NULL;
    return true;
}
