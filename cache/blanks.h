/* Copies text without its white space, with the processor's help where it has it: prompts of tokens are a megabyte of
 * short numbers with blanks between them. Pure. A private part of cache/key. */
#ifndef WEIR_CACHE_BLANKS_H
#define WEIR_CACHE_BLANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blanks {
    bool _shuffles;         /* the processor can put bytes in another order */
    uint8_t _order[256][8]; /* by which of eight bytes are blanks (bits): where those that stay come from */
};

/* Looks at what the processor can do, and makes the table. */
void blanks_init(struct blanks *blanks);

/* Copies `len` bytes to `to`, which has room for as many, without blanks (space, tab, CR, LF). Returns how many there
 * are then. */
size_t blanks_drop(const struct blanks *blanks, unsigned char *to, const char *from, size_t len);

static inline bool body_is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

#endif
