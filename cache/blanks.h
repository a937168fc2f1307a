/* Copies JSON text without the white space between its tokens, with the processor's help where it has it. Pure. A
 * private part of cache/key. */
#ifndef WEIR_CACHE_BLANKS_H
#define WEIR_CACHE_BLANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blanks {
    bool _shuffles;         /* the processor can put bytes in another order */
    uint8_t _order[256][8]; /* by which of eight bytes are blanks (bits): where those that stay come from */
};

/* What the text before the next byte leaves behind. Zero-initialise, where a text begins that is in no string. */
struct blanks_state {
    uint64_t inside;  /* ~0: a string's inside, else 0 */
    uint64_t escaped; /* 1: the next byte is behind a backslash, else 0 */
};

/* Looks at what the processor can do, and makes the table. */
void blanks_init(struct blanks *blanks);

/* Copies `len` bytes to `to`, which has room for as many, without blanks (space, tab, CR, LF) outside of strings.
 * Returns how many there are then. A text may come in several pieces. */
size_t blanks_drop(const struct blanks *blanks, struct blanks_state *state, unsigned char *to, const char *from,
                   size_t len);

static inline bool body_is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

#endif
