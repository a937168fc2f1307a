/* Keeps whole events of a stream from its readers: those that weir asked for and the client did not. Bytes go in as
 * they come, in whatever pieces; what comes out is the same without these events. An event of which only a part has
 * come waits, up to WITHHOLD_MAX bytes: once its beginning has been shown it can no longer be kept back. Whatever ends
 * where the bytes do passes where it stands, without a copy.
 *
 * Pure: no I/O, no clock. One thread. Works beside the stream's scanner, for each piece of input in this order:
 * withhold_event from within sse_scan, then withhold_waited, then withhold_sort. */
#ifndef WEIR_STREAM_WITHHOLD_H
#define WEIR_STREAM_WITHHOLD_H

#include "stream/sse.h"

#define WITHHOLD_MAX ((size_t)16384)

/* Zero-initialise. */
struct withhold {
    uint64_t _seen; /* bytes of earlier pieces */
    char *_waiting; /* the last of them, if their event is not complete */
    size_t _waiting_len, _waiting_cap;
    struct withhold_range {
        uint64_t start, end; /* in the input */
    } * _ranges; /* to be kept back, of the piece that is being looked at; in order, with something between */
    size_t _range_count, _range_cap;
    bool _after_cr; /* what was kept back ended with a CR: an LF that follows belongs to it */
};

/* Frees everything. */
void withhold_dispose(struct withhold *withhold);

/* Keeps back an event that has just been completed. False if its beginning has been shown already. */
bool withhold_event(struct withhold *withhold, const struct sse_event *event);

/* What had to wait and is to be shown now, before anything of the piece of `len` bytes that was scanned; mostly empty.
 * Valid until withhold_sort. */
struct span withhold_waited(struct withhold *withhold, const struct sse_scanner *scanner, size_t len);

/* Moves what is to be shown of the piece to its front and returns how much that is. */
size_t withhold_sort(struct withhold *withhold, const struct sse_scanner *scanner, char *bytes, size_t len);

/* The input has ended, so that no event is completed any more: what still waits, to be shown. Valid until
 * withhold_dispose. */
struct span withhold_end(struct withhold *withhold);

/* Whether something waits. */
static inline bool withhold_waits(const struct withhold *withhold)
{
    return withhold->_waiting_len != 0;
}

#endif
