/* How the parts of a JSON object have to be put in order, told by places in its text: without a tree and without a
 * copy. Pure but for the scratch memory that it lives in; one thread. A private part of cache/key. */
#ifndef WEIR_CACHE_BODY_INDEX_H
#define WEIR_CACHE_BODY_INDEX_H

#include "cache/blanks.h"
#include "cache/body_row.h"
#include "cache/key.h"

/* The text is a row of runs, with nothing but white space between them: long ones without white space between their
 * tokens, which are hashed as they stand, and others. There are few.
 *
 * Objects are noted only where their members have to be read in another order than they were written, in the order in
 * which they begin; their members stand together, in order:
 *
 *   {"b": [1,{"x":2,"w":3}], "a": {"y":4}}
 *   runs     "{"b":"   "[1,{"x":2,"w":3}],"   ""a":"   "{"y":4}}"
 *   objects  0 from { to the last }, a and b     1 {"x":2,"w":3}, w and x */
struct body_run {
    uint32_t first, end;     /* in the text */
    bool spaced;             /* there may be white space between its tokens */
    uint32_t copy, copy_len; /* if copy_len is not 0: what is read in its place, of rows.copies */
};

struct body_place {
    uint32_t run; /* the run at or before which it is */
    uint32_t at;  /* in the text */
};

struct body_object {
    struct body_place start, end;
    uint32_t next;         /* the first object that is not within this one */
    uint32_t first, count; /* members */
    bool in_order;         /* reads as it is written; there for the sake of those within it */
};

struct body_member {
    uint32_t name, name_len; /* in the text; an escaped name: in _names, unescaped */
    bool escaped : 1;
    uint32_t start_run : 31; /* what is read starts with the name, or, behind an escaped name, with the value */
    uint32_t value;          /* in the text */
    struct body_place end;
    uint32_t first_object, end_object; /* those within the value */
};

/* Zero-initialise. Object 0 is the whole text; it is always noted. */
struct body_index {
    struct span text;
    struct body_run *runs;
    struct body_rows rows;
    struct body_object *objects;
    struct body_member *members; /* those of closed objects */
    uint32_t run_count, object_count, member_count;
    struct body_member *_open; /* a stack: those of objects that are not closed yet */
    size_t _run_cap, _object_cap, _open_cap, _member_cap;
    char *_names; /* unescaped ones; as long as the text, since unescaping never lengthens */
    size_t _names_len;
};

static inline struct span body_member_name(const struct body_index *index, const struct body_member *member)
{
    return (struct span){(member->escaped ? index->_names : index->text.base) + member->name, member->name_len};
}

static inline struct body_place body_member_start(const struct body_member *member)
{
    return (struct body_place){member->start_run, member->escaped ? member->value : member->name - 1};
}

/* Indexes `text`, which must stay where it is for as long as the index is used. */
enum cache_key_result body_index_make(struct body_index *index, struct span text);

/* Forgets the text; keeps at most CACHE_KEYER_KEEPS bytes of memory. */
void body_index_clear(struct body_index *index);

/* Frees everything. */
void body_index_dispose(struct body_index *index);

#endif
