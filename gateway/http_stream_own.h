/* Private to HTTP's streams: what their files share. */
#ifndef WEIR_GATEWAY_HTTP_STREAM_OWN_H
#define WEIR_GATEWAY_HTTP_STREAM_OWN_H

#include "gateway/http_call.h"

/* Commits to 200 before the backend has said anything, because something in front of the gateway would not wait longer.
 * False, and nothing happens, if the answer is known to be no stream. */
bool http_stream_start_early(struct http_call *http);

/* Notes what the stream was, and stops reading it. What libh2o is still sending stays in memory until the request is
 * gone: an HTTP/2 client that opens its window late gets the bytes that were meant for it. */
void http_stream_stop_reading(struct http_call *http);

/* Arms the deadline for the next ping, or for a client that takes nothing. */
void http_stream_arm(struct http_call *http);

#endif
