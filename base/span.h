/* A span is a view of bytes that somebody else owns: no terminating NUL, no ownership, any content. */
#ifndef WEIR_BASE_SPAN_H
#define WEIR_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct span {
    const char *base;
    size_t len;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})
#define SPAN_NONE ((struct span){NULL, 0})

/* The bytes of a NUL-terminated string; NULL gives the empty span. */
static inline struct span span_of(const char *string)
{
    return (struct span){string, string != NULL ? strlen(string) : 0};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.base, b.base, a.len) == 0);
}

/* Equal but for the case of ASCII letters, as header names are (RFC 9110 §5.1). */
static inline bool span_ieq(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.base, b.base, a.len) == 0);
}

/* Whether the span is one of `count` others. */
static inline bool span_in(struct span text, const struct span *others, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (span_eq(text, others[i]))
            return true;
    return false;
}

static inline bool span_starts(struct span text, struct span prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.base, prefix.base, prefix.len) == 0);
}

static inline struct span span_skip(struct span text, size_t n)
{
    return n >= text.len ? SPAN_NONE : (struct span){text.base + n, text.len - n};
}

/* Without the blanks and tabs at both ends (the OWS of RFC 9110 §5.6.3). */
static inline struct span span_trim(struct span text)
{
    while (text.len != 0 && (text.base[0] == ' ' || text.base[0] == '\t'))
        text = (struct span){text.base + 1, text.len - 1};
    while (text.len != 0 && (text.base[text.len - 1] == ' ' || text.base[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* The bytes as a NUL-terminated string of their own, to be freed by the caller. Out of memory aborts. */
static inline char *span_dup(struct span text)
{
    char *string = malloc(text.len + 1);
    if (string == NULL)
        abort();
    if (text.len != 0)
        memcpy(string, text.base, text.len);
    string[text.len] = '\0';
    return string;
}

#endif
