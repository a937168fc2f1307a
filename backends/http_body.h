/* Where the body of a backend's HTTP/1.1 answer ends (RFC 9112 §6), found while it comes, in place. Pure. */
#ifndef WEIR_BACKENDS_HTTP_BODY_H
#define WEIR_BACKENDS_HTTP_BODY_H

#include "backends/http_head.h"

/* The chunked coding (RFC 9112 §7.1), decoded in place, from libh2o's picohttpparser. Zero-initialise, set
 * consume_trailer. */
struct phr_chunked_decoder {
    size_t bytes_left_in_chunk;
    char consume_trailer;
    char _hex_count;
    char _state;
};

/* Decodes `*bufsz` bytes at `buf` in place; *bufsz becomes the length of what is left of them. Returns -2 if the body
 * goes on, -1 if it is no chunked body, else, at its end, the number of bytes behind it, which follow the decoded ones.
 */
ssize_t phr_decode_chunked(struct phr_chunked_decoder *decoder, char *buf, size_t *bufsz);

/* Zero-initialised: one that is not there yet. */
struct http_body {
    enum http_framing framing;
    uint64_t _left; /* of HTTP_BODY_LENGTH */
    struct phr_chunked_decoder _decoder;
};

/* `length` is that of HTTP_BODY_LENGTH. */
static inline void http_body_begin(struct http_body *body, enum http_framing framing, uint64_t length)
{
    *body = (struct http_body){.framing = framing, ._left = length, ._decoder.consume_trailer = 1};
}

/* Strips the framing off the next *size bytes, in place; *size becomes the length of what is left. Returns a message
 * (static) if they are not what the framing promised. *done becomes true if the body is complete, *excess if more came
 * than belongs to it, which is dropped. */
static inline const char *http_body_unframe(struct http_body *body, char *bytes, size_t *size, bool *done, bool *excess)
{
    if (body->framing == HTTP_BODY_CHUNKED) {
        ssize_t rest = phr_decode_chunked(&body->_decoder, bytes, size);
        *done = rest >= 0;
        *excess = rest > 0;
        return rest == -1 ? "the backend's answer is not properly chunked" : NULL;
    }
    if (body->framing == HTTP_BODY_LENGTH) {
        *excess = *size > body->_left;
        if (*excess)
            *size = (size_t)body->_left;
        body->_left -= *size;
        *done = body->_left == 0;
    }
    return NULL;
}

#endif
