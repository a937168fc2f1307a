/* UTF-8 (RFC 3629) in pieces: checks text that comes split anywhere. Pure; any thread. */
#ifndef WEIR_BASE_UTF8_H
#define WEIR_BASE_UTF8_H

#include "base/span.h"
#include <stdint.h>

/* Where a check stands; zero-initialised is the beginning of a text. */
struct utf8_check {
    uint8_t _left;       /* bytes of the open sequence still to come */
    uint8_t _low, _high; /* what the next of them may be */
};

/* Looks at the next bytes; false once they cannot be UTF-8 (then the check is of no further use). */
bool utf8_feed(struct utf8_check *check, struct span bytes);

/* Whether the text may end here: no sequence is open. */
bool utf8_complete(const struct utf8_check *check);

/* As much of the text as `max` bytes hold, cut between characters; bytes that are not UTF-8 are cut somewhere. */
struct span utf8_cut(struct span text, size_t max);

#endif
