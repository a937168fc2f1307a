/* A scanner for server-sent events (WHATWG HTML "Server-sent events", §9.2.6): it watches the bytes of a stream go by,
 * in whatever pieces they come, and tells where events end and what the interesting part of each was. It changes
 * nothing and keeps nothing but the event in progress, and that only when an event arrives in several pieces, bounded
 * by `window`. Pure: no I/O, no clock. One thread.
 *
 * A block is a run of lines that a blank line ends. It opens with its first field line; a comment line opens nothing,
 * so comment lines alone, with or without a blank line behind them, leave the stream between two blocks. */
#ifndef WEIR_STREAM_SSE_H
#define WEIR_STREAM_SSE_H

#include "base/span.h"
#include <stdint.h>

#define SSE_WINDOW_DEFAULT 32768

/* An event that has just been completed by its blank line. All spans are valid during the callback only. */
struct sse_event {
    struct span name; /* the last `event:` field's value; empty if none */
    struct span data; /* the `data:` value; with several data lines everything from the first value to the last, line
                         ends and field names included. If `cut`, only the end of it. */
    struct span head; /* if `cut`: the beginning of the data, up to 192 bytes; else empty */
    bool has_data;    /* false for blocks of comments or of id, event, retry alone */
    bool cut;         /* the event came in pieces and outgrew the window: name, head and data's end are what is left */
    uint64_t start;   /* offset, from the start of the stream, of the first field line; of `end` if there is none */
    uint64_t end;     /* offset just behind the blank line; just behind its CR if that was
                         the last byte so far (an LF that follows still belongs to it) */
};

typedef void (*sse_event_cb)(void *ctx, const struct sse_event *event);

struct sse_scanner {
    uint64_t _offset; /* bytes seen */
    uint64_t _start;  /* of the open block */
    char *_carry;     /* the open block's bytes from earlier calls; once cut: its name, its data's beginning, its end */
    uint32_t _carry_len, _carry_cap, _window;
    uint16_t _name_len, _head_len; /* of the carry, once cut */
    uint8_t _line;                 /* what the current line is: enum line */
    uint8_t _resume;               /* once cut: what the line is in which the kept end begins */
    uint8_t _bom;                  /* bytes of the BOM seen; 3: that is behind us */
    bool _open;                    /* a field line has begun since the last blank line */
    bool _comments;                /* nothing but comment lines since the last blank line */
    bool _after_cr;                /* the last byte was a CR that ended a line */
    bool _cut, _cut_data;          /* the carry has been cut; a data line was in what is gone */
};

/* Prepares a scanner whose carry never exceeds `window` bytes (0: SSE_WINDOW_DEFAULT; at least 1 KiB, at most 1 GiB).
 * Allocates nothing yet. */
void sse_scanner_init(struct sse_scanner *scanner, size_t window);

/* Frees the carry. The scanner may be prepared again. */
void sse_scanner_dispose(struct sse_scanner *scanner);

/* Looks at the next bytes; calls `cb` for each block (event or comments) that ends in them. A blank line with nothing
 * before it is no block. CR, LF and CRLF all end a line, also when CRLF is split over two calls; a BOM at the start is
 * skipped. An event that stands whole in `bytes` is never copied and never cut, however large. `cb` must not touch the
 * scanner. */
void sse_scan(struct sse_scanner *scanner, struct span bytes, sse_event_cb cb, void *ctx);

/* Whether a line may be put in behind the bytes seen so far without harm: true at the very start, behind a block's
 * blank line, and as long as only complete comment lines have followed that (so behind a `: ping` with one newline
 * too). False inside any line, behind any field line, and behind a CR that may yet become CRLF. */
bool sse_at_boundary(const struct sse_scanner *scanner);

/* Whether a block is open, that is whether a field line has begun and no blank line has come since; *start receives the
 * offset of its first byte. Part of a BOM may yet be such a line's beginning, and counts as one. */
static inline bool sse_is_open(const struct sse_scanner *scanner, uint64_t *start)
{
    *start = scanner->_start;
    return scanner->_open || scanner->_bom == 1 || scanner->_bom == 2;
}

#endif
