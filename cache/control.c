#include "cache/control.h"

#define DELTA_MAX ((uint64_t)1 << 31) /* RFC 9111 §1.2.2: what is larger counts as this */

/* The length of the list element that `text` starts with, up to its comma; commas in quotes do not count.
 * `escapes`: a backslash in quotes takes the next byte with it (RFC 9110 §5.6.4), as it does not in entity tags. */
static size_t element_length(struct span text, bool escapes)
{
    bool quoted = false;
    size_t i = 0;
    for (; i < text.len && (quoted || text.base[i] != ','); i++) {
        if (text.base[i] == '"')
            quoted = !quoted;
        else if (quoted && escapes && text.base[i] == '\\')
            i++;
    }
    return i < text.len ? i : text.len;
}

/* Takes the first element off a list; false at its end. */
static bool next_element(struct span *list, bool escapes, struct span *element)
{
    if (list->len == 0)
        return false;
    size_t len = element_length(*list, escapes);
    *element = span_trim((struct span){list->base, len});
    *list = span_skip(*list, len + 1);
    return true;
}

/* Delta-seconds, bare or in quotes; what is neither is 0, so that nothing is fresh enough. */
static uint64_t read_seconds(struct span text)
{
    uint64_t seconds = 0;
    if (text.len >= 2 && text.base[0] == '"' && text.base[text.len - 1] == '"')
        text = (struct span){text.base + 1, text.len - 2};
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return 0;
        if (seconds < DELTA_MAX)
            seconds = seconds * 10 + (uint64_t)(text.base[i] - '0');
    }
    return seconds < DELTA_MAX ? seconds : DELTA_MAX;
}

void cache_control_parse(struct cache_control *control, struct span value)
{
    struct span element;
    while (next_element(&value, true, &element)) {
        const char *equals = element.len != 0 ? memchr(element.base, '=', element.len) : NULL;
        size_t name_len = equals != NULL ? (size_t)(equals - element.base) : element.len;
        struct span name = span_trim((struct span){element.base, name_len});
        struct span argument = equals != NULL ? span_trim(span_skip(element, name_len + 1)) : SPAN_NONE;
        if (span_ieq(name, SPAN("no-cache"))) {
            control->no_cache = true;
        } else if (span_ieq(name, SPAN("no-store"))) {
            control->no_store = true;
        } else if (span_ieq(name, SPAN("only-if-cached"))) {
            control->only_if_cached = true;
        } else if (span_ieq(name, SPAN("max-age"))) {
            uint64_t seconds = read_seconds(argument);
            if (!control->has_max_age || seconds < control->max_age)
                control->max_age = seconds;
            control->has_max_age = true;
        }
    }
}

bool cache_control_accepts(const struct cache_control *control, uint64_t age_seconds)
{
    return !control->no_cache && !control->no_store && (!control->has_max_age || age_seconds <= control->max_age);
}

enum cache_switch cache_switch_parse(struct span value)
{
    value = span_trim(value);
    if (span_ieq(value, SPAN("on")))
        return CACHE_ON;
    return span_ieq(value, SPAN("off")) ? CACHE_OFF : CACHE_UNSAID;
}

bool cache_etag_matches(struct span if_none_match, struct span etag)
{
    struct span element;
    if (span_eq(span_trim(if_none_match), SPAN("*")))
        return true;
    if (span_starts(etag, SPAN("W/")))
        etag = span_skip(etag, 2);
    if (etag.len < 2)
        return false;
    while (next_element(&if_none_match, false, &element)) {
        if (span_starts(element, SPAN("W/")))
            element = span_skip(element, 2);
        if (span_eq(element, etag))
            return true;
    }
    return false;
}
