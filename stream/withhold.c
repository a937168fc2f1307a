#include "stream/withhold.h"
#include <stdlib.h>

static void *resize(void *memory, size_t size)
{
    if ((memory = realloc(memory, size)) == NULL)
        abort();
    return memory;
}

/* Forgets what waited. A stream between two events holds no memory. */
static void drop_waiting(struct withhold *withhold)
{
    free(withhold->_waiting);
    withhold->_waiting = NULL;
    withhold->_waiting_len = withhold->_waiting_cap = 0;
}

static void add_waiting(struct withhold *withhold, const char *bytes, size_t len)
{
    size_t wanted = withhold->_waiting_len + len;
    if (wanted > withhold->_waiting_cap) {
        withhold->_waiting_cap = wanted > 2 * withhold->_waiting_cap ? wanted : 2 * withhold->_waiting_cap;
        withhold->_waiting = resize(withhold->_waiting, withhold->_waiting_cap);
    }
    memcpy(withhold->_waiting + withhold->_waiting_len, bytes, len);
    withhold->_waiting_len = wanted;
}

void withhold_dispose(struct withhold *withhold)
{
    drop_waiting(withhold);
    free(withhold->_ranges);
    *withhold = (struct withhold){._seen = 0};
}

bool withhold_event(struct withhold *withhold, const struct sse_event *event)
{
    if (event->start < withhold->_seen - withhold->_waiting_len)
        return false;
    struct withhold_range *last = withhold->_range_count != 0 ? &withhold->_ranges[withhold->_range_count - 1] : NULL;
    if (last != NULL && last->end == event->start) {
        last->end = event->end;
        return true;
    }
    if (withhold->_range_count == withhold->_range_cap) {
        withhold->_range_cap = withhold->_range_cap == 0 ? 2 : withhold->_range_cap * 2;
        withhold->_ranges = resize(withhold->_ranges, withhold->_range_cap * sizeof(withhold->_ranges[0]));
    }
    withhold->_ranges[withhold->_range_count++] = (struct withhold_range){event->start, event->end};
    return true;
}

/* Where in the piece the part starts that has to wait; `len` if nothing has to. */
static size_t waits_from(const struct withhold *withhold, const struct sse_scanner *scanner, size_t len)
{
    uint64_t start;
    if (!sse_is_open(scanner, &start))
        return len;
    if (start >= withhold->_seen)
        return withhold->_seen + len - start <= WITHHOLD_MAX ? (size_t)(start - withhold->_seen) : len;
    /* It goes on from an earlier piece, and was let go if it does not wait. */
    return withhold->_waiting_len != 0 && withhold->_waiting_len + len <= WITHHOLD_MAX ? 0 : len;
}

struct span withhold_waited(struct withhold *withhold, const struct sse_scanner *scanner, size_t len)
{
    uint64_t start;
    bool goes_on = sse_is_open(scanner, &start) && start < withhold->_seen;
    if (goes_on && waits_from(withhold, scanner, len) == 0)
        return SPAN_NONE;
    if (withhold->_range_count != 0 && withhold->_ranges[0].start < withhold->_seen)
        return SPAN_NONE;
    return (struct span){withhold->_waiting, withhold->_waiting_len};
}

/* Moves what stands between the ranges together, of what comes before `end`; returns its length. */
static size_t join_shown(const struct withhold *withhold, char *bytes, size_t from, size_t end)
{
    size_t to = 0;
    for (size_t i = 0; i < withhold->_range_count; i++) {
        const struct withhold_range *range = &withhold->_ranges[i];
        if (range->start > withhold->_seen + from) {
            size_t n = (size_t)(range->start - withhold->_seen) - from;
            memmove(bytes + to, bytes + from, n);
            to += n;
        }
        from = (size_t)(range->end - withhold->_seen);
    }
    if (to != from)
        memmove(bytes + to, bytes + from, end - from);
    return to + end - from;
}

size_t withhold_sort(struct withhold *withhold, const struct sse_scanner *scanner, char *bytes, size_t len)
{
    size_t end = waits_from(withhold, scanner, len), skipped = withhold->_after_cr && len != 0 && bytes[0] == '\n';
    if (len == 0)
        return 0;
    if (end != 0 && withhold->_waiting != NULL)
        drop_waiting(withhold);
    if (end != len)
        add_waiting(withhold, bytes + end, len - end);
    withhold->_after_cr = withhold->_range_count != 0 && bytes[len - 1] == '\r' &&
                          withhold->_ranges[withhold->_range_count - 1].end == withhold->_seen + len;
    size_t shown = join_shown(withhold, bytes, skipped, end);
    withhold->_seen += len;
    withhold->_range_count = 0;
    return shown;
}

struct span withhold_end(struct withhold *withhold)
{
    struct span waiting = {withhold->_waiting, withhold->_waiting_len};
    withhold->_waiting_len = 0;
    return waiting;
}
