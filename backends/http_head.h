/* Reading the head of a backend's HTTP/1.1 answer, strictly: what could be read in two ways is refused. Pure: bytes in,
 * facts out. */
#ifndef WEIR_BACKENDS_HTTP_HEAD_H
#define WEIR_BACKENDS_HTTP_HEAD_H

#include "backends/exchange.h"

#define HTTP_HEAD_MAX 65536 /* bytes */
#define HTTP_HEADERS_MAX 100

enum http_head_result {
    HTTP_HEAD_INCOMPLETE,
    HTTP_HEAD_INTERIM, /* a 1xx head of `length` bytes, to be skipped */
    HTTP_HEAD_FINAL,
    HTTP_HEAD_BAD, /* see `problem` */
};

enum http_framing {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH,
    HTTP_BODY_CHUNKED,
    HTTP_BODY_UNTIL_CLOSE,
};

struct http_head {
    size_t length;       /* of the head itself, in bytes */
    const char *problem; /* static text */
    int status;
    bool keep_alive; /* the connection may be used again after the body */
    enum http_framing framing;
    uint64_t content_length;                 /* UINT64_MAX: not given */
    bool sse;                                /* Content-Type: text/event-stream */
    bool json;                               /* Content-Type: application/json or application/…+json */
    struct header headers[HTTP_HEADERS_MAX]; /* end-to-end ones; names in lower case */
    size_t header_count;
};

/* Parses `text` (header names are lower-cased in place). `last_length` is the length of the text at the call before, 0
 * at the first: it avoids looking at the same bytes twice. `to_head`: the request's method was HEAD. RFC 9112 §4 to §6.
 */
enum http_head_result http_head_parse(char *text, size_t length, size_t last_length, bool to_head,
                                      struct http_head *head);

#endif
