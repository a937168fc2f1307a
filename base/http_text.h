/* The small grammar that HTTP's heads are made of, for both sides of the gateway. Pure. */
#ifndef WEIR_BASE_HTTP_TEXT_H
#define WEIR_BASE_HTTP_TEXT_H

#include "base/strbuf.h"

/* Whether a text can stand in a line of a head without ending it: no control characters but tabs (RFC 9110 §5.5). */
bool http_text_is_clean(struct span text);

/* Whether a text is a token, as names of headers and methods are (RFC 9110 §5.6.2). */
bool http_text_is_token(struct span text);

/* Whether a comma-separated list has this token, in any case (RFC 9110 §5.6.1). */
bool http_text_list_has(struct span list, struct span token);

/* Adds a line with this name and value, which are taken as they are. */
void http_text_add_header(struct strbuf *out, struct span name, struct span value);

#endif
