#include "base/json_scan.h"
#include "base/json_plain.h"
#include "base/strbuf.h"

/* Where the scan is goes from function to function as `p`, in a register: those that skip something return the place
 * behind it, or NULL. */
struct scan {
    const char *end, *base;
    struct json_error *error;
    bool escaped; /* a string was not plain; whoever wants to know sets it back first */
};

/* What a backslash and one letter mean (RFC 8259 §7); 0: nothing. */
static const char escape_meanings[256] = {
    ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};

static const char *fail(struct scan *scan, const char *at, const char *message)
{
    scan->error->offset = (size_t)(at - scan->base);
    scan->error->message = message;
    return NULL;
}

/* The byte at p; NUL, which no rule of the grammar accepts, at the end. */
static inline char peek(const char *p, const char *end)
{
    return p != end ? *p : '\0';
}

static inline const char *skip_blanks(const char *p, const char *end)
{
    while (p != end && (unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        ++p;
    return p;
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

/* Skips the escape at p. */
static const char *scan_escape(struct scan *scan, const char *p, const char *start)
{
    scan->escaped = true;
    if (scan->end - p < 2)
        return fail(scan, start, "Unterminated string starting at");
    if (p[1] == 'u') {
        /* Python wants to see a byte behind the digits as well. */
        if (scan->end - p <= 6 || read_hex4(p + 2) < 0)
            return fail(scan, p + 1, "Invalid \\uXXXX escape");
        return p + 6;
    }
    if (escape_meanings[(unsigned char)p[1]] == 0)
        return fail(scan, p, "Invalid \\escape");
    return p + 2;
}

/* As scan_string, for what is behind its first plain bytes. */
static const char *scan_long_string(struct scan *scan, const char *p, const char *start)
{
    const char *end = scan->end;

    for (;;) {
        p = json_plain_skip(p, end);
        if (p == end)
            return fail(scan, start, "Unterminated string starting at");
        unsigned char c = (unsigned char)*p;
        if (c == '"')
            return p + 1;
        if (c == '\\') {
            p = scan_escape(scan, p, start);
            if (p == NULL)
                return NULL;
        } else if (c < ' ') {
            return fail(scan, p, "Invalid control character at");
        } else {
            do {
                size_t len = strbuf_utf8_len((struct span){p, (size_t)(end - p)});
                if (len == 0)
                    return fail(scan, p, "Invalid UTF-8 at");
                p += len;
            } while (p != end && (signed char)*p < 0);
        }
    }
}

/* Skips the string whose opening quote is at p. Names and most values of an answer are short. */
static inline const char *scan_string(struct scan *scan, const char *p)
{
    const char *start = p++;

#ifdef __SSE2__
    if (scan->end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned special = json_plain_special(bytes);
        if (special == 0)
            p += 16;
        else if (p[__builtin_ctz(special)] == '"')
            return p + __builtin_ctz(special) + 1;
    }
#endif
    return scan_long_string(scan, p, start);
}

/* Skips a number as far as it goes: what cannot be its continuation is for the caller to complain of, as in Python. */
static inline const char *scan_number(struct scan *scan, const char *p)
{
    const char *start = p, *end = scan->end;

    if (p != end && *p == '-')
        ++p;
    if (p == end || !is_digit(*p))
        return fail(scan, start, "Expecting value");
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
    return p;
}

static const char *scan_word(struct scan *scan, const char *p, struct span word)
{
    if (!span_starts((struct span){p, (size_t)(scan->end - p)}, word))
        return fail(scan, p, "Expecting value");
    return p + word.len;
}

/* Skips a value that is no object and no array, whose first byte is `c`. */
static inline const char *scan_scalar(struct scan *scan, const char *p, char c)
{
    switch (c) {
    case '"':
        return scan_string(scan, p);
    case 'n':
        return scan_word(scan, p, SPAN("null"));
    case 't':
        return scan_word(scan, p, SPAN("true"));
    case 'f':
        return scan_word(scan, p, SPAN("false"));
    default:
        return scan_number(scan, p);
    }
}

/* Skips a member's name (told in *name, with its quotes), colon and blanks, up to its value. */
static inline const char *scan_name(struct scan *scan, const char *p, struct span *name)
{
    const char *start = p, *end = scan->end;

    if (peek(p, end) != '"')
        return fail(scan, p, "Expecting property name enclosed in double quotes");
    p = scan_string(scan, p);
    if (p == NULL)
        return NULL;
    *name = (struct span){start, (size_t)(p - start)};
    p = skip_blanks(p, end);
    if (peek(p, end) != ':')
        return fail(scan, p, "Expecting ':' delimiter");
    return skip_blanks(p + 1, end);
}

static enum json_type type_of(char c)
{
    switch (c) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 'n':
        return JSON_NULL;
    case 't':
    case 'f':
        return JSON_BOOL;
    default:
        return JSON_NUMBER;
    }
}

/* Skips one value of any kind, whose first byte is at p, with at most `max_depth` levels of brackets. */
static const char *scan_value(struct scan *scan, const char *p, size_t max_depth, struct json_value *value)
{
    char closers[JSON_MAX_DEPTH]; /* what closes each open bracket */
    size_t depth = 0;
    const char *start = p, *end = scan->end;
    uint32_t count = 0;
    struct span name;

    for (;;) {
        char c = peek(p, end);
        if (c == '{' || c == '[') {
            char closer = c == '{' ? '}' : ']';
            if (depth == max_depth)
                return fail(scan, p, "Too deeply nested");
            p = skip_blanks(p + 1, end);
            if (peek(p, end) != closer) {
                closers[depth++] = closer;
                if (c == '{' && (p = scan_name(scan, p, &name)) == NULL)
                    return NULL;
                continue;
            }
            ++p;
        } else if ((p = scan_scalar(scan, p, c)) == NULL) {
            return NULL;
        }

        /* A value is complete: close what it completes in turn. */
        while (depth != 0) {
            count += depth == 1;
            p = skip_blanks(p, end);
            c = peek(p, end);
            if (c == ',') {
                p = skip_blanks(p + 1, end);
                if (closers[depth - 1] == '}' && (p = scan_name(scan, p, &name)) == NULL)
                    return NULL;
                break;
            }
            if (c != closers[depth - 1])
                return fail(scan, p, "Expecting ',' delimiter");
            ++p;
            --depth;
        }
        if (depth == 0)
            break;
    }
    *value = (struct json_value){
        .type = type_of(*start), .raw = {start, (size_t)(p - start)}, .count = count, .truth = *start == 't'};
    return p;
}

/* Notes a member's value with whoever asked for it. */
static void note_member(struct span raw, bool escaped, const struct json_value *value, const struct span *names,
                        size_t count, struct json_value *values)
{
    struct span name = {raw.base + 1, raw.len - 2};
    char decoded[JSON_NAME_MAX];

    if (escaped) {
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

/* Skips the object at p and notes the members asked for. */
static const char *scan_members(struct scan *scan, const char *p, const struct span *names, size_t count,
                                struct json_value *values, struct json_value *root)
{
    const char *start = p, *end = scan->end;
    struct json_value value;
    struct span name;
    uint32_t members = 0;

    p = skip_blanks(p + 1, end);
    if (peek(p, end) != '}') {
        for (;; p = skip_blanks(p + 1, end)) {
            scan->escaped = false;
            p = scan_name(scan, p, &name);
            bool escaped = scan->escaped;
            if (p == NULL || (p = scan_value(scan, p, JSON_MAX_DEPTH - 1, &value)) == NULL)
                return NULL;
            ++members;
            note_member(name, escaped, &value, names, count, values);
            p = skip_blanks(p, end);
            if (peek(p, end) == '}')
                break;
            if (peek(p, end) != ',')
                return fail(scan, p, "Expecting ',' delimiter");
        }
    }
    ++p;
    *root = (struct json_value){.type = JSON_OBJECT, .raw = {start, (size_t)(p - start)}, .count = members};
    return p;
}

bool json_scan(struct span text, const struct span *names, size_t count, struct json_value *values,
               struct json_value *root, struct json_error *error)
{
    if (text.base == NULL)
        text = SPAN("");
    const char *end = text.base + text.len, *p = skip_blanks(text.base, end);
    struct scan scan = {.end = end, .base = text.base, .error = error};
    struct json_value whole = {.type = JSON_MISSING};

    for (size_t i = 0; i != count; ++i)
        values[i] = whole;
    if (peek(p, end) == '{')
        p = scan_members(&scan, p, names, count, values, &whole);
    else
        p = scan_value(&scan, p, JSON_MAX_DEPTH, &whole);
    if (p != NULL && (p = skip_blanks(p, end)) != end)
        p = fail(&scan, p, "Extra data");
    if (p == NULL) {
        whole = (struct json_value){.type = JSON_MISSING};
        for (size_t i = 0; i != count; ++i)
            values[i] = whole;
    }
    if (root != NULL)
        *root = whole;
    return p != NULL;
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
    const char *p = array->raw.base + *cursor, *end = array->raw.base + array->raw.len;
    struct scan scan = {.end = end, .base = array->raw.base, .error = &error};
    /* Stands at the opening bracket at first, later behind an element. */
    p = skip_blanks(p, end);
    if (peek(p, end) != (*cursor == 0 ? '[' : ','))
        return false;
    p = scan_value(&scan, skip_blanks(p + 1, end), JSON_MAX_DEPTH, element);
    if (p == NULL)
        return false;
    *cursor = (size_t)(p - array->raw.base);
    return true;
}
