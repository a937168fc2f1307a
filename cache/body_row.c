#include "cache/body_row.h"
#include "cache/blanks.h"
#include "cache/block.h"
#include "cache/body_skip.h"
#include "cache/key.h"
#include <h2o/memory.h>
#include <stdlib.h>

#define SLACK 32 /* bytes behind what is copied that may be written to */
/* Bytes in order, but with white space, that are worth being written anew: others leave it out too. */
#define COPY_WORTH 256

void body_rows_begin(struct body_rows *rows, struct span text)
{
    const char *last = text.base + text.len;
    while (last != text.base && body_is_blank(last[-1]))
        last--;
    rows->_last = last != text.base && last[-1] == '}' ? last - 1 : NULL;
    rows->_text = text;
    rows->_copies_len = 0;
    rows->moved = 0;
}

void body_rows_dispose(struct body_rows *rows)
{
    free(rows->copies);
    rows->copies = NULL;
    rows->copies_cap = 0;
}

#ifdef __SSE2__

#define TEXT_BLOCKS 4 /* without a quote that are read; memchr is quicker on a long way */

/* The text's quotes that are not escaped, in turn. */
struct quotes {
    const char *block;
    uint64_t left;    /* of the block's quotes */
    uint64_t carry;   /* see block_escaped */
    unsigned slashes; /* whether there are backslashes, in bit 0; of the block before in bit 1, and so on */
};

/* What is read is written without white space: a byte at `p` as the one at p - start, since `start` moves by each
 * blank. Bytes are written only when they have to be: in front of a blank, and of members that change places. */
struct reader {
    struct body_rows *rows;
    const char *last, *end; /* the text's last }, behind which nothing is read; its end */
    const char *blocks_end; /* a block and the next can be loaded up to here */
    struct quotes quotes;
    char *copy;        /* the row's; NULL: not written yet */
    const char *from;  /* what is not written yet */
    const char *start; /* of the row, if each blank since had not been there */
    size_t moved;      /* members of objects that were put in order */
};

struct member {
    const char *name;
    size_t name_len;
    const char *value; /* NULL: not all of it is as it was */
    size_t start, end; /* as written, see above */
};

static const char *read_object(struct reader *reader, const char *p, unsigned levels);
static const char *read_array(struct reader *reader, const char *p, unsigned levels);

/* ---- writing ---- */

static inline size_t written(const struct reader *reader, const char *p)
{
    return (size_t)(p - reader->start);
}

/* There is room for the whole text, and for an object that is put in order. */
__attribute__((noinline)) static void begin_copy(struct reader *reader)
{
    struct body_rows *rows = reader->rows;
    size_t room = 2 * rows->_text.len + 3 * SLACK;
    if (rows->copies_cap < room) { /* nothing of this text was written yet */
        free(rows->copies);
        rows->copies = h2o_mem_alloc(room);
        rows->copies_cap = room;
    }
    reader->copy = rows->copies + rows->_copies_len;
}

/* memcpy, quick for the short pieces that most are; may write SLACK bytes. `limit`: what may be read ends there. */
static inline char *copy(char *to, const char *from, size_t len, const char *limit)
{
    if (len <= SLACK && limit - from >= SLACK) {
        __m128i first = block_part(from), second = block_part(from + 16);
        _mm_storeu_si128((__m128i *)(void *)to, first);
        _mm_storeu_si128((__m128i *)(void *)(to + 16), second);
    } else {
        memcpy(to, from, len);
    }
    return to + len;
}

/* Writes what is before `p`. */
static inline void write_to(struct reader *reader, const char *p)
{
    if (reader->copy == NULL)
        begin_copy(reader);
    copy(reader->copy + written(reader, reader->from), reader->from, (size_t)(p - reader->from), reader->end);
    reader->from = p;
}

__attribute__((noinline)) static const char *leave_blanks(struct reader *reader, const char *p)
{
    const char *start = p;
    if (!body_is_blank(*p))
        return p;
    write_to(reader, p++);
    while ((unsigned char)*p <= ' ' && reader->end - p >= 16) {
        __m128i bytes = block_part(p);
        __m128i spaces = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(' ')), lines = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\n'));
        __m128i returns = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\r')), tabs = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
        __m128i blanks = _mm_or_si128(_mm_or_si128(spaces, lines), _mm_or_si128(returns, tabs));
        unsigned others = (unsigned)_mm_movemask_epi8(blanks) ^ 0xFFFF;
        p += others != 0 ? __builtin_ctz(others) : 16;
        if (others != 0)
            break;
    }
    while ((unsigned char)*p <= ' ' && body_is_blank(*p))
        p++;
    reader->start += p - start;
    reader->from = p;
    return p;
}

/* Skips white space; there is something else behind it. */
static inline const char *skip_blanks(struct reader *reader, const char *p)
{
    return (unsigned char)*p <= ' ' ? leave_blanks(reader, p) : p;
}

/* The same, with `c` for what is likely to be there without any. */
static inline const char *skip_to(struct reader *reader, const char *p, char c)
{
    return *p == c ? p : skip_blanks(reader, p);
}

/* ---- order ---- */

static inline bool is_before(const struct member *a, const struct member *b)
{
    return body_compare_names((struct span){a->name, a->name_len}, (struct span){b->name, b->name_len}) < 0;
}

/* Whether members are in order if they are taken like this. */
static bool is_order(const struct member *members, const uint8_t *order, unsigned count)
{
    for (unsigned i = 1; i < count; i++)
        if (!is_before(&members[order[i - 1]], &members[order[i]]))
            return false;
    return true;
}

/* Finds the order of members; false if two are the same. */
static bool find_order(const struct member *members, uint8_t *order, unsigned count)
{
    if (is_order(members, order, count))
        return true;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = i;
        for (; at != 0 && is_before(&members[i], &members[order[at - 1]]); at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
    return is_order(members, order, count);
}

/* Writes an object whose closing bracket is at `p` with its members in order. */
static bool put_in_order(struct reader *reader, const char *open, const struct member *members, unsigned count,
                         const char *p)
{
    if (count > BODY_ROW_SORTED || count > CACHE_KEY_MAX_PARTS - reader->rows->moved - reader->moved)
        return false;
    uint8_t *order = reader->rows->_orders[count];
    if (!find_order(members, order, count))
        return false;
    size_t start = members[0].start, len = written(reader, p) - start;
    const char *written_before = NULL;
    if (reader->from <= open)
        write_to(reader, open + 1);
    for (unsigned i = 0; i < count && written_before == NULL; i++) {
        if (members[i].value != NULL)
            continue;
        write_to(reader, p);
        written_before = memcpy(reader->copy + start + len + SLACK, reader->copy + start, len);
    }
    char *to = reader->copy + start;
    for (unsigned i = 0; i < count; i++) {
        const struct member *member = &members[order[i]];
        const char *text = member->name - 1, *limit = reader->end;
        size_t left = member->end - member->start;
        if (i != 0)
            *to++ = ',';
        if (member->value == NULL) {
            text = written_before + (member->start - start);
            limit = text + left + SLACK;
        } else if (member->value != text + member->name_len + 3) { /* there are blanks in between */
            to = copy(to, text, member->name_len + 2, limit);
            *to++ = ':';
            left -= member->name_len + 3;
            text = member->value;
        }
        to = copy(to, text, left, limit);
    }
    reader->from = p;
    reader->moved += count;
    return true;
}

/* ---- reading: every byte that is looked at is at or before the text's last }, for what is in front of it is not it,
 *      and it ends everything else ---- */

/* Reads the quotes of the 64 bytes of text at `p`. */
static inline void read_block(struct quotes *quotes, const char *block, const char *p)
{
    struct block bytes = block_load(p);
    quotes->block = block;
    uint64_t slashes = block_where(&bytes, '\\');
    quotes->left = block_where(&bytes, '"');
    quotes->slashes <<= 1;
    if ((slashes | quotes->carry) != 0) {
        quotes->slashes |= 1;
        quotes->left &= ~block_escaped(slashes, &quotes->carry);
    }
}

/* Reads the block at `p`, in front of which no quote is left and no backslash. */
static void begin_block(struct reader *reader, const char *p)
{
    char last[64] = {0};
    size_t left = (size_t)(reader->end - p);
    reader->quotes.carry = 0;
    reader->quotes.slashes = ~0U; /* before it there may be some */
    if (left < 64)
        memcpy(last, p, left);
    read_block(&reader->quotes, p, left < 64 ? last : p);
}

/* Goes to the next quote, which is far away, or near the end; false if there is none. */
__attribute__((noinline)) static bool leap(struct reader *reader)
{
    const char *start = reader->quotes.block + 64 + reader->quotes.carry;
    const char *p = start < reader->end ? memchr(start, '"', (size_t)(reader->end - start)) : NULL;
    if (p != NULL && p != start && p[-1] == '\\') {
        for (p--; p != start && p[-1] == '\\';)
            p--;
        p = body_skip_escapes(p, reader->end);
    }
    if (p != NULL)
        begin_block(reader, p);
    return p != NULL;
}

/* Goes to the next quote; false if there is none. `quotes` are the reader's, kept in registers: everything waits for
 * them. */
static inline __attribute__((always_inline)) bool find_quote(struct reader *reader, struct quotes *quotes)
{
    for (int blocks = 0; quotes->left == 0; blocks++) {
        if (blocks == TEXT_BLOCKS || quotes->block > reader->blocks_end) {
            reader->quotes = *quotes;
            if (!leap(reader))
                return false;
            *quotes = reader->quotes;
        } else {
            read_block(quotes, quotes->block + 64, quotes->block + 64);
        }
    }
    return true;
}

/* Reads the string that begins with the next quote; NULL if it does not end. */
static inline __attribute__((always_inline)) const char *read_text(struct reader *reader, struct quotes *quotes)
{
    if (!find_quote(reader, quotes))
        return NULL;
    quotes->left &= quotes->left - 1;
    if (!find_quote(reader, quotes))
        return NULL;
    const char *end = quotes->block + __builtin_ctzll(quotes->left) + 1;
    quotes->left &= quotes->left - 1;
    return end;
}

/* Reads a number or a word; NULL if there is none. */
static inline const char *read_word(const char *p)
{
    const char *start = p;
    while (body_is_word(*p))
        p++;
    return p != start ? p : NULL;
}

/* Reads the value at `p`, which is not a string, and within which there may be `levels` of brackets. */
static inline const char *read_other(struct reader *reader, struct quotes *quotes, const char *p, unsigned levels)
{
    if (*p != '{' && *p != '[')
        return read_word(p);
    if (levels == 0)
        return NULL;
    reader->quotes = *quotes;
    p = *p == '{' ? read_object(reader, p, levels - 1) : read_array(reader, p, levels - 1);
    *quotes = reader->quotes;
    return p;
}

/* Reads the object at `open`. Inlined, so that the quotes stay in registers from one of a row's objects to the next. */
static inline __attribute__((always_inline)) const char *read_members(struct reader *reader, struct quotes *quotes,
                                                                      const char *open, unsigned levels)
{
    struct member members[BODY_ROW_SORTED]; /* the last ones, if there are more */
    struct member *member = members, *before = NULL;
    unsigned count = 0;
    bool in_order = true;
    const char *p = skip_blanks(reader, open + 1);
    if (*p == '}')
        return p != reader->last ? p + 1 : NULL;
    for (;;) {
        p = skip_to(reader, p, '"');
        const char *name = p;
        if (*p != '"' || (p = read_text(reader, quotes)) == NULL)
            return NULL;
        member->name = name + 1;
        member->name_len = (size_t)(p - name) - 2;
        member->start = written(reader, name);
        /* A longer name may have begun before the blocks that are known. */
        if ((quotes->slashes & 3) != 0 || member->name_len > 64) {
            if (memchr(name, '\\', (size_t)(p - name)) != NULL)
                return NULL;
        }
        if (before != NULL && !is_before(before, member))
            in_order = false;
        p = skip_to(reader, p, ':');
        if (*p++ != ':')
            return NULL;
        p = skip_to(reader, p, '"');
        member->value = p;
        if (*p == '"') {
            p = read_text(reader, quotes);
        } else {
            p = read_other(reader, quotes, p, levels);
            if (reader->from > member->value)
                member->value = NULL;
        }
        if (p == NULL)
            return NULL;
        member->end = written(reader, p);
        before = member++;
        if (++count % BODY_ROW_SORTED == 0)
            member = members;
        p = skip_to(reader, p, ',');
        if (*p != ',')
            break;
        p++;
    }
    if (*p != '}')
        return NULL;
    if (p == reader->last || (!in_order && !put_in_order(reader, open, members, count, p)))
        return NULL;
    return p + 1;
}

static const char *read_object(struct reader *reader, const char *p, unsigned levels)
{
    struct quotes quotes = reader->quotes;
    p = read_members(reader, &quotes, p, levels);
    reader->quotes = quotes;
    return p;
}

static const char *read_array(struct reader *reader, const char *p, unsigned levels)
{
    struct quotes quotes = reader->quotes;
    p = skip_blanks(reader, p + 1);
    while (*p != ']') {
        p = *p == '"' ? read_text(reader, &quotes) : read_other(reader, &quotes, p, levels);
        if (p == NULL)
            return NULL;
        p = skip_to(reader, p, ',');
        if (*p != ',')
            break;
        p = skip_blanks(reader, p + 1);
        if (*p == ']')
            return NULL;
    }
    reader->quotes = quotes;
    return *p == ']' ? p + 1 : NULL;
}

struct body_row body_rows_read(struct body_rows *rows, const char *p, unsigned levels)
{
    struct body_row row = {.end = p, .copied = p};
    const char *end = rows->_text.base + rows->_text.len;
    struct reader reader = {.rows = rows,
                            .last = rows->_last,
                            .end = end,
                            .blocks_end = end - p >= 128 ? end - 128 : p - 1,
                            .from = p,
                            .start = p};
    if (levels > BODY_ROW_LEVELS)
        levels = BODY_ROW_LEVELS;
    if (rows->_last == NULL || levels == 0)
        return row;
    begin_block(&reader, p);
    struct quotes quotes = reader.quotes;
    bool copies = false; /* as of `behind`, like the others */
    size_t moved = 0;
    const char *behind = p, *from = p, *start = p;
    while (!row.closed) {
        if (!copies)
            reader.start = reader.from = behind;
        p = skip_to(&reader, behind, '{');
        p = *p == '{' ? read_members(&reader, &quotes, p, levels - 1) : NULL;
        if (p == NULL)
            break;
        p = skip_to(&reader, p, ',');
        if (*p != ',' && *p != ']')
            break;
        if (reader.copy != NULL) {
            if (!copies)
                row.copied = behind;
            copies = true;
            moved = reader.moved;
            from = reader.from;
            start = reader.start;
        }
        row.closed = *p == ']';
        behind = row.closed ? p : p + 1;
    }
    row.end = behind;
    if (!copies)
        return row;
    reader.from = from;
    reader.start = start;
    row.copy = rows->_copies_len;
    row.copy_len = written(&reader, row.end);
    row.spaced = moved == 0 && row.copy_len < COPY_WORTH;
    if (row.spaced) {
        row.copy_len = 0;
        return row;
    }
    write_to(&reader, row.end);
    rows->_copies_len += row.copy_len;
    rows->moved += moved;
    return row;
}

#else

struct body_row body_rows_read(struct body_rows *rows, const char *p, unsigned levels)
{
    (void)rows, (void)levels;
    return (struct body_row){.end = p};
}

#endif
