/* A growing text buffer with a hard maximum. Whoever made it disposes of it; it belongs to one thread at a time.
 * Going beyond the maximum fills the buffer, sets `overflow` and drops what did not fit; running out of memory aborts.
 */
#ifndef WEIR_BASE_STRBUF_H
#define WEIR_BASE_STRBUF_H

#include "base/span.h"
#include <stdint.h>

struct strbuf {
    char *base; /* NUL-terminated whenever len > 0 or strbuf_cstr was called */
    size_t len;
    size_t _cap;
    size_t _max;
    bool _fixed; /* base belongs to the caller, and there is no other */
    bool _lent;  /* base belongs to the caller, until it is too small */
    bool overflow;
};

/* An empty buffer that grows up to `max` bytes of content. Dispose of it with strbuf_dispose. */
void strbuf_init(struct strbuf *buf, size_t max);

/* An empty buffer over `memory` of `cap` >= 1 bytes that never allocates and holds up to `cap` - 1 bytes of content (a
 * NUL follows); needs no dispose. */
void strbuf_init_fixed(struct strbuf *buf, char *memory, size_t cap);

/* As strbuf_init, but what fits into `memory` of `cap` bytes stays there, without an allocation. The memory must
 * outlive the buffer, which needs its strbuf_dispose nevertheless. */
void strbuf_init_lent(struct strbuf *buf, size_t max, char *memory, size_t cap);

/* Frees the memory; the buffer is empty and usable afterwards. */
void strbuf_dispose(struct strbuf *buf);

/* Forgets the content and the overflow, keeps the memory. */
void strbuf_reset(struct strbuf *buf);

/* Makes room for `n` more bytes at once, for what is about to be appended piece by piece. */
void strbuf_expect(struct strbuf *buf, size_t n);

/* strbuf_add where there is not room enough. */
void strbuf_add_grow(struct strbuf *buf, struct span bytes);

/* Appends bytes as they are. */
static inline void strbuf_add(struct strbuf *buf, struct span bytes)
{
    /* Room in the memory is room in the maximum, too. */
    if (bytes.len != 0 && bytes.len < buf->_cap - buf->len) {
        memcpy(buf->base + buf->len, bytes.base, bytes.len);
        buf->len += bytes.len;
        buf->base[buf->len] = '\0';
    } else {
        strbuf_add_grow(buf, bytes);
    }
}

/* Appends `n` bytes that the caller writes where the result points; NULL, and nothing happens, if the memory at hand
 * has no room for them. */
static inline char *strbuf_claim(struct strbuf *buf, size_t n)
{
    if (n >= buf->_cap - buf->len)
        return NULL;
    char *at = buf->base + buf->len;
    buf->len += n;
    buf->base[buf->len] = '\0';
    return at;
}

/* Appends a NUL-terminated string. */
void strbuf_puts(struct strbuf *buf, const char *string);

/* Appends one byte. */
void strbuf_putc(struct strbuf *buf, char c);

/* Appends formatted text. */
void strbuf_printf(struct strbuf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends an unsigned number in decimal, without printf's cost. */
void strbuf_u64(struct strbuf *buf, uint64_t value);

/* Appends a signed number in decimal. */
void strbuf_i64(struct strbuf *buf, int64_t value);

/* The length (1 to 4) of the UTF-8 sequence that `text` starts with (RFC 3629 §4), or 0 if it starts with none:
 * overlong forms, surrogates, values above U+10FFFF and sequences cut short are not UTF-8. */
size_t strbuf_utf8_len(struct span text);

/* Appends text as a JSON string with its quotes (RFC 8259 §7). Control characters (also U+007F to U+009F, which a
 * terminal would obey) are escaped, each byte that is not valid UTF-8 becomes U+FFFD, so that the result is valid JSON
 * whatever the input was. */
void strbuf_json(struct strbuf *buf, struct span text);

/* The same of a string, or `null` where there is none. */
void strbuf_json_or_null(struct strbuf *buf, const char *string);

/* The content as a NUL-terminated string, owned by the buffer, valid until the next change. */
const char *strbuf_cstr(struct strbuf *buf);

/* The content as a span, valid until the next change. */
static inline struct span strbuf_span(const struct strbuf *buf)
{
    return (struct span){buf->base, buf->len};
}

#endif
