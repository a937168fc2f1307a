#include "gateway/http_whole.h"
#include "base/http_text.h"
#include "base/recycle.h"
#include <sys/socket.h>

#define BODY_MAX 4096
#define MEMORY ((size_t)6144) /* of a text */
#define HEAD_MAX ((size_t)128 * 1024)
#define DATE_LEN 29 /* RFC 9110 §5.6.7 */

static __thread struct recycle texts;

/* libh2o's function that ends a request when its answer is written. */
static __thread h2o_socket_cb on_written;

void http_whole_learn(h2o_socket_t *sock)
{
    on_written = sock->_cb.write;
}

bool http_whole_unlearned(void)
{
    return on_written == NULL;
}

static h2o_socket_t *socket_of(const h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn);
}

void http_whole_begin(struct http_call *http, uint64_t content_length)
{
    h2o_req_t *req = http->req;
    h2o_context_t *ctx = req->conn->ctx;
    if (on_written == NULL || req->version != 0x101 || !req->http1_is_persistent || content_length > BODY_MAX ||
        content_length == 0 || req->res.status == 204 || req->res.status == 304 || req->prefilters != NULL ||
        span_eq(http->call.method, SPAN("HEAD")))
        return;
    struct strbuf *text = &http->whole;
    http->whole_memory = recycle_take(&texts, MEMORY);
    strbuf_init_lent(text, HEAD_MAX, http->whole_memory, MEMORY);
    strbuf_add(text, SPAN("HTTP/1.1 "));
    strbuf_u64(text, (uint64_t)req->res.status);
    strbuf_putc(text, ' ');
    strbuf_add(text, span_of(req->res.reason));
    h2o_get_timestamp(ctx, NULL, NULL);
    strbuf_add(text, SPAN("\r\nDate: "));
    strbuf_add(text, (struct span){ctx->_timestamp_cache.value->rfc1123, DATE_LEN});
    strbuf_add(text, SPAN("\r\nConnection: keep-alive\r\nContent-Length: "));
    strbuf_u64(text, content_length);
    strbuf_add(text, SPAN("\r\n"));
    http->whole_first = text->len;
}

void http_whole_header(struct http_call *http, struct span name, struct span value)
{
    http_text_add_header(&http->whole, name, value);
}

void http_whole_lines(struct http_call *http, struct span lines)
{
    strbuf_add(&http->whole, lines);
}

bool http_whole_ready(struct http_call *http, size_t length)
{
    return http_whole_begun(http) && length == http->req->res.content_length && http->req->http1_is_persistent &&
           http->whole.base == http->whole_memory && length + 3 < MEMORY - http->whole.len &&
           !h2o_socket_is_writing(socket_of(http->req));
}

bool http_whole_send(struct http_call *http, const struct slice *slices, size_t count, size_t length)
{
    h2o_socket_t *sock = socket_of(http->req);
    struct strbuf *text = &http->whole;
    char *at = strbuf_claim(text, length + 2);
    at = mempcpy(at, "\r\n", 2);
    for (size_t i = 0; i < count; i++)
        at = mempcpy(at, slices[i].bytes.base, slices[i].bytes.len);
    http->req->bytes_sent += length;
    /* What TLS makes of it is libh2o's to send. */
    ssize_t sent =
        sock->ssl != NULL ? 0 : send(h2o_socket_get_fd(sock), text->base, text->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0; /* libh2o will see the same */
    bool all = (size_t)sent == text->len;
    h2o_iovec_t rest = h2o_iovec_init(text->base + sent, text->len - (size_t)sent);
    /* With nothing to write it only calls back, once what is under way has returned. */
    h2o_socket_write(sock, &rest, all ? 0 : 1, on_written);
    return all;
}

void http_whole_forget(struct http_call *http)
{
    if (!http_whole_begun(http))
        return;
    strbuf_dispose(&http->whole);
    recycle_give(&texts, http->whole_memory);
    http->whole_memory = NULL;
}

void http_whole_give_up(struct http_call *http)
{
    if (!http_whole_begun(http))
        return;
    h2o_mem_pool_t *pool = &http->req->pool;
    h2o_headers_t *headers = &http->req->res.headers;
    size_t length = http->whole.len - http->whole_first;
    char *at = h2o_mem_alloc_pool(pool, length + 1), *end = at + length;
    memcpy(at, http->whole.base + http->whole_first, length);
    http_whole_forget(http);
    while (at < end) {
        /* Neither names nor values have line ends in them, and names no colons. */
        char *colon = memchr(at, ':', (size_t)(end - at));
        char *value = colon + 2, *cr = memchr(value, '\r', (size_t)(end - value));
        h2o_add_header_by_str(pool, headers, at, (size_t)(colon - at), 1, NULL, value, (size_t)(cr - value));
        at = cr + 2;
    }
}
