/* Events on their way to an HTTP/1.1 client, past libh2o's filters: one chunk (RFC 9112 §7.1), and one send(2) in clear
 * text, one record over TLS. */
#ifndef WEIR_GATEWAY_HTTP_DIRECT_H
#define WEIR_GATEWAY_HTTP_DIRECT_H

#include "gateway/http_call.h"

#define HTTP_DIRECT_SLICES 8

enum http_direct_result {
    HTTP_DIRECT_NOT,   /* nothing was sent: h2o_send is to do it */
    HTTP_DIRECT_DONE,  /* the socket has taken everything */
    HTTP_DIRECT_BEGUN, /* libh2o has the rest, over TLS all, and calls the generator's proceed when it is written */
};

/* Sends the slices, `length` bytes in all, as the next part of an answer whose end is still to come. They must stay
 * where they are until they are consumed; after HTTP_DIRECT_BEGUN that is at proceed. */
enum http_direct_result http_direct_send(struct http_call *http, const struct slice *slices, size_t count,
                                         size_t length);

#endif
