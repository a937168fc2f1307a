/* Skips long pieces of JSON text, 64 bytes at a time. Pure. A private part of cache/key. */
#ifndef WEIR_CACHE_BODY_SKIP_H
#define WEIR_CACHE_BODY_SKIP_H

#include <stdbool.h>

/* The quote that ends the string within which `p` stands, behind no backslash; NULL if [p, end) has none. For strings
 * with many backslashes: memchr is quicker where there are none. */
const char *body_skip_escapes(const char *p, const char *end);

/* Skips values of an array, and of arrays in it, and the commas behind them: digits, plain strings and brackets with
 * nothing between them. `p` is where a value begins, within `*nest` arrays. Returns the place behind the last comma for
 * which all before it is good, with *nest arrays open there, at least 1 and at most `nest_max`; `p` if there is none.
 * *strings becomes true if there may be a string among the values. */
const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max, bool *strings);

#endif
