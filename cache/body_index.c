#include "cache/body_index.h"
#include "base/json_scan.h"
#include "cache/body_skip.h"
#include <h2o/memory.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define SORT_SIMPLE 16 /* members up to which an insertion sort is quickest */
#define ROOM_FIRST 64
#define OBJECT_TRIES 4 /* in a row in vain: an array's objects are not of the kind that can be skipped */
#define RUN_WORTH 256  /* bytes without white space that are worth a run of their own */
#define LIST_WORTH 48  /* bytes of an array's values that make it worth trying to skip more in the same way */

struct indexer {
    struct body_index *index;
    const char *p, *end, *base;
    const char *run; /* where the run begins that is not noted yet */
    bool spaced;     /* it has white space between its tokens */
    uint32_t open_count;
    enum cache_key_result result;
};

/* Doubles an array of `size`-byte elements; ROOM_FIRST and the maxima are powers of two. */
static void *grow(void *array, size_t *cap, size_t size)
{
    *cap = *cap == 0 ? ROOM_FIRST : *cap * 2;
    return h2o_mem_realloc(array, *cap * size);
}

static bool give_up(struct indexer *indexer, enum cache_key_result why)
{
    indexer->result = why;
    return false;
}

static bool index_value(struct indexer *indexer, unsigned depth, bool in_array);

/* The next byte; NUL, which stands nowhere outside of strings, at the end. */
static inline char next(const struct indexer *indexer)
{
    return indexer->p != indexer->end ? *indexer->p : '\0';
}

static inline struct body_place place_of(const struct indexer *indexer, const char *p)
{
    return (struct body_place){indexer->index->run_count, (uint32_t)(p - indexer->base)};
}

/* ---- runs ---- */

/* Ends the run at `end`; what is behind it begins a new one, at `start`. */
static bool end_run(struct indexer *indexer, const char *end, const char *start)
{
    struct body_index *index = indexer->index;
    if (end != indexer->run) {
        if (index->run_count == index->_run_cap) {
            if (index->run_count == CACHE_KEY_MAX_RUNS)
                return give_up(indexer, CACHE_KEY_COMPLEX);
            index->runs = grow(index->runs, &index->_run_cap, sizeof(*index->runs));
        }
        index->runs[index->run_count++] = (struct body_run){
            .first = (uint32_t)(indexer->run - indexer->base),
            .end = (uint32_t)(end - indexer->base),
            .spaced = indexer->spaced,
        };
    }
    indexer->run = start;
    indexer->spaced = false;
    return true;
}

/* To be called when tokens from `start` on were skipped that have white space between them. */
static inline bool add_spaced(struct indexer *indexer, const char *start)
{
    if (!indexer->spaced && start - indexer->run >= RUN_WORTH && !end_run(indexer, start, start))
        return false;
    indexer->spaced = true;
    return true;
}

/* To be called when tokens from `start` on were skipped that have none. */
static inline bool add_tight(struct indexer *indexer, const char *start)
{
    return !indexer->spaced || indexer->p - start < RUN_WORTH || end_run(indexer, start, start);
}

static bool leave_blanks(struct indexer *indexer)
{
    const char *start = indexer->p;
    while (indexer->p != indexer->end && body_is_blank(*indexer->p))
        indexer->p++;
    if (indexer->run != start)
        return add_spaced(indexer, start);
    indexer->run = indexer->p;
    return true;
}

/* Skips white space between tokens. */
static inline bool skip_blanks(struct indexer *indexer)
{
    return indexer->p == indexer->end || !body_is_blank(*indexer->p) || leave_blanks(indexer);
}

/* ---- tokens ---- */

/* The first quote in [p, end), or NULL. Most strings are short: memchr is for those that are not. */
static inline const char *find_quote(const char *p, const char *end)
{
#ifdef __SSE2__
    for (int i = 0; i < 4 && end - p >= 16; i++, p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned quotes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
        if (quotes != 0)
            return p + __builtin_ctz(quotes);
    }
#endif
    return memchr(p, '"', (size_t)(end - p));
}

/* The first quote or backslash in [p, end), or the end. */
static inline const char *find_name_end(const char *p, const char *end)
{
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned found = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))));
        if (found != 0)
            return p + __builtin_ctz(found);
    }
#endif
    while (p != end && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* Skips the string at whose opening quote the indexer stands. */
static bool skip_string(struct indexer *indexer)
{
    const char *start = indexer->p + 1, *p = find_quote(start, indexer->end);
    if (p != NULL && p != start && p[-1] == '\\') {
        const char *run = p - 1;
        while (run != start && run[-1] == '\\')
            run--;
        p = body_skip_escapes(run, indexer->end);
    }
    if (p == NULL)
        return give_up(indexer, CACHE_KEY_INVALID);
    indexer->p = p + 1;
    return add_tight(indexer, start - 1);
}

/* Skips a number or a word, whatever it is, since it counts as it is written; in an array also those that follow, so
 * that a prompt of tokens is one run. */
static bool skip_words(struct indexer *indexer, bool in_array)
{
    const char *start = indexer->p, *p = start, *end = indexer->end;
    bool spaced = false, skipped = false;
    if (in_array)
        p = body_skip_word_list(start, end, &spaced);
    for (bool begun = p != start;; begun = false) {
        const char *word = p;
        while (p != end && body_is_word(*p))
            p++;
        if (p == word && !begun)
            break;
        indexer->p = p;
        spaced |= skipped;
        if (!in_array)
            break;
        skipped = p != end && body_is_blank(*p);
        while (p != end && body_is_blank(*p))
            p++;
        if (p == end || *p != ',')
            break;
        p++;
        skipped |= p != end && body_is_blank(*p);
        while (p != end && body_is_blank(*p))
            p++;
    }
    if (indexer->p == start)
        return give_up(indexer, CACHE_KEY_INVALID);
    return spaced ? add_spaced(indexer, start) : add_tight(indexer, start);
}

/* Reads the name at which the indexer stands. */
static bool read_name(struct indexer *indexer, struct body_member *member)
{
    const char *start = indexer->p;
    if (next(indexer) != '"')
        return give_up(indexer, CACHE_KEY_INVALID);
    const char *p = find_name_end(start + 1, indexer->end);
    if (p != indexer->end && *p == '"') {
        *member = (struct body_member){.name = (uint32_t)(start + 1 - indexer->base),
                                       .name_len = (uint32_t)(p - start - 1),
                                       .start_run = indexer->index->run_count};
        indexer->p = p + 1;
        return true;
    }
    struct body_index *index = indexer->index;
    if (!skip_string(indexer))
        return false;
    struct span raw = {start, (size_t)(indexer->p - start)};
    if (index->_names == NULL)
        index->_names = h2o_mem_alloc(index->text.len);
    long len = json_string_decode(raw, index->_names + index->_names_len, raw.len - 2);
    if (len < 0)
        return give_up(indexer, CACHE_KEY_INVALID);
    member->name = (uint32_t)index->_names_len;
    member->name_len = (uint32_t)len;
    index->_names_len += (size_t)len;
    member->escaped = true;
    return true;
}

static inline int compare_members(const struct body_index *index, const struct body_member *x,
                                  const struct body_member *y)
{
    return body_compare_names(body_member_name(index, x), body_member_name(index, y));
}

static int compare_sorted(const void *a, const void *b, void *index)
{
    return compare_members(index, a, b);
}

/* Sorts; false if two are the same. */
static bool sort_members(struct body_index *index, struct body_member *members, size_t count)
{
    if (count > SORT_SIMPLE) {
        qsort_r(members, count, sizeof(*members), compare_sorted, index);
        for (size_t i = 1; i < count; i++)
            if (compare_members(index, &members[i - 1], &members[i]) == 0)
                return false;
        return true;
    }
    for (size_t i = 1; i < count; i++) {
        size_t at = i;
        int order = 1;
        while (at != 0 && (order = compare_members(index, &members[at - 1], &members[i])) > 0)
            at--;
        if (order == 0)
            return false;
        if (at == i)
            continue;
        struct body_member member = members[i];
        for (size_t k = i; k != at; k--)
            members[k] = members[k - 1];
        members[at] = member;
    }
    return true;
}

/* Moves an object's members from the stack to where they stay, in order. */
static bool order_object(struct indexer *indexer, struct body_object *object, uint32_t first_open)
{
    struct body_index *index = indexer->index;
    uint32_t count = indexer->open_count - first_open;
    object->first = index->member_count;
    object->count = count;
    object->end = place_of(indexer, indexer->p);
    if (count == 0) /* no member in the whole body yet, perhaps: the stack is NULL then */
        return true;
    struct body_member *members = index->_open + first_open;
    if (!sort_members(index, members, count))
        return give_up(indexer, CACHE_KEY_DUPLICATE);
    while (index->_member_cap < index->member_count + count)
        index->members = grow(index->members, &index->_member_cap, sizeof(*members));
    memcpy(index->members + index->member_count, members, count * sizeof(*members));
    index->member_count += count;
    return true;
}

/* Indexes a member, up to the end of its value. *in_order becomes false if it has to move or to be written otherwise.
 */
static bool index_member(struct indexer *indexer, unsigned depth, uint32_t first_open, bool *in_order)
{
    struct body_index *index = indexer->index;
    uint32_t at = indexer->open_count;
    if (index->member_count + at + index->rows.moved >= CACHE_KEY_MAX_PARTS)
        return give_up(indexer, CACHE_KEY_COMPLEX);
    if (at == index->_open_cap)
        index->_open = grow(index->_open, &index->_open_cap, sizeof(*index->_open));
    struct body_member *member = &index->_open[at];
    if (!read_name(indexer, member))
        return false;
    if (member->escaped || (at != first_open && compare_members(index, member - 1, member) >= 0))
        *in_order = false;
    if (!skip_blanks(indexer))
        return false;
    if (next(indexer) != ':')
        return give_up(indexer, CACHE_KEY_INVALID);
    indexer->p++;
    if (!skip_blanks(indexer))
        return false;
    member->value = (uint32_t)(indexer->p - indexer->base);
    if (member->escaped)
        member->start_run = index->run_count;
    member->first_object = index->object_count;
    indexer->open_count++; /* the members of the value come behind it */
    if (!index_value(indexer, depth, false))
        return false;
    member = &index->_open[at];
    member->end = place_of(indexer, indexer->p);
    member->end_object = index->object_count;
    return true;
}

static bool index_members(struct indexer *indexer, unsigned depth, bool *in_order)
{
    uint32_t first_open = indexer->open_count;
    for (;; indexer->p++) {
        if (!skip_blanks(indexer) || !index_member(indexer, depth, first_open, in_order) || !skip_blanks(indexer))
            return false;
        if (next(indexer) == '}')
            return true;
        if (next(indexer) != ',')
            return give_up(indexer, CACHE_KEY_INVALID);
    }
}

static bool index_object(struct indexer *indexer, unsigned depth)
{
    struct body_index *index = indexer->index;
    uint32_t at = index->object_count, first_open = indexer->open_count;
    if (at == index->_object_cap) {
        if (at == CACHE_KEY_MAX_PARTS)
            return give_up(indexer, CACHE_KEY_COMPLEX);
        index->objects = grow(index->objects, &index->_object_cap, sizeof(*index->objects));
    }
    index->objects[at].start = place_of(indexer, indexer->p);
    index->object_count++;
    bool in_order = at != 0;
    indexer->p++;
    if (!skip_blanks(indexer) || (next(indexer) != '}' && !index_members(indexer, depth, &in_order)))
        return false;
    indexer->p++;
    struct body_object *object = &index->objects[at];
    object->in_order = in_order;
    object->next = index->object_count;
    if (in_order && object->next == at + 1)
        index->object_count = at; /* nothing to be noted */
    else if (!in_order && !order_object(indexer, object, first_open))
        return false;
    indexer->open_count = first_open;
    return true;
}

/* Reads objects of an array from where the indexer stands on; there may be `levels` of brackets. *closed: it stands at
 * the array's closing bracket then. */
static bool index_row(struct indexer *indexer, unsigned levels, bool *closed)
{
    struct body_index *index = indexer->index;
    const char *start = indexer->p;
    struct body_row row = body_rows_read(&index->rows, start, levels);
    *closed = row.closed;
    indexer->p = row.end;
    if (row.copy_len == 0)
        return row.spaced ? add_spaced(indexer, start) : add_tight(indexer, start);
    if (!end_run(indexer, row.copied, row.copied) || !end_run(indexer, row.end, row.end))
        return false;
    struct body_run *run = &index->runs[index->run_count - 1];
    run->copy = (uint32_t)row.copy;
    run->copy_len = (uint32_t)row.copy_len;
    return true;
}

/* Indexes an array and the arrays in it; what is in them may have `depth` more levels of brackets. */
static bool index_array(struct indexer *indexer, unsigned depth)
{
    unsigned nest = 0;
    bool lists = true; /* whether it is worth trying to skip many values at once */
    unsigned tries = OBJECT_TRIES;
    for (;;) {
        const char *start = indexer->p;
        bool closed = false;
        if (lists && nest != 0 && (next(indexer) == '"' || next(indexer) == '[')) {
            indexer->p = body_skip_list(start, indexer->end, &nest, depth + 1);
            lists = indexer->p - start >= LIST_WORTH;
            if (!add_tight(indexer, start) || !skip_blanks(indexer))
                return false;
        }
        if (tries != 0 && nest != 0 && nest <= depth && next(indexer) == '{') {
            start = indexer->p;
            if (!index_row(indexer, depth + 1 - nest, &closed) || !skip_blanks(indexer))
                return false;
            tries = indexer->p != start ? OBJECT_TRIES : tries - 1;
        }
        if (closed) {
            /* The last value was read with the others. */
        } else if (next(indexer) == '[') {
            if (nest++ > depth)
                return give_up(indexer, CACHE_KEY_DEEP);
            indexer->p++;
            if (!skip_blanks(indexer))
                return false;
            if (next(indexer) != ']')
                continue;
        } else if (!index_value(indexer, depth + 1 - nest, true)) {
            return false;
        }
        for (;; indexer->p++) {
            if (!skip_blanks(indexer))
                return false;
            if (next(indexer) != ']')
                break;
            if (--nest == 0) {
                indexer->p++;
                return true;
            }
        }
        if (next(indexer) != ',')
            return give_up(indexer, CACHE_KEY_INVALID);
        indexer->p++;
        if (!skip_blanks(indexer))
            return false;
    }
}

/* Indexes the value at which the indexer stands; there may be `depth` more levels of brackets. */
static bool index_value(struct indexer *indexer, unsigned depth, bool in_array)
{
    switch (next(indexer)) {
    case '"':
        return skip_string(indexer);
    case '{':
        return depth != 0 ? index_object(indexer, depth - 1) : give_up(indexer, CACHE_KEY_DEEP);
    case '[':
        return depth != 0 ? index_array(indexer, depth - 1) : give_up(indexer, CACHE_KEY_DEEP);
    default:
        return skip_words(indexer, in_array);
    }
}

enum cache_key_result body_index_make(struct body_index *index, struct span text)
{
    if (text.len == 0 || text.len > UINT32_MAX)
        return text.len == 0 ? CACHE_KEY_INVALID : CACHE_KEY_COMPLEX;
    struct indexer indexer = {
        .index = index,
        .p = text.base,
        .end = text.base + text.len,
        .base = text.base,
        .run = text.base,
        .result = CACHE_KEY_MADE,
    };
    index->text = text;
    index->run_count = index->object_count = index->member_count = 0;
    index->_names_len = 0;
    body_rows_begin(&index->rows, text);
    if (!skip_blanks(&indexer))
        return indexer.result;
    if (next(&indexer) != '{')
        return CACHE_KEY_INVALID;
    if (index_value(&indexer, CACHE_KEY_MAX_DEPTH, false) && skip_blanks(&indexer)) {
        if (indexer.p != indexer.end)
            return CACHE_KEY_INVALID;
        end_run(&indexer, indexer.p, indexer.p);
    }
    return indexer.result;
}

void body_index_clear(struct body_index *index)
{
    size_t members = index->_open_cap + index->_member_cap, objects = index->_object_cap;
    size_t bytes = index->_run_cap * sizeof(*index->runs) + objects * sizeof(*index->objects) + index->rows.copies_cap;
    free(index->_names);
    index->_names = NULL;
    index->run_count = index->object_count = index->member_count = 0;
    if (bytes + members * sizeof(*index->members) > CACHE_KEYER_KEEPS)
        body_index_dispose(index);
}

void body_index_dispose(struct body_index *index)
{
    free(index->runs);
    free(index->objects);
    free(index->members);
    free(index->_open);
    free(index->_names);
    body_rows_dispose(&index->rows);
    *index = (struct body_index){.runs = NULL};
}
