/* Rules of RFC 9113 and RFC 7541 that libh2o 2.2.5 does not keep, held where http2_guard sees each frame first.
 * Breaking one ends the connection before libh2o can be confused by it. It leans on libh2o's internals as http2_guard
 * does. One thread. */
#ifndef WEIR_GATEWAY_HTTP2_RULES_H
#define WEIR_GATEWAY_HTTP2_RULES_H

#include <h2o.h>
#include <stdbool.h>

struct st_h2o_http2_conn_t;

/* To be called once, before libh2o serves anybody. It unpacks the header Cache-Digest, of an expired draft, as it
 * decodes it: named a thousand times in a block of some kilobytes, that takes seconds and half a gigabyte. A request
 * that has it is refused, as those with headers of HTTP/1.1's connections are. */
void http2_rules_init(void);

/* A whole frame (RFC 9113 §4.1). `payload` is what libh2o's socket holds. */
struct http2_frame {
    size_t length;
    uint8_t type, flags;
    uint32_t stream_id;
    const uint8_t *payload;
};

/* What has to be known of a connection; zeroes at first. */
struct http2_rules {
    uint32_t _block;  /* the stream whose header block is open; 0: none */
    bool _late_block; /* it is, or the last one was, of a stream that is too late */
    bool _begun;      /* the client's first SETTINGS have come */
    bool _tell_table; /* it has to hear that libh2o's HPACK table has shrunk */
};

/* Looks at the next frame. Returns 0 if libh2o may have it, else the connection's error (H2O_HTTP2_ERROR_*), with
 * `err_desc` (static) for the client. */
int http2_rules_check(struct http2_rules *rules, struct st_h2o_http2_conn_t *conn, const struct http2_frame *frame,
                      const char **err_desc);

/* Whether a frame that passed is to be kept from libh2o: one of a stream that is too late, opened after the last GOAWAY
 * by a client that had not heard of it. libh2o passes over the stream's HEADERS; what follows them would be errors to
 * it, which end the requests that are under way. */
bool http2_rules_pass_over(const struct http2_rules *rules, const struct st_h2o_http2_conn_t *conn,
                           const struct http2_frame *frame);

/* Does what libh2o left undone with a frame that it has taken; the connection is still open. */
void http2_rules_complete(struct http2_rules *rules, struct st_h2o_http2_conn_t *conn, const struct http2_frame *frame);

/* For a request over HTTP/2 that has come to a handler. Trailers are not headers (RFC 9110 §6.5.1), but libh2o adds
 * them to those: takes them away again. */
void http2_rules_cut_trailers(h2o_req_t *req);

/* Whether a request over HTTP/2 without a body does not promise one by its Content-Length (RFC 9113 §8.1.1); for one
 * with a body libh2o sees to it. */
bool http2_rules_length_agrees(const h2o_req_t *req);

#endif
