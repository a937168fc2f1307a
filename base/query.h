/* The query of a URL as forms write it (WHATWG URL, "application/x-www-form-urlencoded"): name=value pairs, '&' between
 * them, '+' for a blank, %XX for any byte. A '%' without two hexadecimal digits behind it stands for itself. Pure; any
 * thread. */
#ifndef WEIR_BASE_QUERY_H
#define WEIR_BASE_QUERY_H

#include "base/strbuf.h"

/* Finds the first parameter of this name (compared after decoding) in a query without its '?'. Appends its decoded
 * value to `out`; false, with nothing appended, if there is none. */
bool query_value(struct span query, struct span name, struct strbuf *out);

/* Finds the last parameter of this name, as FastAPI does; *value receives its value, not decoded. False if there is
 * none. */
bool query_last(struct span query, struct span name, struct span *value);

/* Takes the next pair off *rest. Name and value point into it and are not decoded; a pair without '=' has an empty
 * value. Empty pairs are passed over. False at the end. */
bool query_next(struct span *rest, struct span *name, struct span *value);

/* Whether a name, not decoded, is this one. */
bool query_is_name(struct span raw, struct span name);

/* Decodes a name or value. `out` has room for raw.len bytes; returns how many were written: any bytes, see
 * query_is_utf8. */
size_t query_decode(struct span raw, char *out);

/* Appends text as a value: all but letters, digits and "-._~" as %XX. */
void query_encode(struct span text, struct strbuf *out);

/* Whether all of the text is UTF-8 (RFC 3629); *characters (may be NULL) receives how many it has. */
bool query_is_utf8(struct span text, size_t *characters);

#endif
