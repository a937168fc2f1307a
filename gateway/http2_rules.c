#include "gateway/http2_rules.h"
#include "gateway/khash.h"
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>

#define SETTING_SIZE 6 /* RFC 9113 §6.5.1 */

/* Stands between the headers and the trailers of a request. */
static h2o_iovec_t trailers_mark = {H2O_STRLIT("")};

void http2_rules_init(void)
{
    H2O_TOKEN_CACHE_DIGEST->http2_should_reject = 1;
}

static uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool is_idle(const h2o_http2_conn_t *conn, uint32_t stream_id)
{
    return stream_id >
           (h2o_http2_stream_is_push(stream_id) ? conn->push_stream_ids.max_open : conn->pull_stream_ids.max_open);
}

/* Whether a stream that the client has opened, or opens now, is none to libh2o, as it has sent its last GOAWAY. */
static bool is_late(const h2o_http2_conn_t *conn, uint32_t stream_id)
{
    return conn->state >= H2O_HTTP2_CONN_STATE_HALF_CLOSED && !h2o_http2_stream_is_push(stream_id) &&
           is_idle(conn, stream_id);
}

/* ---- frames ---- */

/* RFC 9113 §6.9.2. libh2o would let such a stream's window be as it was. */
static bool overflows_a_window(h2o_http2_conn_t *conn, const struct http2_frame *frame)
{
    int64_t now = conn->peer_settings.initial_window_size, next = now;
    for (size_t at = 0; at + SETTING_SIZE <= frame->length; at += SETTING_SIZE)
        if (frame->payload[at] == 0 && frame->payload[at + 1] == H2O_HTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
            next = read_32(frame->payload + at + 2);
    if (next <= now || next > INT32_MAX)
        return false; /* libh2o refuses the latter */
    const khash_t(h2o_http2_stream_t) *streams = conn->streams;
    for (khiter_t i = 0; i != kh_end(streams); i++)
        if (kh_flags_live(streams->flags, i) &&
            h2o_http2_window_get_window(&kh_val(streams, i)->output_window) + next - now > INT32_MAX)
            return true;
    return false;
}

/* A stream whose last bytes are being written. Nothing is sent on it any more, whatever window it has; libh2o, though,
 * asserts that no window opens there. */
static void keep_window_open(h2o_http2_stream_t *stream) /* NULL is fine */
{
    if (stream != NULL && stream->state == H2O_HTTP2_STREAM_STATE_END_STREAM &&
        h2o_http2_window_get_window(&stream->output_window) <= 0)
        stream->output_window._avail = 1;
}

static void keep_windows_open(h2o_http2_conn_t *conn)
{
    const khash_t(h2o_http2_stream_t) *streams = conn->streams;
    for (khiter_t i = 0; i != kh_end(streams); i++)
        if (kh_flags_live(streams->flags, i))
            keep_window_open(kh_val(streams, i));
}

/* A further header block on a stream is the trailers'. */
static void mark_trailers(h2o_http2_conn_t *conn, uint32_t stream_id)
{
    h2o_http2_stream_t *stream = h2o_http2_conn_get_stream(conn, stream_id);
    if (stream == NULL || stream->state != H2O_HTTP2_STREAM_STATE_RECV_BODY)
        return;
    h2o_headers_t *headers = &stream->req.headers;
    h2o_vector_reserve(&stream->req.pool, headers, headers->size + 1);
    headers->entries[headers->size++] = (h2o_header_t){.name = &trailers_mark, .value = {H2O_STRLIT("")}};
}

static void tell_table(struct http2_rules *rules, h2o_http2_conn_t *conn, uint32_t stream_id);

int http2_rules_check(struct http2_rules *rules, h2o_http2_conn_t *conn, const struct http2_frame *frame,
                      const char **err_desc)
{
    uint32_t id = frame->stream_id;
    if (!rules->_begun && (frame->type != H2O_HTTP2_FRAME_TYPE_SETTINGS || (frame->flags & H2O_HTTP2_FRAME_FLAG_ACK))) {
        *err_desc = "the connection does not begin with SETTINGS"; /* RFC 9113 §3.4 */
        return H2O_HTTP2_ERROR_PROTOCOL;
    }
    rules->_begun = true;
    /* RFC 9113 §6.10. libh2o would take a block that goes on on another stream for that one's trailers, and its body
     * for complete, even from where it does not stand any more. */
    if (rules->_block != 0 && (frame->type != H2O_HTTP2_FRAME_TYPE_CONTINUATION || id != rules->_block)) {
        *err_desc = "a header block is interrupted";
        return H2O_HTTP2_ERROR_PROTOCOL;
    }
    switch (frame->type) {
    case H2O_HTTP2_FRAME_TYPE_HEADERS:
        rules->_late_block = is_late(conn, id);
        if (!is_idle(conn, id))
            mark_trailers(conn, id);
        else if (rules->_tell_table && (id & 1) != 0 && conn->state == H2O_HTTP2_CONN_STATE_OPEN)
            tell_table(rules, conn, id);
        __attribute__((fallthrough));
    case H2O_HTTP2_FRAME_TYPE_CONTINUATION:
        rules->_block = (frame->flags & H2O_HTTP2_FRAME_FLAG_END_HEADERS) != 0 ? 0 : id;
        return 0;
    case H2O_HTTP2_FRAME_TYPE_DATA:
    case H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE:
        if (id != 0 && is_idle(conn, id) && !is_late(conn, id)) {
            *err_desc = "a frame on an idle stream"; /* RFC 9113 §5.1; libh2o would reset a stream that never was */
            return H2O_HTTP2_ERROR_PROTOCOL;
        }
        if (id != 0 && frame->type == H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE)
            keep_window_open(h2o_http2_conn_get_stream(conn, id));
        return 0;
    case H2O_HTTP2_FRAME_TYPE_SETTINGS:
        if (overflows_a_window(conn, frame)) {
            *err_desc = "flow control window overflow";
            return H2O_HTTP2_ERROR_FLOW_CONTROL;
        }
        keep_windows_open(conn);
        return 0;
    default:
        return 0;
    }
}

bool http2_rules_pass_over(const struct http2_rules *rules, const h2o_http2_conn_t *conn,
                           const struct http2_frame *frame)
{
    switch (frame->type) {
    case H2O_HTTP2_FRAME_TYPE_CONTINUATION:
        return rules->_late_block;
    case H2O_HTTP2_FRAME_TYPE_DATA:
    case H2O_HTTP2_FRAME_TYPE_RST_STREAM:
    case H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE:
        return is_late(conn, frame->stream_id);
    default:
        return false;
    }
}

/* ---- the HPACK table of answers ---- */

/* RFC 7541 §4.2: the next header block has to begin with the table's new size. libh2o writes those blocks; but nothing
 * forbids an interim answer before it (RFC 9110 §15.2). */
static void tell_table(struct http2_rules *rules, h2o_http2_conn_t *conn, uint32_t stream_id)
{
    static const uint8_t status[] = {0x08, 3, '1', '0', '0'}; /* a literal, its name indexed: RFC 7541 §6.2.2 */
    uint8_t block[1 + 3 + sizeof(status)];
    size_t n = 0, size = conn->_output_header_table.hpack_capacity;
    block[n++] = 0x20; /* 0, so that the client's table is as empty as ours */
    if (size >= 31) {
        block[n++] = 0x3f;
        for (size -= 31; size >= 128; size >>= 7)
            block[n++] = (uint8_t)(0x80 | (size & 0x7f));
        block[n++] = (uint8_t)size;
    } else if (size != 0) {
        block[n++] = (uint8_t)(0x20 | size);
    }
    memcpy(block + n, status, sizeof(status));
    n += sizeof(status);

    uint8_t head[H2O_HTTP2_FRAME_HEADER_SIZE];
    h2o_http2_encode_frame_header(head, n, H2O_HTTP2_FRAME_TYPE_HEADERS, H2O_HTTP2_FRAME_FLAG_END_HEADERS,
                                  (int32_t)stream_id);
    h2o_iovec_t out = h2o_buffer_reserve(&conn->_write.buf, sizeof(head) + n);
    memcpy(out.base, head, sizeof(head));
    memcpy(out.base + sizeof(head), block, n);
    conn->_write.buf->size += sizeof(head) + n;
    h2o_http2_conn_request_write(conn);
    rules->_tell_table = false;
}

/* libh2o does not look at SETTINGS_HEADER_TABLE_SIZE; a client that can keep less than it takes for granted could read
 * no second answer. */
static void shrink_table(struct http2_rules *rules, h2o_http2_conn_t *conn, const struct http2_frame *frame)
{
    size_t least = conn->_output_header_table.hpack_capacity;
    for (size_t at = 0; at + SETTING_SIZE <= frame->length; at += SETTING_SIZE)
        if (frame->payload[at] == 0 && frame->payload[at + 1] == H2O_HTTP2_SETTINGS_HEADER_TABLE_SIZE &&
            read_32(frame->payload + at + 2) < least)
            least = read_32(frame->payload + at + 2);
    if (least == conn->_output_header_table.hpack_capacity)
        return;
    h2o_hpack_dispose_header_table(&conn->_output_header_table);
    conn->_output_header_table = (h2o_hpack_header_table_t){.hpack_capacity = least, .hpack_max_capacity = least};
    rules->_tell_table = true;
    /* Whatever is answered next is told of it first: a request that is here already, or else the next. */
    const khash_t(h2o_http2_stream_t) *streams = conn->streams;
    for (khiter_t i = 0; i != kh_end(streams) && rules->_tell_table; i++)
        if (kh_flags_live(streams->flags, i) && kh_val(streams, i)->state >= H2O_HTTP2_STREAM_STATE_RECV_BODY &&
            kh_val(streams, i)->state <= H2O_HTTP2_STREAM_STATE_SEND_HEADERS)
            tell_table(rules, conn, kh_val(streams, i)->stream_id);
}

void http2_rules_complete(struct http2_rules *rules, h2o_http2_conn_t *conn, const struct http2_frame *frame)
{
    if (frame->type == H2O_HTTP2_FRAME_TYPE_SETTINGS && (frame->flags & H2O_HTTP2_FRAME_FLAG_ACK) == 0)
        shrink_table(rules, conn, frame);
}

/* ---- requests ---- */

void http2_rules_cut_trailers(h2o_req_t *req)
{
    for (size_t i = 0; i < req->headers.size; i++)
        if (req->headers.entries[i].name == &trailers_mark)
            req->headers.size = i;
}

bool http2_rules_length_agrees(const h2o_req_t *req)
{
    const h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
    return stream->_req_body != NULL || stream->_expected_content_length == SIZE_MAX ||
           stream->_expected_content_length == 0;
}
