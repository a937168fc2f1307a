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
#define LIST_WORTH 48 /* bytes of an array's values that make it worth trying to skip more in the same way */

struct indexer {
    struct body_index *index;
    const char *p, *end;
    struct span text;
    uint32_t open_count;
    bool sealed; /* the last part may not be prolonged: something stands in between */
    enum cache_key_result result;
};

/* Doubles an array of `size`-byte elements; ROOM_FIRST and CACHE_KEY_MAX_PARTS are powers of two. */
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

static inline void skip_blanks(struct indexer *indexer)
{
    while (indexer->p != indexer->end && body_is_blank(*indexer->p))
        indexer->p++;
}

/* The next byte; NUL, which stands nowhere outside of strings, at the end. */
static inline char next(const struct indexer *indexer)
{
    return indexer->p != indexer->end ? *indexer->p : '\0';
}

/* The next part, to be filled in where it stands: copying what has just been written makes processors wait. NULL: too
 * many. */
static inline struct body_part *add_part(struct indexer *indexer)
{
    struct body_index *index = indexer->index;
    if (index->part_count == index->_part_cap) {
        if (index->part_count == CACHE_KEY_MAX_PARTS) {
            give_up(indexer, CACHE_KEY_COMPLEX);
            return NULL;
        }
        index->parts = grow(index->parts, &index->_part_cap, sizeof(*index->parts));
    }
    return &index->parts[index->part_count++];
}

/* Adds tokens of an array, or of one value, that reach from `from` to the place where the indexer stands. What follows
 * the last part, blanks between tokens aside, prolongs it. `spaced`: there are blanks within. */
static bool add_run(struct indexer *indexer, const char *from, bool string, bool spaced)
{
    struct body_index *index = indexer->index;
    uint32_t first = (uint32_t)(from - indexer->text.base), end = (uint32_t)(indexer->p - indexer->text.base);
    if (!indexer->sealed) {
        struct body_part *last = &index->parts[index->part_count - 1];
        bool blanks = spaced || last->kind == BODY_SPACED || last->end != first;
        if (!blanks || !(string || last->strings)) {
            last->kind = blanks ? BODY_SPACED : BODY_RUN;
            last->end = end;
            last->strings |= string;
            return true;
        }
    }
    indexer->sealed = false;
    struct body_part *part = add_part(indexer);
    if (part == NULL)
        return false;
    part->kind = spaced ? BODY_SPACED : BODY_RUN;
    part->strings = string;
    part->first = first;
    part->end = end;
    return true;
}

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
    return true;
}

/* Skips words and the commas and single blanks between them, 16 bytes at a time, for as long as there is nothing else;
 * stops inside of a word or behind one. *spaced becomes true if a blank was among them. */
static const char *skip_word_list(const char *start, const char *end, bool *spaced)
{
    const char *p = start;
#ifdef __SSE2__
    unsigned word_before = 0, comma_before = 0; /* what the byte in front was, in bit 0 */
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned words = (unsigned)_mm_movemask_epi8(
            _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(',')), _mm_cmplt_epi8(bytes, _mm_set1_epi8(':'))));
        unsigned commas = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(',')));
        unsigned blanks = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(' ')));
        /* A comma follows a word, a blank a comma. */
        if ((words | commas | blanks) != 0xFFFF || (commas & ~(words << 1 | word_before)) != 0 ||
            (blanks & ~(commas << 1 | comma_before)) != 0)
            break;
        *spaced |= blanks != 0;
        word_before = words >> 15;
        comma_before = commas >> 15;
        p += 16;
    }
    while (p != start && p[-1] <= ',')
        p--;
#endif
    (void)end;
    (void)spaced;
    return p;
}

/* Skips a number or a word, whatever it is, since it counts as it is written; in an array also those that follow, so
 * that a prompt of tokens is one run. */
static bool add_words(struct indexer *indexer, bool in_array)
{
    static const char in_words[256] = {
        ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['+'] = 1, ['-' ... '/'] = 1};
    const char *start = indexer->p, *p = start, *end = indexer->end;
    bool spaced = false, skipped = false;
    if (in_array)
        p = skip_word_list(start, end, &spaced);
    for (bool begun = p != start;; begun = false) {
        const char *word = p;
        while (p != end && in_words[(unsigned char)*p])
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
    return indexer->p != start ? add_run(indexer, start, false, spaced) : give_up(indexer, CACHE_KEY_INVALID);
}

/* Reads a member's name. */
static bool read_name(struct indexer *indexer, struct body_member *member)
{
    const char *start = indexer->p;
    if (next(indexer) != '"')
        return give_up(indexer, CACHE_KEY_INVALID);
    const char *p = find_name_end(start + 1, indexer->end);
    if (p != indexer->end && *p == '"') {
        member->name = start + 1;
        member->name_len = (uint32_t)(p - member->name);
        indexer->p = p + 1;
        return true;
    }
    struct body_index *index = indexer->index;
    if (!skip_string(indexer))
        return false;
    struct span raw = {start, (size_t)(indexer->p - start)};
    if (index->_names == NULL)
        index->_names = h2o_mem_alloc(indexer->text.len);
    char *name = index->_names + index->_names_len;
    long len = json_string_decode(raw, name, raw.len - 2);
    if (len < 0)
        return give_up(indexer, CACHE_KEY_INVALID);
    index->_names_len += (size_t)len;
    member->name = name;
    member->name_len = (uint32_t)len;
    return true;
}

/* The order of members. Any order will do, so this is the one that compares quickest: by length first. */
static int compare_members(const void *a, const void *b)
{
    const struct body_member *x = a, *y = b;
    if (x->name_len != y->name_len)
        return x->name_len < y->name_len ? -1 : 1;
    return memcmp(x->name, y->name, x->name_len);
}

/* Sorts; false if two are the same. */
static bool sort_members(struct body_member *members, size_t count)
{
    if (count > SORT_SIMPLE) {
        qsort(members, count, sizeof(*members), compare_members);
        for (size_t i = 1; i < count; i++)
            if (compare_members(&members[i - 1], &members[i]) == 0)
                return false;
        return true;
    }
    for (size_t i = 1; i < count; i++) {
        size_t at = i;
        int order = 1;
        while (at != 0 && (order = compare_members(&members[at - 1], &members[i])) > 0)
            at--;
        if (order == 0)
            return false;
        if (at == i)
            continue;
        struct body_member member = members[i];
        memmove(&members[at + 1], &members[at], (i - at) * sizeof(member));
        members[at] = member;
    }
    return true;
}

/* Moves an object's members from the stack to where they stay, in order. */
static bool close_object(struct indexer *indexer, uint32_t object, uint32_t first_open)
{
    struct body_index *index = indexer->index;
    struct body_member *members = index->_open + first_open;
    uint32_t count = indexer->open_count - first_open;
    if (!sort_members(members, count))
        return give_up(indexer, CACHE_KEY_DUPLICATE);
    struct body_part *part = &index->parts[object];
    part->first = index->member_count;
    part->count = count;
    part->end = index->part_count;
    while (index->_member_cap < index->member_count + count)
        index->members = grow(index->members, &index->_member_cap, sizeof(*members));
    if (count != 0)
        memcpy(index->members + index->member_count, members, count * sizeof(*members));
    index->member_count += count;
    indexer->open_count = first_open;
    return true;
}

static bool index_member(struct indexer *indexer, unsigned depth)
{
    struct body_index *index = indexer->index;
    uint32_t at = indexer->open_count;
    if (index->member_count + at == CACHE_KEY_MAX_PARTS)
        return give_up(indexer, CACHE_KEY_COMPLEX);
    if (at == index->_open_cap)
        index->_open = grow(index->_open, &index->_open_cap, sizeof(*index->_open));
    if (!read_name(indexer, &index->_open[at]))
        return false;
    skip_blanks(indexer);
    if (next(indexer) != ':')
        return give_up(indexer, CACHE_KEY_INVALID);
    indexer->p++;
    skip_blanks(indexer);
    index->_open[at].first_part = index->part_count;
    indexer->open_count++; /* the members of the value come behind it */
    indexer->sealed = true;
    if (!index_value(indexer, depth, false))
        return false;
    index->_open[at].end_part = index->part_count;
    return true;
}

static bool index_object(struct indexer *indexer, unsigned depth)
{
    struct body_index *index = indexer->index;
    uint32_t object = index->part_count, first_open = indexer->open_count;
    struct body_part *part = add_part(indexer);
    if (part == NULL)
        return false;
    part->kind = BODY_OBJECT;
    indexer->p++;
    skip_blanks(indexer);
    if (next(indexer) != '}') {
        for (;; indexer->p++, skip_blanks(indexer)) {
            if (!index_member(indexer, depth))
                return false;
            skip_blanks(indexer);
            if (next(indexer) == '}')
                break;
            if (next(indexer) != ',')
                return give_up(indexer, CACHE_KEY_INVALID);
        }
    }
    indexer->p++;
    indexer->sealed = true;
    return close_object(indexer, object, first_open);
}

/* Adds the one byte of punctuation at which the indexer stands. */
static bool add_mark(struct indexer *indexer)
{
    indexer->p++;
    return add_run(indexer, indexer->p - 1, false, false);
}

/* Indexes an array and the arrays in it; what is in them may have `depth` more levels of brackets. */
static bool index_array(struct indexer *indexer, unsigned depth)
{
    unsigned nest = 0;
    bool lists = true; /* whether it is worth trying to skip many values at once */
    for (;;) {
        const char *start = indexer->p;
        bool strings = false;
        if (lists && nest != 0 && (next(indexer) == '"' || next(indexer) == '[')) {
            indexer->p = body_skip_list(start, indexer->end, &nest, depth + 1, &strings);
            lists = indexer->p - start >= LIST_WORTH;
            if (indexer->p != start && !add_run(indexer, start, strings, false))
                return false;
            skip_blanks(indexer);
        }
        if (next(indexer) == '[') {
            if (nest++ > depth)
                return give_up(indexer, CACHE_KEY_DEEP);
            if (!add_mark(indexer))
                return false;
            skip_blanks(indexer);
            if (next(indexer) != ']')
                continue;
        } else if (!index_value(indexer, depth + 1 - nest, true)) {
            return false;
        }
        for (skip_blanks(indexer); next(indexer) == ']'; skip_blanks(indexer)) {
            if (!add_mark(indexer))
                return false;
            if (--nest == 0)
                return true;
        }
        if (next(indexer) != ',')
            return give_up(indexer, CACHE_KEY_INVALID);
        if (!add_mark(indexer))
            return false;
        skip_blanks(indexer);
    }
}

/* Indexes the value at which the indexer stands; there may be `depth` more levels of brackets. */
static bool index_value(struct indexer *indexer, unsigned depth, bool in_array)
{
    const char *start = indexer->p;
    switch (next(indexer)) {
    case '"':
        return skip_string(indexer) && add_run(indexer, start, true, false);
    case '{':
        return depth != 0 ? index_object(indexer, depth - 1) : give_up(indexer, CACHE_KEY_DEEP);
    case '[':
        return depth != 0 ? index_array(indexer, depth - 1) : give_up(indexer, CACHE_KEY_DEEP);
    default:
        return add_words(indexer, in_array);
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
        .text = text,
        .sealed = true,
        .result = CACHE_KEY_MADE,
    };
    index->text = text;
    index->part_count = index->member_count = 0;
    index->_names_len = 0;
    skip_blanks(&indexer);
    if (next(&indexer) != '{')
        return CACHE_KEY_INVALID;
    if (index_value(&indexer, CACHE_KEY_MAX_DEPTH, false)) {
        skip_blanks(&indexer);
        if (indexer.p != indexer.end)
            return CACHE_KEY_INVALID;
    }
    return indexer.result;
}

void body_index_clear(struct body_index *index)
{
    size_t members = index->_open_cap + index->_member_cap;
    free(index->_names);
    index->_names = NULL;
    index->part_count = index->member_count = 0;
    if (index->_part_cap * sizeof(*index->parts) + members * sizeof(*index->members) > CACHE_KEYER_KEEPS)
        body_index_dispose(index);
}

void body_index_dispose(struct body_index *index)
{
    free(index->parts);
    free(index->members);
    free(index->_open);
    free(index->_names);
    *index = (struct body_index){.parts = NULL};
}
