#include "gateway/http2_bodies.h"
#include "gateway/http_call.h"
#include "gateway/khash.h"
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>

/* libh2o never leaves a stream less window than 8 MiB, so none is stuck before. */
#define PASSED_MAX ((uint32_t)7 << 20)

/* As libh2o does with a frame that it takes. */
static void give_window_back(h2o_http2_conn_t *conn, size_t length)
{
    int32_t full = (int32_t)H2O_HTTP2_SETTINGS_HOST.initial_window_size;
    h2o_http2_window_consume_window(&conn->_input_window, length);
    ssize_t left = h2o_http2_window_get_window(&conn->_input_window);
    if (left * 2 >= full)
        return;
    h2o_http2_encode_window_update_frame(&conn->_write.buf, 0, (int32_t)(full - left));
    h2o_http2_window_update(&conn->_input_window, full - left);
    h2o_http2_conn_request_write(conn);
}

/* The bytes of the body in a frame; 0 for one that is malformed, which libh2o refuses. */
static size_t body_bytes(const struct http2_frame *frame)
{
    if ((frame->flags & H2O_HTTP2_FRAME_FLAG_PADDED) == 0)
        return frame->length;
    size_t padding = frame->length != 0 ? (size_t)1 + frame->payload[0] : 0;
    return frame->length > padding ? frame->length - padding : 0;
}

static bool is_too_large(const h2o_http2_conn_t *conn, const h2o_http2_stream_t *stream,
                         const struct http2_frame *frame)
{
    size_t most = conn->super.ctx->globalconf->max_request_entity_size;
    return stream->_req_body->size + body_bytes(frame) > most ||
           (stream->_expected_content_length != SIZE_MAX && stream->_expected_content_length > most);
}

static void write_body(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream, struct span body)
{
    uint8_t head[H2O_HTTP2_FRAME_HEADER_SIZE];
    h2o_http2_encode_frame_header(head, body.len, H2O_HTTP2_FRAME_TYPE_DATA, H2O_HTTP2_FRAME_FLAG_END_STREAM,
                                  (int32_t)stream->stream_id);
    h2o_iovec_t out = h2o_buffer_reserve(&conn->_write.buf, sizeof(head) + body.len);
    memcpy(out.base, head, sizeof(head));
    if (body.len != 0)
        memcpy(out.base + sizeof(head), body.base, body.len);
    conn->_write.buf->size += sizeof(head) + body.len;
    h2o_http2_window_consume_window(&conn->_write.window, body.len);
    h2o_http2_window_consume_window(&stream->output_window, body.len);
}

/* Writes a whole answer at once: nothing is left to be sent when the stream is gone. */
static void answer(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream)
{
    h2o_req_t *req = &stream->req;
    req->res.status = 413;
    struct span body = http_reply_library_error(req);
    ssize_t room = h2o_http2_window_get_window(&conn->_write.window),
            stream_room = h2o_http2_window_get_window(&stream->output_window);
    if (stream_room < room)
        room = stream_room;
    if (h2o_memis(req->input.method.base, req->input.method.len, H2O_STRLIT("HEAD"))) {
        body.len = 0;
    } else if ((ssize_t)body.len > room || body.len > conn->peer_settings.max_frame_size) {
        body.len = 0; /* an empty frame needs no window (RFC 9113 §6.9.1) */
        req->res.content_length = SIZE_MAX;
    }
    h2o_timestamp_t now;
    h2o_get_timestamp(conn->super.ctx, &req->pool, &now);
    h2o_hpack_flatten_response(&conn->_write.buf, &conn->_output_header_table, stream->stream_id,
                               conn->peer_settings.max_frame_size, &req->res, &now,
                               &conn->super.ctx->globalconf->server_name, req->res.content_length);
    write_body(conn, stream, body);
}

/* A frame of a stream that has its answer. */
static void pass_over(h2o_http2_conn_t *conn, uint32_t *passed, const struct http2_frame *frame)
{
    if (*passed >= PASSED_MAX)
        return;
    *passed += (uint32_t)frame->length;
    if ((frame->flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) != 0) {
        *passed = PASSED_MAX;
    } else if (*passed >= PASSED_MAX) {
        h2o_http2__encode_rst_stream_frame(&conn->_write.buf, frame->stream_id, -H2O_HTTP2_ERROR_NONE);
        h2o_http2_conn_request_write(conn);
    }
}

bool http2_bodies_refuse(struct http2_bodies *bodies, struct st_h2o_http2_conn_t *conn, const struct http2_frame *frame)
{
    uint32_t id = frame->stream_id;
    if (frame->type != H2O_HTTP2_FRAME_TYPE_DATA || id == 0 || conn->state >= H2O_HTTP2_CONN_STATE_HALF_CLOSED)
        return false;
    size_t at = 0;
    while (at < HTTP2_BODIES_REMEMBERED && bodies->_refused[at].stream_id != id)
        at++;
    if (at == HTTP2_BODIES_REMEMBERED) {
        h2o_http2_stream_t *stream = h2o_http2_conn_get_stream(conn, id);
        if (stream == NULL || stream->state != H2O_HTTP2_STREAM_STATE_RECV_BODY || stream->_req_body == NULL ||
            !is_too_large(conn, stream, frame))
            return false;
        at = bodies->_next++ % HTTP2_BODIES_REMEMBERED;
        bodies->_refused[at].stream_id = id;
        bodies->_refused[at].passed = 0;
        answer(conn, stream);
        h2o_http2_conn_request_write(conn);
        h2o_http2_stream_reset(conn, stream);
    }
    pass_over(conn, &bodies->_refused[at].passed, frame);
    give_window_back(conn, frame->length);
    return true;
}
