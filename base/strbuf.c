#include "base/strbuf.h"
#include "base/json_plain.h"
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAP 128

/* `_cap` counts the place of the NUL, `_max` does not: a buffer is full at len == _max, and then _cap > _max. */

void strbuf_init(struct strbuf *buf, size_t max)
{
    *buf = (struct strbuf){._max = max < SIZE_MAX / 4 ? max : SIZE_MAX / 4};
}

void strbuf_init_fixed(struct strbuf *buf, char *memory, size_t cap)
{
    *buf = (struct strbuf){.base = memory, ._cap = cap, ._max = cap != 0 ? cap - 1 : 0, ._fixed = true};
    if (cap != 0)
        memory[0] = '\0';
}

void strbuf_init_lent(struct strbuf *buf, size_t max, char *memory, size_t cap)
{
    strbuf_init(buf, max);
    if (cap > buf->_max + 1)
        cap = buf->_max + 1;
    if (cap == 0)
        return;
    buf->base = memory;
    buf->_cap = cap;
    buf->_lent = true;
    memory[0] = '\0';
}

void strbuf_dispose(struct strbuf *buf)
{
    if (!buf->_fixed) {
        if (!buf->_lent)
            free(buf->base);
        buf->_lent = false;
        buf->base = NULL;
        buf->_cap = 0;
    }
    strbuf_reset(buf);
}

void strbuf_reset(struct strbuf *buf)
{
    buf->len = 0;
    buf->overflow = false;
    if (buf->_cap != 0)
        buf->base[0] = '\0';
}

static void grow(struct strbuf *buf, size_t needed)
{
    size_t cap = buf->_cap != 0 ? buf->_cap * 2 : FIRST_CAP;
    if (cap < needed)
        cap = needed;
    if (cap > buf->_max + 1)
        cap = buf->_max + 1;
    char *base = realloc(buf->_lent ? NULL : buf->base, cap);
    if (base == NULL)
        abort();
    if (buf->_lent)
        memcpy(base, buf->base, buf->len + 1);
    buf->_lent = false;
    buf->base = base;
    buf->_cap = cap;
}

/* Makes room for `n` bytes and the NUL, or for as many as the maximum allows; returns how many. */
static size_t reserve(struct strbuf *buf, size_t n)
{
    size_t left = buf->_max - buf->len;
    if (n > left) {
        n = left;
        buf->overflow = true;
    }
    if (n >= buf->_cap - buf->len && !buf->_fixed)
        grow(buf, buf->len + n + 1);
    return n;
}

void strbuf_expect(struct strbuf *buf, size_t n)
{
    size_t left = buf->_max - buf->len;
    if (n > left)
        n = left;
    if (n >= buf->_cap - buf->len && !buf->_fixed)
        grow(buf, buf->len + n + 1);
}

void strbuf_add_grow(struct strbuf *buf, struct span bytes)
{
    size_t n = reserve(buf, bytes.len);
    if (n == 0)
        return;
    memcpy(buf->base + buf->len, bytes.base, n);
    buf->len += n;
    buf->base[buf->len] = '\0';
}

void strbuf_puts(struct strbuf *buf, const char *string)
{
    strbuf_add(buf, span_of(string));
}

void strbuf_putc(struct strbuf *buf, char c)
{
    if (buf->_cap - buf->len >= 2) { /* the common case, without a copy's cost */
        buf->base[buf->len++] = c;
        buf->base[buf->len] = '\0';
        return;
    }
    strbuf_add(buf, (struct span){&c, 1});
}

void strbuf_printf(struct strbuf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = buf->_cap - buf->len;
    int length = vsnprintf(room != 0 ? buf->base + buf->len : NULL, room, format, args);
    if (length > 0) {
        size_t n = reserve(buf, (size_t)length);
        if ((size_t)length >= room && buf->_cap != 0)
            vsnprintf(buf->base + buf->len, n + 1, format, again);
        buf->len += n;
    }
    va_end(again);
    va_end(args);
}

/* How many digits a number has. */
static size_t decimal_len(uint64_t value)
{
    static const uint64_t powers[] = {1,
                                      10,
                                      100,
                                      1000,
                                      10000,
                                      100000,
                                      1000000,
                                      10000000,
                                      100000000,
                                      1000000000,
                                      10000000000,
                                      100000000000,
                                      1000000000000,
                                      10000000000000,
                                      100000000000000,
                                      1000000000000000,
                                      10000000000000000,
                                      100000000000000000,
                                      1000000000000000000,
                                      10000000000000000000u};
    size_t bits = 64U - (size_t)__builtin_clzll(value | 1), guess = bits * 1233 >> 12; /* 1233 / 4096: log10(2) */
    return guess + (guess == 0 || value >= powers[guess]);
}

void strbuf_u64(struct strbuf *buf, uint64_t value)
{
    if (value < 10) {
        strbuf_putc(buf, (char)('0' + value));
        return;
    }
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445"
        "46474849505152535455565758596061626364656667686970717273747576777879808182838485868788899091"
        "9293949596979899";
    char digits[20];
    size_t len = decimal_len(value);
    char *start = strbuf_claim(buf, len), *at = (start != NULL ? start : digits) + len;
    for (; value >= 10; value /= 100) {
        at -= 2;
        memcpy(at, &pairs[value % 100 * 2], 2);
    }
    if (value != 0)
        *--at = (char)('0' + value);
    if (start == NULL)
        strbuf_add(buf, (struct span){digits, len});
}

void strbuf_i64(struct strbuf *buf, int64_t value)
{
    if (value < 0)
        strbuf_putc(buf, '-');
    strbuf_u64(buf, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

/* RFC 3629 §4: only the second byte's range depends on the first. */
size_t strbuf_utf8_len(struct span text)
{
    const unsigned char *at = (const unsigned char *)text.base;
    if (text.len == 0)
        return 0;
    unsigned char lead = at[0], low = 0x80, high = 0xBF;
    size_t len;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0) {
        len = 2;
    } else if (lead < 0xF0) {
        len = 3;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF;
    } else {
        len = 4;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF;
    }
    if (text.len < len || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

/* Marks in each of 8 bytes, the first one lowest, whether it is below 0x20, a quote, a backslash, DEL, or above ASCII.
 * Borrows run only from such a byte to those behind it, so the first mark is exact. */
static uint64_t not_plain(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\'), del = word ^ (ones * 0x7F);
    return (word | (word - ones * 0x20) | (quote - ones) | (backslash - ones) | (del - ones)) & highs;
}

/* How many of 8 bytes are plain before the first that is not. */
static size_t plain_in_word(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    uint64_t marks = not_plain(le64toh(word));
    return marks != 0 ? (size_t)__builtin_ctzll(marks) / 8 : sizeof(word);
}

/* 16 bytes on their way. */
struct sixteen {
#ifdef __SSE2__
    __m128i bytes;
#else
    uint64_t first, second;
#endif
};

static inline struct sixteen load(const char *from)
{
    struct sixteen loaded;
    memcpy(&loaded, from, sizeof(loaded));
    return loaded;
}

static inline bool are_plain(struct sixteen loaded)
{
#ifdef __SSE2__
    __m128i del = _mm_cmpeq_epi8(loaded.bytes, _mm_set1_epi8(0x7F));
    return json_plain_bits(_mm_or_si128(json_plain_marks(loaded.bytes), del)) == 0;
#else
    return (not_plain(loaded.first) | not_plain(loaded.second)) == 0;
#endif
}

static inline bool words_are_plain(uint64_t first, uint64_t second)
{
    uint64_t words[] = {first, second};
    return are_plain(load((const char *)words));
}

/* Copies `text`, of 1 to 15 bytes, if all of it is plain, some of it twice; else false. */
static inline bool copy_short_plain(char *to, const char *from, size_t len)
{
    if (len >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8);
        memcpy(&last, from + len - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + len - 8, &last, 8);
        return words_are_plain(first, last);
    }
    uint64_t word = 0x2020202020202020; /* blanks are plain */
    if (len >= 4) {
        uint32_t first, last;
        memcpy(&first, from, 4);
        memcpy(&last, from + len - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + len - 4, &last, 4);
        word = (uint64_t)first << 32 | last;
    } else {
        for (size_t i = 0; i < len; i++)
            word = word << 8 | (unsigned char)(to[i] = from[i]);
    }
    return words_are_plain(word, word);
}

/* Copies `text`, of at least one byte, as long as all of it is plain; else false, and what stands at `to` means
 * nothing. */
static inline bool copy_plain(char *to, struct span text)
{
    const char *from = text.base;
    size_t len = text.len, last = len - sizeof(struct sixteen);
    if (len < sizeof(struct sixteen))
        return copy_short_plain(to, from, len);
    for (size_t at = 0;; at = at + sizeof(struct sixteen) < last ? at + sizeof(struct sixteen) : last) {
        struct sixteen piece = load(from + at); /* of the last, some for the second time */
        if (!are_plain(piece))
            return false;
        memcpy(to + at, &piece, sizeof(piece));
        if (at == last)
            return true;
    }
}

/* The length of the start of `text` that is valid UTF-8 above ASCII and no control character. */
static size_t foreign_run(struct span text)
{
    const unsigned char *start = (const unsigned char *)text.base, *at = start, *end = start + text.len;
    while (at < end && *at >= 0x80) {
        /* Most of it is of three bytes, and of those only E0 and ED restrict the second. */
        if (end - at >= 3 && (*at & 0xF0) == 0xE0 && *at != 0xE0 && *at != 0xED && (at[1] & 0xC0) == 0x80 &&
            (at[2] & 0xC0) == 0x80) {
            at += 3;
            continue;
        }
        size_t len = strbuf_utf8_len((struct span){(const char *)at, (size_t)(end - at)});
        if (len == 0 || (*at == 0xC2 && at[1] < 0xA0))
            break;
        at += len;
    }
    return (size_t)(at - start);
}

/* The length of the start of `text` that may stand in a JSON string as it is. */
static size_t plain_run(struct span text)
{
    size_t at = 0;
    while (at < text.len) {
        if (text.len - at >= 8) {
            size_t plain = plain_in_word(text.base + at);
            at += plain;
            if (plain == 8)
                continue;
        }
        unsigned char c = (unsigned char)text.base[at];
        if (c < 0x80) {
            if (c < 0x20 || c == '"' || c == '\\' || c == 0x7F)
                break;
            at++;
            continue;
        }
        size_t run = foreign_run((struct span){text.base + at, text.len - at});
        if (run == 0)
            break;
        at += run;
    }
    return at;
}

static void add_escape(struct strbuf *buf, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = "btn_fr"; /* for 8 to 13; 11 has none */
    char escape[6] = {'\\', (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
    size_t len = 2;
    if (c >= '\b' && c <= '\r' && c != '\v') {
        escape[1] = letters[c - '\b'];
    } else if (c != '"' && c != '\\') {
        escape[1] = 'u';
        len = 6;
    }
    strbuf_add(buf, (struct span){escape, len});
}

/* For any text. What nearly all texts are is handled apart, with few registers. */
__attribute__((noinline)) static void add_any_json(struct strbuf *buf, struct span text)
{
    strbuf_putc(buf, '"');
    for (;;) {
        size_t run = plain_run(text);
        strbuf_add(buf, (struct span){text.base, run});
        text = span_skip(text, run);
        if (text.len == 0 || buf->overflow)
            break;
        unsigned char c = (unsigned char)text.base[0];
        if (c < 0x80) {
            add_escape(buf, c);
            text = span_skip(text, 1);
        } else if (strbuf_utf8_len(text) != 0) { /* a control character of two bytes */
            add_escape(buf, (unsigned char)text.base[1]);
            text = span_skip(text, 2);
        } else {
            strbuf_add(buf, SPAN("\xEF\xBF\xBD"));
            text = span_skip(text, 1);
        }
    }
    strbuf_putc(buf, '"');
}

void strbuf_json(struct strbuf *buf, struct span text)
{
    /* Nearly all texts are short and plain, and there is room. */
    if (text.len != 0 && buf->_cap - buf->len > text.len + 2) {
        char *to = buf->base + buf->len;
        if (copy_plain(to + 1, text)) {
            to[0] = '"';
            memcpy(to + 1 + text.len, "\"", 2); /* with its NUL */
            buf->len += text.len + 2;
            return;
        }
    }
    add_any_json(buf, text);
}

void strbuf_json_or_null(struct strbuf *buf, const char *string)
{
    if (string != NULL)
        strbuf_json(buf, span_of(string));
    else
        strbuf_add(buf, SPAN("null"));
}

const char *strbuf_cstr(struct strbuf *buf)
{
    if (buf->_cap == 0) {
        if (buf->_fixed)
            return "";
        grow(buf, 1);
    }
    buf->base[buf->len] = '\0';
    return buf->base;
}
