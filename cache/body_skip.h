/* Skips long pieces of JSON text, 64 bytes at a time. Pure. A private part of cache/key. */
#ifndef WEIR_CACHE_BODY_SKIP_H
#define WEIR_CACHE_BODY_SKIP_H

#include "base/span.h"
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The quote that ends the string within which `p` stands, behind no backslash; NULL if [p, end) has none. For strings
 * with many backslashes: memchr is quicker where there are none. */
const char *body_skip_escapes(const char *p, const char *end);

/* Skips values of an array, and of arrays in it, and the commas behind them: digits, plain strings and brackets with
 * nothing between them. `p` is where a value begins, within `*nest` arrays. Returns the place behind the last comma for
 * which all before it is good, with *nest arrays open there, at least 1 and at most `nest_max`; `p` if there is none.
 */
const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max);

/* Skips words and the commas and single blanks between them, 16 bytes at a time, for as long as there is nothing else;
 * stops inside of a word or behind one. *spaced becomes true if a blank was among them. */
const char *body_skip_word_list(const char *start, const char *end, bool *spaced);

extern const char body_words[256];

/* Whether a byte may be one of a number or a word, whatever it is, since it counts as it is written. */
static inline bool body_is_word(char c)
{
    return body_words[(unsigned char)c];
}

/* The order of names: the one that compares quickest, by length first. */
static inline int body_compare_names(struct span a, struct span b)
{
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    uint32_t x, y;
    if (a.len >= sizeof(x)) {
        memcpy(&x, a.base, sizeof(x));
        memcpy(&y, b.base, sizeof(y));
        if (x != y)
            return be32toh(x) < be32toh(y) ? -1 : 1;
    }
    return memcmp(a.base, b.base, a.len);
}

#endif
