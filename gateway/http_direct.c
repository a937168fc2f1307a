/* libh2o's own way costs a printf for the length, three pieces for writev(2) and a second round for the callback that
 * says that they were written: in paired runs of 500 streams that was a tenth of what an event costs. It stays the way
 * of all that is rare or large, and of what the socket does not take at once; each chunk stands for itself, so the two
 * mix. Over TLS libh2o makes a record of each piece, which costs OpenSSL some 5,000 instructions and the wire 22 bytes:
 * there it gets the chunk in one. */
#include "gateway/http_direct.h"
#include <sys/socket.h>

#define PIECE_MAX 4096
#define LINE_END 2 /* CR LF */

/* The length in lower-case hexadecimal digits, and the end of its line. Returns the end of what it wrote. */
static char *write_length(char *at, size_t length)
{
    unsigned digits = 1;
    for (size_t rest = length >> 4; rest != 0; rest >>= 4)
        digits++;
    for (unsigned i = digits; i-- != 0; length >>= 4)
        at[i] = "0123456789abcdef"[length & 15];
    return mempcpy(at + digits, "\r\n", LINE_END);
}

/* Behind the filter that would make chunks of it. */
static void give_to_libh2o(h2o_req_t *req, h2o_iovec_t *pieces, size_t count)
{
    h2o_ostream_t *last = req->_ostr_top;
    while (last->next != NULL)
        last = last->next;
    last->do_send(last, req, pieces, count, H2O_SEND_STATE_IN_PROGRESS);
}

/* What the socket did not take. */
static void send_rest(struct http_call *http, const struct slice *slices, size_t count, size_t sent)
{
    h2o_iovec_t out[HTTP_DIRECT_SLICES + 2];
    size_t pieces = 0;
    out[pieces++] = h2o_iovec_init(http->chunk_head, http->chunk_head_len);
    for (size_t i = 0; i < count; i++)
        out[pieces++] = h2o_iovec_init(slices[i].bytes.base, slices[i].bytes.len);
    out[pieces++] = h2o_iovec_init("\r\n", LINE_END);
    size_t first = 0;
    while (sent >= out[first].len)
        sent -= out[first++].len;
    out[first].base += sent;
    out[first].len -= sent;
    give_to_libh2o(http->req, out + first, pieces - first);
}

enum http_direct_result http_direct_send(struct http_call *http, const struct slice *slices, size_t count,
                                         size_t length)
{
    h2o_req_t *req = http->req;
    if (req->version != 0x101 || !req->bytes_counted_by_ostream || !http->head_sent || length > PIECE_MAX ||
        count > HTTP_DIRECT_SLICES)
        return HTTP_DIRECT_NOT;
    h2o_socket_t *sock = req->conn->callbacks->get_socket(req->conn);
    if (h2o_socket_is_writing(sock))
        return HTTP_DIRECT_NOT;
    char piece[sizeof(http->chunk_head) + PIECE_MAX + LINE_END];
    char *at = write_length(piece, length);
    size_t head = (size_t)(at - piece);
    for (size_t i = 0; i < count; i++)
        at = mempcpy(at, slices[i].bytes.base, slices[i].bytes.len);
    at = mempcpy(at, "\r\n", LINE_END);
    if (sock->ssl != NULL) {
        /* libh2o has encrypted all of it when it returns, or cannot: then the connection is of no more use. */
        h2o_iovec_t whole = h2o_iovec_init(piece, (size_t)(at - piece));
        req->bytes_sent += length;
        give_to_libh2o(req, &whole, 1);
        return HTTP_DIRECT_BEGUN;
    }
    ssize_t sent = send(h2o_socket_get_fd(sock), piece, (size_t)(at - piece), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0)
        return HTTP_DIRECT_NOT; /* libh2o will see the same, and knows what to do with its connection */
    req->bytes_sent += length;
    if (sent == at - piece)
        return HTTP_DIRECT_DONE;
    memcpy(http->chunk_head, piece, head);
    http->chunk_head_len = (unsigned char)head;
    send_rest(http, slices, count, (size_t)sent);
    return HTTP_DIRECT_BEGUN;
}
