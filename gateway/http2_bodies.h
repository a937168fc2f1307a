/* Request bodies beyond `max_body` over HTTP/2. libh2o 2.2.5 resets their streams with REFUSED_STREAM, which invites
 * the client to send them again (RFC 9113 §8.7), and tells nobody. They are answered here, before libh2o sees the frame
 * that is too much. It leans on libh2o's internals as http2_guard does. One thread. */
#ifndef WEIR_GATEWAY_HTTP2_BODIES_H
#define WEIR_GATEWAY_HTTP2_BODIES_H

#include "gateway/http2_rules.h"

#define HTTP2_BODIES_REMEMBERED 32

/* What has to be known of a connection; zeroes at first. */
struct http2_bodies {
    struct {
        uint32_t stream_id;              /* 0: none */
        uint32_t passed;                 /* bytes of frames after the answer */
    } _refused[HTTP2_BODIES_REMEMBERED]; /* the newest in place of the oldest */
    unsigned _next;
};

/* Looks at a frame that keeps the rules. If it makes a body too large, or its length was announced as such, answers
 * with a whole 413. Returns whether libh2o must not have the frame: that one, and what else the client sends of the
 * body. Their room in the connection's window is given back. A client that does not stop gets RST_STREAM with NO_ERROR
 * (RFC 9113 §8.1), but not at once: curl 7.88 and others would find the stream closed as they send, and not look
 * whether it was answered. */
bool http2_bodies_refuse(struct http2_bodies *bodies, struct st_h2o_http2_conn_t *conn,
                         const struct http2_frame *frame);

#endif
