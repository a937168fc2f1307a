/* Skips long pieces of JSON text, 64 bytes at a time. Pure. A private part of cache/key. */
#ifndef WEIR_CACHE_BODY_SKIP_H
#define WEIR_CACHE_BODY_SKIP_H

#include "base/span.h"
#include <stdbool.h>

/* The quote that ends the string within which `p` stands, behind no backslash; NULL if [p, end) has none. For strings
 * with many backslashes: memchr is quicker where there are none. */
const char *body_skip_escapes(const char *p, const char *end);

/* Skips values of an array, and of arrays in it, and the commas behind them: digits, plain strings and brackets with
 * nothing between them. `p` is where a value begins, within `*nest` arrays. Returns the place behind the last comma for
 * which all before it is good, with *nest arrays open there, at least 1 and at most `nest_max`; `p` if there is none.
 */
const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max);

/* Skips objects of an array and the commas behind them: members in order, with plain names, whose values are strings,
 * numbers and words. `p` is where an object begins. Returns the place behind the last comma for which all before it is
 * so; `p` if there is none. *spaced becomes true if there may be white space between the tokens. */
const char *body_skip_objects(const char *p, const char *end, bool *spaced);

/* The order of names: the one that compares quickest, by length first. */
static inline int body_compare_names(struct span a, struct span b)
{
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    return memcmp(a.base, b.base, a.len);
}

#endif
