#include "base/http_text.h"
#include <ctype.h>
#include <stdint.h>

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

bool http_text_is_clean(struct span text)
{
    const char *at = text.base, *end = at + text.len;
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
