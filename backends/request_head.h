/* Private to this folder: writing the head of a request to a backend over HTTP/1.1: the target, the client's headers as
 * far as they may go along, the backend's own, its credential. Pure: facts in, bytes out. */
#ifndef WEIR_BACKENDS_REQUEST_HEAD_H
#define WEIR_BACKENDS_REQUEST_HEAD_H

#include "backends/exchange.h"
#include "base/strbuf.h"

#define REQUEST_HEAD_MAX ((size_t)256 * 1024) /* for the maximum of `out` */

/* Appends the request's head, with the empty line that ends it. False if a part of it is not fit to be sent: a value
 * that could end its line early, and so become a header or a request of its own, never is; nor is more than `out` may
 * hold. */
bool request_head_write(struct strbuf *out, const struct backend_settings *settings,
                        const struct exchange_request *request);

#endif
