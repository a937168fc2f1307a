/* Reads rows of objects, which is what most of a long body is: messages, tools, texts with their numbers. Those whose
 * members have to be read in another order than they were written, or that have white space between their tokens, are
 * written anew on the way. What is rare is left to others. Pure but for the scratch memory that it lives in; one
 * thread. A private part of cache/key. */
#ifndef WEIR_CACHE_BODY_ROW_H
#define WEIR_CACHE_BODY_ROW_H

#include "base/span.h"
#include <stdbool.h>
#include <stdint.h>

#define BODY_ROW_SORTED 16 /* members of an object that can be put in order */
#define BODY_ROW_LEVELS 8  /* of brackets */

/* Zero-initialise. */
struct body_rows {
    char *copies;      /* what was written anew; as long as the text at most */
    size_t moved;      /* members of objects that were put in order; CACHE_KEY_MAX_PARTS at most */
    size_t copies_cap; /* bytes of memory */
    size_t _copies_len;
    const char *_last; /* the text's last }, if nothing but white space is behind it; else NULL */
    struct span _text;
    uint8_t _orders[BODY_ROW_SORTED + 1][BODY_ROW_SORTED]; /* of objects with so many members; the next may be alike */
};

struct body_row {
    const char *end;       /* behind the last comma before which all was read, or where the array ends */
    bool closed;           /* there is the array's closing bracket at `end` */
    bool spaced;           /* nothing was written anew, and there may be white space between the tokens */
    const char *copied;    /* from here on the row was written anew, if copy_len is not 0 */
    size_t copy, copy_len; /* in `copies` */
};

/* Says which text is read next, and forgets what was written. It must stay where it is. */
void body_rows_begin(struct body_rows *rows, struct span text);

/* Reads objects of an array and the commas behind them. `p`, within the text, is where an object begins; there may be
 * `levels` of brackets. `end` is `p` if that object is one for others: it is no good JSON (of which no more is checked
 * than for a key), too deep, has a name with escapes, two members of the same name, or too many to be put in order. */
struct body_row body_rows_read(struct body_rows *rows, const char *p, unsigned levels);

/* Frees everything. */
void body_rows_dispose(struct body_rows *rows);

#endif
