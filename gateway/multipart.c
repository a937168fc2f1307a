#include "gateway/multipart.h"

#define BOUNDARY_MAX 70 /* RFC 2046 §5.1.1 */

static const struct span form = SPAN("multipart/form-data");

bool multipart_is_form(struct span content_type)
{
    return content_type.len >= form.len && span_ieq((struct span){content_type.base, form.len}, form);
}

/* Takes the next `; name=value` off *rest (RFC 9110 §5.6.6). False at the end or where it cannot be read, which `*bad`
 * tells. A quoted value must need no unescaping. */
static bool next_parameter(struct span *rest, struct span *name, struct span *value, bool *bad)
{
    *rest = span_trim(*rest);
    if (rest->len == 0)
        return false;
    *bad = true;
    if (rest->base[0] != ';')
        return false;
    *rest = span_trim(span_skip(*rest, 1));
    const char *equals = rest->len != 0 ? memchr(rest->base, '=', rest->len) : NULL;
    if (equals == NULL)
        return false;
    *name = span_trim((struct span){rest->base, (size_t)(equals - rest->base)});
    *rest = span_skip(*rest, (size_t)(equals + 1 - rest->base));
    if (name->len == 0 || memchr(name->base, '"', name->len) != NULL || memchr(name->base, ';', name->len) != NULL)
        return false;
    if (rest->len != 0 && rest->base[0] == '"') {
        const char *end = memchr(rest->base + 1, '"', rest->len - 1);
        if (end == NULL)
            return false;
        *value = (struct span){rest->base + 1, (size_t)(end - rest->base - 1)};
        if (value->len != 0 && memchr(value->base, '\\', value->len) != NULL)
            return false;
        *rest = span_skip(*rest, (size_t)(end + 1 - rest->base));
    } else {
        size_t n = 0;
        while (n < rest->len && rest->base[n] != ';')
            n++;
        *value = span_trim((struct span){rest->base, n});
        *rest = span_skip(*rest, n);
    }
    *bad = false;
    return true;
}

static bool find_boundary(struct span content_type, struct span *boundary)
{
    struct span rest = span_skip(content_type, form.len), name, value;
    bool bad = false, found = false;
    while (next_parameter(&rest, &name, &value, &bad)) {
        if (!span_ieq(name, SPAN("boundary")))
            continue;
        if (found)
            return false;
        *boundary = value;
        found = true;
    }
    return found && !bad && boundary->len != 0 && boundary->len <= BOUNDARY_MAX;
}

/* Whether a part's head names this field. `*bad` if its disposition cannot be read in one way only. */
static bool names_field(struct span head, struct span wanted, bool *bad)
{
    static const struct span disposition = SPAN("content-disposition:"), data = SPAN("form-data");
    bool seen = false, named = false;
    while (head.len != 0) {
        const char *newline = memmem(head.base, head.len, "\r\n", 2);
        struct span line = {head.base, newline != NULL ? (size_t)(newline - head.base) : head.len};
        head = newline != NULL ? span_skip(head, line.len + 2) : SPAN_NONE;
        if (line.len != 0 && (line.base[0] == ' ' || line.base[0] == '\t'))
            *bad = true; /* folded */
        if (line.len < disposition.len || !span_ieq((struct span){line.base, disposition.len}, disposition))
            continue;
        struct span rest = span_trim(span_skip(line, disposition.len)), name, value;
        *bad = *bad || seen || rest.len < data.len || !span_ieq((struct span){rest.base, data.len}, data);
        seen = true;
        bool unreadable = false, has_name = false;
        rest = span_skip(rest, data.len);
        while (next_parameter(&rest, &name, &value, &unreadable)) {
            if (span_ieq(name, SPAN("name*")))
                *bad = true;
            if (!span_ieq(name, SPAN("name")))
                continue;
            *bad = *bad || has_name;
            has_name = true;
            named = span_eq(value, wanted);
        }
        *bad = *bad || unreadable;
    }
    *bad = *bad || !seen;
    return named;
}

enum multipart_result multipart_field(struct span content_type, struct span body, struct span name, struct span *value)
{
    struct span boundary;
    char delimiter[BOUNDARY_MAX + 4] = "\r\n--";
    bool found = false, bad = false;
    if (!find_boundary(content_type, &boundary))
        return MULTIPART_AMBIGUOUS;
    memcpy(delimiter + 4, boundary.base, boundary.len);
    struct span mark = {delimiter, boundary.len + 4};
    /* Neither a preamble nor anything behind the end is read by all servers alike; there must be none of the former. */
    if (!span_starts(body, span_skip(mark, 2)))
        return MULTIPART_AMBIGUOUS;
    body = span_skip(body, mark.len - 2);
    while (!span_starts(body, SPAN("--"))) {
        if (!span_starts(body, SPAN("\r\n")))
            return MULTIPART_AMBIGUOUS;
        const char *next = memmem(body.base, body.len, mark.base, mark.len);
        if (next == NULL)
            return MULTIPART_AMBIGUOUS;
        struct span part = {body.base + 2, next >= body.base + 2 ? (size_t)(next - body.base - 2) : 0};
        const char *blank = part.len != 0 ? memmem(part.base, part.len, "\r\n\r\n", 4) : NULL;
        if (blank == NULL)
            return MULTIPART_AMBIGUOUS;
        struct span head = {part.base, (size_t)(blank - part.base)};
        if (names_field(head, name, &bad)) {
            if (found)
                return MULTIPART_AMBIGUOUS;
            *value = span_skip(part, head.len + 4);
            found = true;
        }
        if (bad)
            return MULTIPART_AMBIGUOUS;
        body = span_skip(body, (size_t)(next + (long)mark.len - body.base));
    }
    return found ? MULTIPART_FOUND : MULTIPART_NONE;
}
