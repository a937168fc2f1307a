#include "stream/sse.h"
#include <stdlib.h>

enum { WINDOW_MIN = 1024, WINDOW_MAX = 1 << 30, CARRY_MIN = 512, NAME_MAX_KEPT = 64, HEAD_KEPT = 192 };

enum line {
    LINE_START,   /* nothing of it yet */
    LINE_COMMENT, /* starts with a colon */
    LINE_FIELD,
    LINE_DATA, /* in _resume only: a field line known to be data */
};

static const char bom[3] = {'\xEF', '\xBB', '\xBF'};

/* What is known of a block. */
struct fields {
    struct span name;
    struct span data;
    bool has_data;
};

/* The next line ends of a piece of text. Each is looked for once only, so that text with many of one kind and none of
 * the other is not searched again and again. */
struct eols {
    const char *end;
    const char *lf, *cr; /* not before the last position asked for, or `end` */
};

/* The first line end in [p, end), or `end`. `p` must not go backwards. */
static inline const char *eols_next(struct eols *eols, const char *p)
{
    if (eols->lf < p && (eols->lf = memchr(p, '\n', (size_t)(eols->end - p))) == NULL)
        eols->lf = eols->end;
    if (eols->cr < p && (eols->cr = memchr(p, '\r', (size_t)(eols->end - p))) == NULL)
        eols->cr = eols->end;
    return eols->lf < eols->cr ? eols->lf : eols->cr;
}

/* Adds a value of data: one span covers everything from the first value to the last. */
static void fields_add_data(struct fields *fields, const char *value, const char *end)
{
    if (!fields->has_data)
        fields->data.base = value;
    fields->has_data = true;
    fields->data.len = (size_t)(end - fields->data.base);
}

static void fields_add_line(struct fields *fields, const char *line, const char *end)
{
    size_t len = (size_t)(end - line), name_len;
    bool is_data;

    if (len >= 4 && memcmp(line, "data", 4) == 0) {
        is_data = true;
        name_len = 4;
    } else if (len >= 5 && memcmp(line, "event", 5) == 0) {
        is_data = false;
        name_len = 5;
    } else {
        return;
    }
    const char *value = line + name_len;
    if (value != end) {
        if (*value != ':')
            return;
        ++value;
        if (value != end && *value == ' ')
            ++value;
    }
    if (is_data)
        fields_add_data(fields, value, end);
    else
        fields->name = (struct span){value, (size_t)(end - value)};
}

/* Reads the lines of [p, end), of which the first may be the rest of a line of kind `first`. Up to the line in which
 * `*stop` lies only, if `stop` is not NULL; returns that line's kind. A stop before a data line's value moves on to it:
 * the field's name behind the stop would pass for data. There is no blank line in the text, so an empty one is a CRLF's
 * second half. */
static enum line fields_read(struct fields *fields, const char *p, const char *end, enum line first, const char **stop)
{
    struct eols eols = {end, NULL, NULL};

    for (enum line kind = first; p < end; kind = LINE_START) {
        if (stop != NULL && p >= *stop)
            return kind;
        const char *eol = eols_next(&eols, p);
        if (kind == LINE_DATA)
            fields_add_data(fields, p, eol);
        else if (kind == LINE_START)
            fields_add_line(fields, p, eol);
        if (stop != NULL && eol >= *stop) {
            if (kind != LINE_START)
                return kind;
            if (eol - p < 5 || memcmp(p, "data:", 5) != 0)
                return LINE_FIELD;
            const char *value = p + 5 < eol && p[5] == ' ' ? p + 6 : p + 5;
            if (*stop < value)
                *stop = value;
            return LINE_DATA;
        }
        p = eol + 1;
    }
    return LINE_START;
}

/* The fields of the block in the carry, up to `*stop` (NULL: all of it). `head` receives the beginning of data that was
 * cut off; the rest is as fields_read's. */
static enum line carry_read(const struct sse_scanner *scanner, struct fields *fields, struct span *head,
                            const char **stop)
{
    size_t kept = (size_t)scanner->_name_len + scanner->_head_len;

    fields->name = (struct span){scanner->_carry, scanner->_name_len};
    *head = (struct span){scanner->_carry + scanner->_name_len, scanner->_head_len};
    return fields_read(fields, scanner->_carry + kept, scanner->_carry + scanner->_carry_len,
                       scanner->_cut ? scanner->_resume : LINE_START, stop);
}

/* Keeps of a full carry the event's name, the beginning of its data, and the last quarter of a window. */
static void carry_cut(struct sse_scanner *scanner)
{
    struct fields fields = {SPAN_NONE, SPAN_NONE, false};
    struct span head;
    const char *end = scanner->_carry + scanner->_carry_len, *kept = end - scanner->_window / 4;
    char name_kept[NAME_MAX_KEPT], head_kept[HEAD_KEPT];

    scanner->_resume = carry_read(scanner, &fields, &head, &kept);
    size_t keep = (size_t)(end - kept);
    if (!scanner->_cut_data && fields.has_data)
        head = fields.data.len > HEAD_KEPT ? (struct span){fields.data.base, HEAD_KEPT} : fields.data;
    /* A name of no protocol we know: rather none than part of one. */
    if (fields.name.len > NAME_MAX_KEPT)
        fields.name = SPAN_NONE;

    if (fields.name.len != 0)
        memcpy(name_kept, fields.name.base, fields.name.len);
    if (head.len != 0)
        memcpy(head_kept, head.base, head.len);
    scanner->_name_len = (uint16_t)fields.name.len;
    scanner->_head_len = (uint16_t)head.len;
    memmove(scanner->_carry + fields.name.len + head.len, kept, keep);
    memcpy(scanner->_carry, name_kept, fields.name.len);
    memcpy(scanner->_carry + fields.name.len, head_kept, head.len);
    scanner->_carry_len = (uint32_t)(fields.name.len + head.len + keep);
    scanner->_cut = true;
    scanner->_cut_data = scanner->_cut_data || fields.has_data;
}

static void carry_add(struct sse_scanner *scanner, const char *p, const char *end)
{
    while (p != end) {
        size_t len = (size_t)(end - p);

        if (scanner->_carry_len == scanner->_window)
            carry_cut(scanner);
        if (len > scanner->_window - scanner->_carry_len)
            len = scanner->_window - scanner->_carry_len;
        if (len > scanner->_carry_cap - scanner->_carry_len) {
            size_t cap = scanner->_carry_cap == 0 ? CARRY_MIN : scanner->_carry_cap;
            while (cap < scanner->_carry_len + len)
                cap *= 2;
            if (cap > scanner->_window)
                cap = scanner->_window;
            if ((scanner->_carry = realloc(scanner->_carry, cap)) == NULL)
                abort();
            scanner->_carry_cap = (uint32_t)cap;
        }
        memcpy(scanner->_carry + scanner->_carry_len, p, len);
        scanner->_carry_len += (uint32_t)len;
        p += len;
    }
}

/* Forgets the block that has ended. A scanner between two events holds no memory. */
static void block_reset(struct sse_scanner *scanner)
{
    if (scanner->_carry != NULL) {
        free(scanner->_carry);
        scanner->_carry = NULL;
        scanner->_carry_len = scanner->_carry_cap = 0;
        scanner->_name_len = scanner->_head_len = 0;
        scanner->_cut = scanner->_cut_data = false;
        scanner->_resume = LINE_START;
    }
    scanner->_open = scanner->_comments = false;
}

/* Tells of the block that has ended; [rest, end) is the part of it that is not in the carry. */
static void block_end(struct sse_scanner *scanner, struct fields *fields, const char *rest, const char *end,
                      uint64_t offset, sse_event_cb cb, void *ctx)
{
    struct sse_event event = {.start = scanner->_open ? scanner->_start : offset, .end = offset};

    if (scanner->_carry_len != 0) {
        carry_add(scanner, rest, end);
        *fields = (struct fields){SPAN_NONE, SPAN_NONE, false};
        carry_read(scanner, fields, &event.head, NULL);
        event.cut = scanner->_cut;
    }
    event.name = fields->name;
    event.data = fields->data;
    event.has_data = fields->has_data || scanner->_cut_data;
    cb(ctx, &event);
}

/* Skips what continues a BOM at the start of the stream. What looked like one and was not is the start of a line. */
static const char *skip_bom(struct sse_scanner *scanner, const char *p, const char *end)
{
    const char *start = scanner->_bom == 0 ? p : NULL;

    while (p != end && scanner->_bom < 3 && *p == bom[scanner->_bom]) {
        ++scanner->_bom;
        ++p;
    }
    if (p != end && scanner->_bom < 3) {
        if (start != NULL) {
            p = start; /* all of it is here, so the event need not be copied */
        } else if (scanner->_bom != 0) {
            carry_add(scanner, bom, bom + scanner->_bom);
            scanner->_open = true;
            scanner->_start = 0;
            scanner->_line = LINE_FIELD;
        }
        scanner->_bom = 3;
    }
    return p;
}

void sse_scanner_init(struct sse_scanner *scanner, size_t window)
{
    if (window == 0)
        window = SSE_WINDOW_DEFAULT;
    else if (window < WINDOW_MIN)
        window = WINDOW_MIN;
    else if (window > WINDOW_MAX)
        window = WINDOW_MAX;
    *scanner = (struct sse_scanner){._window = (uint32_t)window, ._line = LINE_START, ._resume = LINE_START};
}

void sse_scanner_dispose(struct sse_scanner *scanner)
{
    block_reset(scanner);
}

void sse_scan(struct sse_scanner *scanner, struct span bytes, sse_event_cb cb, void *ctx)
{
    const char *p = bytes.base, *end, *rest, *line;
    struct fields fields = {SPAN_NONE, SPAN_NONE, false};

    if (bytes.len == 0)
        return;
    end = bytes.base + bytes.len;
    if (scanner->_bom < 3)
        p = skip_bom(scanner, p, end);
    rest = line = p; /* `rest`: the open block's first byte that is not in the carry */
    struct eols eols = {end, NULL, NULL};

    while (p != end) {
        if (scanner->_after_cr) {
            scanner->_after_cr = false;
            if (*p == '\n') {
                ++p;
                continue;
            }
        }
        const char *eol = eols_next(&eols, p);
        bool blank = scanner->_line == LINE_START && eol == p;
        if (scanner->_line == LINE_START) {
            line = p;
            scanner->_line = *p == ':' ? LINE_COMMENT : LINE_FIELD;
            if (scanner->_line == LINE_FIELD && !blank && !scanner->_open) {
                scanner->_open = true;
                scanner->_start = scanner->_offset + (uint64_t)(line - bytes.base);
                rest = line;
            }
        }
        if (eol == end)
            break;
        p = eol + 1;
        if (*eol == '\r') {
            if (p == end)
                scanner->_after_cr = true;
            else if (*p == '\n')
                ++p;
        }
        if (blank) {
            if (scanner->_open || scanner->_comments)
                block_end(scanner, &fields, rest, line, scanner->_offset + (uint64_t)(p - bytes.base), cb, ctx);
            block_reset(scanner);
            fields = (struct fields){SPAN_NONE, SPAN_NONE, false};
        } else if (scanner->_line == LINE_COMMENT) {
            scanner->_comments = scanner->_comments || !scanner->_open;
        } else if (scanner->_carry_len == 0) {
            fields_add_line(&fields, line, eol);
        }
        scanner->_line = LINE_START;
    }
    if (scanner->_open)
        carry_add(scanner, rest, end);
    scanner->_offset += bytes.len;
}

bool sse_at_boundary(const struct sse_scanner *scanner)
{
    return scanner->_line == LINE_START && !scanner->_open && !scanner->_after_cr &&
           (scanner->_bom == 0 || scanner->_bom == 3);
}
