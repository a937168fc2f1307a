#include "base/http_text.h"
#include <ctype.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Whether one of 8 bytes is below 0x20 or 0x7F. It may say so of bytes above those too, never the other way round. */
static bool may_be_dirty(const char *at)
{
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    uint64_t del = word ^ (ones * 0x7F);
    return (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & highs;
}

static bool is_clean(const char *at, const char *end)
{
    for (; at < end; at++)
        if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7f)
            return false;
    return true;
}

#ifdef __SSE2__
/* Marks those of 16 bytes that are control characters but no tabs. */
static __m128i marks(const char *at)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes),
            tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t')), del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7F));
    return _mm_or_si128(_mm_andnot_si128(tab, low), del);
}

/* For at least 16 bytes. */
static bool is_long_clean(const char *at, const char *end)
{
    __m128i found = marks(end - 16); /* some of it twice */
    for (; end - at > 16; at += 16)
        found = _mm_or_si128(found, marks(at));
    return _mm_movemask_epi8(found) == 0;
}
#endif

bool http_text_is_clean(struct span text)
{
    if (text.len == 0) /* nothing may also be NULL, to which not even 0 may be added */
        return true;
    const char *at = text.base, *end = at + text.len;
#ifdef __SSE2__
    if (text.len >= 16)
        return is_long_clean(at, end);
#endif
    if (text.len < sizeof(uint64_t))
        return is_clean(at, end);
    for (; (size_t)(end - at) > sizeof(uint64_t); at += sizeof(uint64_t))
        if (may_be_dirty(at) && !is_clean(at, at + sizeof(uint64_t)))
            return false;
    at = end - sizeof(uint64_t); /* some of it for the second time */
    return !may_be_dirty(at) || is_clean(at, end);
}

bool http_text_is_token(struct span text)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < text.len; i++)
        if (!isalnum((unsigned char)text.base[i]) && (text.base[i] == '\0' || strchr(marks, text.base[i]) == NULL))
            return false;
    return text.len != 0;
}

bool http_text_list_has(struct span list, struct span token)
{
    while (list.len != 0) {
        const char *comma = memchr(list.base, ',', list.len);
        size_t n = comma != NULL ? (size_t)(comma - list.base) : list.len;
        if (span_ieq(span_trim((struct span){list.base, n}), token))
            return true;
        list = span_skip(list, n + 1);
    }
    return false;
}

void http_text_add_header(struct strbuf *out, struct span name, struct span value)
{
    char *at = strbuf_claim(out, name.len + value.len + 4);
    if (at != NULL) {
        at = mempcpy(mempcpy(at, name.base, name.len), ": ", 2);
        if (value.len != 0)
            at = mempcpy(at, value.base, value.len);
        memcpy(at, "\r\n", 2);
        return;
    }
    strbuf_add(out, name);
    strbuf_add(out, SPAN(": "));
    strbuf_add(out, value);
    strbuf_add(out, SPAN("\r\n"));
}
