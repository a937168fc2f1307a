#include "base/query.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character that `text` begins with, decoded; *taken receives the bytes that it took. */
static char decode(struct span text, size_t *taken)
{
    *taken = 1;
    if (text.base[0] == '+')
        return ' ';
    if (text.base[0] != '%' || text.len < 3 || hex(text.base[1]) < 0 || hex(text.base[2]) < 0)
        return text.base[0];
    *taken = 3;
    return (char)(hex(text.base[1]) << 4 | hex(text.base[2]));
}

bool query_is_name(struct span text, struct span name)
{
    size_t taken;
    for (size_t i = 0; i < name.len; i++, text = span_skip(text, taken))
        if (text.len == 0 || decode(text, &taken) != name.base[i])
            return false;
    return text.len == 0;
}

bool query_next(struct span *rest, struct span *name, struct span *value)
{
    while (rest->len != 0) {
        const char *end = memchr(rest->base, '&', rest->len);
        struct span pair = {rest->base, end != NULL ? (size_t)(end - rest->base) : rest->len};
        *rest = span_skip(*rest, pair.len + 1);
        if (pair.len == 0)
            continue;
        size_t n = 0;
        while (n < pair.len && pair.base[n] != '=')
            n++;
        *name = (struct span){pair.base, n};
        *value = span_skip(pair, n + 1);
        return true;
    }
    return false;
}

bool query_value(struct span query, struct span name, struct strbuf *out)
{
    struct span found, value;
    size_t taken;
    while (query_next(&query, &found, &value)) {
        if (!query_is_name(found, name))
            continue;
        for (; value.len != 0; value = span_skip(value, taken))
            strbuf_putc(out, decode(value, &taken));
        return true;
    }
    return false;
}

bool query_last(struct span query, struct span name, struct span *value)
{
    struct span found, here;
    bool any = false;
    while (query_next(&query, &found, &here)) {
        if (!query_is_name(found, name))
            continue;
        *value = here;
        any = true;
    }
    return any;
}

size_t query_decode(struct span raw, char *out)
{
    size_t n = 0, taken;
    for (; raw.len != 0; raw = span_skip(raw, taken))
        out[n++] = decode(raw, &taken);
    return n;
}

void query_encode(struct span text, struct strbuf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.base[i];
        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
            (c != 0 && strchr("-._~", c) != NULL)) {
            strbuf_putc(out, (char)c);
            continue;
        }
        strbuf_putc(out, '%');
        strbuf_putc(out, digits[c >> 4]);
        strbuf_putc(out, digits[c & 15]);
    }
}

bool query_is_utf8(struct span text, size_t *characters)
{
    size_t count = 0;
    for (; text.len != 0; count++) {
        size_t n = strbuf_utf8_len(text);
        if (n == 0)
            return false;
        text = span_skip(text, n);
    }
    if (characters != NULL)
        *characters = count;
    return true;
}
