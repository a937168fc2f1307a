/* Small plain answers to HTTP/1.1 clients, past libh2o: head and body are made as one text, which goes out by one
 * send(2) in clear text, and to libh2o for TLS, in one record if that is long enough. libh2o's way (a table of headers,
 * their copies in the request's pool, a printf for the first lines, filters, writev(2) or a record for each piece)
 * stays that of all others, and of an answer that turns out not to be such a one: its headers are then put into
 * libh2o's table. */
#ifndef WEIR_GATEWAY_HTTP_WHOLE_H
#define WEIR_GATEWAY_HTTP_WHOLE_H

#include "gateway/http_call.h"

/* Begins the text if an answer with this head may be such a one: from here on http_reply_header adds to it. The status
 * is that in the request's res. */
void http_whole_begin(struct http_call *http, uint64_t content_length);

/* Whether the headers are being added to a text. */
static inline bool http_whole_begun(const struct http_call *http)
{
    return http->whole_memory != NULL;
}

/* Adds a header to the text, which copies it. */
void http_whole_header(struct http_call *http, struct span name, struct span value);

/* Adds lines with headers, which it copies. */
void http_whole_lines(struct http_call *http, struct span lines);

/* Whether http_whole_send will do: the body, `length` bytes in all, is there, and fits. */
bool http_whole_ready(struct http_call *http, size_t length);

/* Sends the head and the body, and lets libh2o end the request once the socket has taken all of it, in this turn of the
 * loop or later. True if it has taken all. */
bool http_whole_send(struct http_call *http, const struct slice *slices, size_t count, size_t length);

/* The answer goes libh2o's way: puts the headers, if there are any, into its table. */
void http_whole_give_up(struct http_call *http);

/* Frees the text. */
void http_whole_forget(struct http_call *http);

/* libh2o has just been given the end of an answer for an HTTP/1.1 client: notes what it will be called with when that
 * is written. Until it was called no answer is sent whole. */
void http_whole_learn(h2o_socket_t *sock);

/* Whether http_whole_learn is still to be called. */
bool http_whole_unlearned(void);

#endif
