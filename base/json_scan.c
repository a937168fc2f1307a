#include "base/json_scan.h"
#include "base/strbuf.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

struct scan {
    const char *p, *end, *base;
    struct json_error *error;
};

/* What a backslash and one letter mean (RFC 8259 §7); 0: nothing. */
static const char escape_meanings[256] = {
    ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};

static bool fail(struct scan *scan, const char *at, const char *message)
{
    scan->error->offset = (size_t)(at - scan->base);
    scan->error->message = message;
    return false;
}

/* The next byte; NUL, which no rule of the grammar accepts, at the end. */
static inline char peek(const struct scan *scan)
{
    return scan->p != scan->end ? *scan->p : '\0';
}

static inline void skip_blanks(struct scan *scan)
{
    while (scan->p != scan->end && (*scan->p == ' ' || *scan->p == '\n' || *scan->p == '\r' || *scan->p == '\t'))
        ++scan->p;
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The number that four hexadecimal digits make, or -1. */
static long read_hex4(const char *p)
{
    long value = 0;

    for (int i = 0; i != 4; ++i) {
        char lower = (char)(p[i] | 0x20);
        if (is_digit(p[i]))
            value = value * 16 + (p[i] - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

#ifdef __SSE2__
static inline unsigned bits(__m128i bytes)
{
    return (unsigned)_mm_movemask_epi8(bytes);
}

/* Where quotes, backslashes, control characters and the bytes of longer UTF-8 sequences are. */
static inline unsigned special_in(__m128i bytes)
{
    __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    /* Signed: one comparison finds both those below ' ' and those above 7F. */
    return bits(_mm_or_si128(ends, _mm_cmplt_epi8(bytes, _mm_set1_epi8(' '))));
}

/* Looks at 16 bytes that start with a character. Returns how many of them are whole, valid characters up to the first
 * whose bit is set in `stops`; 0 for what is left to strbuf_utf8_len: sequences of four bytes, and whatever is wrong.
 */
static inline size_t skip_utf8(__m128i bytes, unsigned stops)
{
    /* Bytes are signed here, so that the order is 80 ... FF 00 ... 7F. */
    __m128i above_c1 = _mm_cmpgt_epi8(bytes, _mm_set1_epi8((char)0xC1));
    unsigned negative = bits(bytes), follow = bits(_mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xC0)));
    unsigned upper = follow & bits(_mm_cmpgt_epi8(bytes, _mm_set1_epi8((char)0x9F))); /* A0 ... BF */
    unsigned lead2 = bits(_mm_and_si128(above_c1, _mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xE0))));
    unsigned lead3 = bits(_mm_and_si128(above_c1, _mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xF0)))) & ~lead2;
    unsigned e0 = bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xE0)));
    unsigned ed = bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xED)));
    unsigned len = stops != 0 ? (unsigned)__builtin_ctz(stops) : 16, within = (1U << len) - 1;

    lead2 &= within;
    lead3 &= within;
    unsigned wanted = (lead2 | lead3) << 1 | lead3 << 2;
    bool wrong = ((wanted ^ follow) & within) != 0 || ((lead2 | lead3 | follow) & within) != (negative & within) ||
                 ((e0 << 1 & ~upper) & within) != 0 || ((ed << 1 & upper) & within) != 0;
    if (wrong || (stops != 0 && (wanted & ~within) != 0))
        return 0;
    if (wanted >> 16 == 0)
        return len;
    return (lead2 | lead3) >> 15 != 0 ? 15 : 14; /* the last character goes on behind the 16 bytes */
}
#endif

/* The first byte in [p, end), where a character starts, that wants a closer look: a quote, a backslash, a control
 * character, or a longer UTF-8 sequence that was not found valid on the way. */
static inline const char *skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned special = special_in(bytes);
        if (special == 0) {
            p += 16;
            continue;
        }
        unsigned negative = bits(bytes), stops = special & ~negative;
        size_t len = negative != 0 ? skip_utf8(bytes, stops) : 0;
        if (len == 0)
            return p + __builtin_ctz(special);
        p += len;
        if (stops != 0)
            return p;
    }
#else
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;

    while (end - p >= 8) {
        uint64_t bytes;
        memcpy(&bytes, p, 8);
        uint64_t quote = bytes ^ (ones * '"'), backslash = bytes ^ (ones * '\\');
        /* x - 01... sets the high bit where a byte of x was 0, and perhaps, by a borrow, in one after it. */
        if (((bytes | (bytes - ones * ' ') | (quote - ones) | (backslash - ones)) & highs) != 0)
            break;
        p += 8;
    }
#endif
    while (p != end && *p != '"' && *p != '\\' && (signed char)*p >= ' ')
        ++p;
    return p;
}

/* Skips the escape at scan->p. */
static bool scan_escape(struct scan *scan, const char *start)
{
    const char *p = scan->p;

    if (scan->end - p < 2)
        return fail(scan, start, "Unterminated string starting at");
    if (p[1] == 'u') {
        /* Python wants to see a byte behind the digits as well. */
        if (scan->end - p <= 6 || read_hex4(p + 2) < 0)
            return fail(scan, p + 1, "Invalid \\uXXXX escape");
        scan->p += 6;
        return true;
    }
    if (escape_meanings[(unsigned char)p[1]] == 0)
        return fail(scan, p, "Invalid \\escape");
    scan->p += 2;
    return true;
}

/* As scan_string, for what is behind its first plain bytes. */
static bool scan_long_string(struct scan *scan, const char *start)
{
    for (;;) {
        scan->p = skip_plain(scan->p, scan->end);
        if (scan->p == scan->end)
            return fail(scan, start, "Unterminated string starting at");
        unsigned char c = (unsigned char)*scan->p;
        if (c == '"') {
            ++scan->p;
            return true;
        }
        if (c == '\\') {
            if (!scan_escape(scan, start))
                return false;
        } else if (c < ' ') {
            return fail(scan, scan->p, "Invalid control character at");
        } else {
            do {
                size_t len = strbuf_utf8_len((struct span){scan->p, (size_t)(scan->end - scan->p)});
                if (len == 0)
                    return fail(scan, scan->p, "Invalid UTF-8 at");
                scan->p += len;
            } while (scan->p != scan->end && (signed char)*scan->p < 0);
        }
    }
}

/* Skips the string whose opening quote is at scan->p. Names and most values of an answer are short. */
static inline bool scan_string(struct scan *scan)
{
    const char *start = scan->p++;

#ifdef __SSE2__
    if (scan->end - scan->p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)scan->p);
        unsigned special = special_in(bytes);
        if (special == 0) {
            scan->p += 16;
        } else if (scan->p[__builtin_ctz(special)] == '"') {
            scan->p += __builtin_ctz(special) + 1;
            return true;
        }
    }
#endif
    return scan_long_string(scan, start);
}

/* Skips a number as far as it goes: what cannot be its continuation is for the caller to complain of, as in Python. */
static bool scan_number(struct scan *scan)
{
    const char *p = scan->p, *end = scan->end;

    if (p != end && *p == '-')
        ++p;
    if (p == end || !is_digit(*p))
        return fail(scan, scan->p, "Expecting value");
    if (*p == '0')
        ++p;
    else
        while (p != end && is_digit(*p))
            ++p;
    if (end - p >= 2 && *p == '.' && is_digit(p[1]))
        for (++p; p != end && is_digit(*p);)
            ++p;
    if (end - p >= 2 && (*p == 'e' || *p == 'E')) {
        const char *digits = p + 1;
        if (*digits == '+' || *digits == '-')
            ++digits;
        if (digits != end && is_digit(*digits)) {
            while (digits != end && is_digit(*digits))
                ++digits;
            p = digits;
        }
    }
    scan->p = p;
    return true;
}

static bool scan_word(struct scan *scan, struct span word)
{
    if (!span_starts((struct span){scan->p, (size_t)(scan->end - scan->p)}, word))
        return fail(scan, scan->p, "Expecting value");
    scan->p += word.len;
    return true;
}

/* Skips a value that is no object and no array; tells its type. */
static bool scan_scalar(struct scan *scan, enum json_type *type)
{
    char c = peek(scan);

    *type = c == '"' ? JSON_STRING : c == 'n' ? JSON_NULL : c == 't' || c == 'f' ? JSON_BOOL : JSON_NUMBER;
    switch (*type) {
    case JSON_STRING:
        return scan_string(scan);
    case JSON_NULL:
        return scan_word(scan, SPAN("null"));
    case JSON_BOOL:
        return scan_word(scan, c == 't' ? SPAN("true") : SPAN("false"));
    default:
        return scan_number(scan);
    }
}

/* Skips a member's name (told in *name, with its quotes), colon and blanks, up to its value. */
static bool scan_name(struct scan *scan, struct span *name)
{
    const char *start = scan->p;

    if (peek(scan) != '"')
        return fail(scan, scan->p, "Expecting property name enclosed in double quotes");
    if (!scan_string(scan))
        return false;
    *name = (struct span){start, (size_t)(scan->p - start)};
    skip_blanks(scan);
    if (peek(scan) != ':')
        return fail(scan, scan->p, "Expecting ':' delimiter");
    ++scan->p;
    skip_blanks(scan);
    return true;
}

/* Skips one value of any kind, whose first byte is at scan->p, with at most `max_depth` levels of brackets. */
static bool scan_value(struct scan *scan, size_t max_depth, struct json_value *value)
{
    char closers[JSON_MAX_DEPTH]; /* what closes each open bracket */
    size_t depth = 0;
    const char *start = scan->p;
    enum json_type type = JSON_MISSING;
    uint32_t count = 0;
    struct span name;

    for (;;) {
        char c = peek(scan);
        if (c == '{' || c == '[') {
            if (depth == max_depth)
                return fail(scan, scan->p, "Too deeply nested");
            ++scan->p;
            skip_blanks(scan);
            if (peek(scan) != (c == '{' ? '}' : ']')) {
                closers[depth++] = c == '{' ? '}' : ']';
                if (c == '{' && !scan_name(scan, &name))
                    return false;
                continue;
            }
            ++scan->p;
        } else if (!scan_scalar(scan, &type)) {
            return false;
        }

        /* A value is complete: close what it completes in turn. */
        while (depth != 0) {
            if (depth == 1)
                ++count;
            skip_blanks(scan);
            c = peek(scan);
            if (c == ',') {
                ++scan->p;
                skip_blanks(scan);
                if (closers[depth - 1] == '}' && !scan_name(scan, &name))
                    return false;
                break;
            }
            if (c != closers[depth - 1])
                return fail(scan, scan->p, "Expecting ',' delimiter");
            ++scan->p;
            --depth;
        }
        if (depth == 0)
            break;
    }
    if (*start == '{' || *start == '[')
        type = *start == '{' ? JSON_OBJECT : JSON_ARRAY;
    *value = (struct json_value){.type = type,
                                 .raw = {start, (size_t)(scan->p - start)},
                                 .count = count,
                                 .truth = type == JSON_BOOL && *start == 't'};
    return true;
}

/* Notes a member's value with whoever asked for it. */
static void note_member(struct span raw, const struct json_value *value, const struct span *names, size_t count,
                        struct json_value *values)
{
    struct span name = {raw.base + 1, raw.len - 2};
    char decoded[JSON_NAME_MAX];

    if (count != 0 && memchr(name.base, '\\', name.len) != NULL) {
        long len = json_string_decode(raw, decoded, sizeof(decoded));
        if (len < 0)
            return;
        name = (struct span){decoded, (size_t)len};
    }
    for (size_t i = 0; i != count; ++i) {
        if (span_eq(name, names[i])) {
            bool again = values[i].type != JSON_MISSING;
            values[i] = *value;
            values[i].duplicate = again;
        }
    }
}

/* Skips the object at scan->p and notes the members asked for. */
static bool scan_members(struct scan *scan, const struct span *names, size_t count, struct json_value *values,
                         struct json_value *root)
{
    const char *start = scan->p++;
    struct json_value value;
    struct span name;
    uint32_t members = 0;

    skip_blanks(scan);
    if (peek(scan) != '}') {
        for (;; ++scan->p, skip_blanks(scan)) {
            if (!scan_name(scan, &name) || !scan_value(scan, JSON_MAX_DEPTH - 1, &value))
                return false;
            ++members;
            note_member(name, &value, names, count, values);
            skip_blanks(scan);
            if (peek(scan) == '}')
                break;
            if (peek(scan) != ',')
                return fail(scan, scan->p, "Expecting ',' delimiter");
        }
    }
    ++scan->p;
    *root = (struct json_value){.type = JSON_OBJECT, .raw = {start, (size_t)(scan->p - start)}, .count = members};
    return true;
}

bool json_scan(struct span text, const struct span *names, size_t count, struct json_value *values,
               struct json_value *root, struct json_error *error)
{
    if (text.base == NULL)
        text = SPAN("");
    struct scan scan = {.p = text.base, .end = text.base + text.len, .error = error, .base = text.base};
    struct json_value whole = {.type = JSON_MISSING};
    bool valid;

    for (size_t i = 0; i != count; ++i)
        values[i] = whole;
    skip_blanks(&scan);
    if (peek(&scan) == '{')
        valid = scan_members(&scan, names, count, values, &whole);
    else
        valid = scan_value(&scan, JSON_MAX_DEPTH, &whole);
    skip_blanks(&scan);
    if (valid && scan.p != scan.end)
        valid = fail(&scan, scan.p, "Extra data");
    if (!valid) {
        whole = (struct json_value){.type = JSON_MISSING};
        for (size_t i = 0; i != count; ++i)
            values[i] = whole;
    }
    if (root != NULL)
        *root = whole;
    return valid;
}

/* Writes a code point that is no surrogate as UTF-8; returns its length. */
static size_t utf8_encode(unsigned long code, char out[4])
{
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

    for (size_t i = len; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(len == 1 ? code : (0xF00 >> len & 0xFF) | code);
    return len;
}

/* Decodes the escape at p into `out`. Returns the number of bytes read, or 0. */
static size_t decode_escape(const char *p, const char *end, char out[4], size_t *out_len)
{
    if (end - p < 2)
        return 0;
    if (p[1] != 'u') {
        out[0] = escape_meanings[(unsigned char)p[1]];
        *out_len = 1;
        return out[0] != 0 ? 2 : 0;
    }
    long code = end - p >= 6 ? read_hex4(p + 2) : -1;
    if (code < 0 || (code >= 0xDC00 && code <= 0xDFFF))
        return 0;
    if (code < 0xD800 || code > 0xDFFF) {
        *out_len = utf8_encode((unsigned long)code, out);
        return 6;
    }
    long low = end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? read_hex4(p + 8) : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return 0;
    *out_len = utf8_encode(0x10000 + (((unsigned long)code - 0xD800) << 10) + ((unsigned long)low - 0xDC00), out);
    return 12;
}

long json_string_decode(struct span raw, char *out, size_t cap)
{
    size_t len = 0;

    if (raw.len < 2 || raw.base[0] != '"' || raw.base[raw.len - 1] != '"')
        return -1;
    for (const char *p = raw.base + 1, *end = raw.base + raw.len - 1; p != end;) {
        const char *stop = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((stop != NULL ? stop : end) - p);
        if (plain > cap - len)
            return -1;
        memcpy(out + len, p, plain);
        len += plain;
        p += plain;
        if (stop != NULL) {
            char bytes[4];
            size_t bytes_len, used = decode_escape(p, end, bytes, &bytes_len);
            if (used == 0 || bytes_len > cap - len)
                return -1;
            memcpy(out + len, bytes, bytes_len);
            len += bytes_len;
            p += used;
        }
    }
    return (long)len;
}

bool json_u64(const struct json_value *value, uint64_t *out)
{
    uint64_t number = 0;

    if (value->type != JSON_NUMBER || value->raw.len == 0 || value->raw.len > 16)
        return false;
    for (size_t i = 0; i != value->raw.len; ++i) {
        if (!is_digit(value->raw.base[i]))
            return false;
        number = number * 10 + (uint64_t)(value->raw.base[i] - '0');
    }
    if (number >= (uint64_t)1 << 53)
        return false;
    *out = number;
    return true;
}

bool json_array_next(const struct json_value *array, size_t *cursor, struct json_value *element)
{
    struct json_error error;

    if (array->type != JSON_ARRAY || *cursor >= array->raw.len)
        return false;
    struct scan scan = {.p = array->raw.base + *cursor,
                        .end = array->raw.base + array->raw.len,
                        .error = &error,
                        .base = array->raw.base};
    /* Stands at the opening bracket at first, later behind an element. */
    skip_blanks(&scan);
    if (peek(&scan) != (*cursor == 0 ? '[' : ','))
        return false;
    ++scan.p;
    skip_blanks(&scan);
    if (!scan_value(&scan, JSON_MAX_DEPTH, element))
        return false;
    *cursor = (size_t)(scan.p - array->raw.base);
    return true;
}
