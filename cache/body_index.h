/* Where the parts of a JSON object stand in its text, so that they can be read in another order than they were written,
 * without a tree and without a copy. Pure but for the scratch memory that it lives in; one thread. A private part of
 * cache/key. */
#ifndef WEIR_CACHE_BODY_INDEX_H
#define WEIR_CACHE_BODY_INDEX_H

#include "cache/blanks.h"
#include "cache/key.h"

/* The text in its own order: runs of bytes between objects, and objects. An object's members tell where their values'
 * parts stand, so that they can be hashed in another order.
 *
 *   {"b": [1, {"x": 2}], "a": 3}
 *   parts    0 OBJECT end 6   1 "[1," 2 OBJECT end 4   3 "2"   4 "]"   5 "3"
 *   members  x: 3…4                        b: 1…5   a: 5…6  (an object's stand together once it is closed) */
enum body_part_kind {
    BODY_RUN,    /* as it is to be hashed */
    BODY_SPACED, /* with white space between its tokens, none of which is a string */
    BODY_OBJECT,
};

struct body_part {
    uint16_t kind;
    bool strings;   /* a run with a string in it */
    uint32_t end;   /* of a run: where it ends in the text; of an object: the first part behind it */
    uint32_t first; /* of a run: where it starts in the text; of an object: its first member */
    uint32_t count; /* of an object: members */
};

struct body_member {
    const char *name; /* unescaped */
    uint32_t name_len;
    uint32_t first_part, end_part;
};

/* Zero-initialise. Part 0 is the whole object. */
struct body_index {
    struct span text;
    struct body_part *parts;
    struct body_member *members; /* those of closed objects */
    uint32_t part_count, member_count;
    struct body_member *_open; /* a stack: those of objects that are not closed yet */
    size_t _part_cap, _open_cap, _member_cap;
    char *_names; /* unescaped ones; as long as the text, since unescaping never lengthens */
    size_t _names_len;
};

/* Indexes `text`, which must stay where it is for as long as the index is used. */
enum cache_key_result body_index_make(struct body_index *index, struct span text);

/* Forgets the text; keeps at most CACHE_KEYER_KEEPS bytes of memory. */
void body_index_clear(struct body_index *index);

/* Frees everything. */
void body_index_dispose(struct body_index *index);

#endif
