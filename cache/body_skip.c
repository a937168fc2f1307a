#include "cache/body_skip.h"
#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* As body_skip_escapes, for what is shorter than a block. */
static const char *skip_rest(const char *p, const char *end)
{
    for (; p < end; p++) {
        if (*p == '"')
            return p;
        p += *p == '\\';
    }
    return NULL;
}

#ifdef __SSE2__

#define TEXT_BLOCKS 6 /* without a quote */

/* 64 bytes; in masks of them the first byte is bit 0. No loops over the four parts: they would live in memory. */
struct block {
    __m128i a, b, c, d;
};

static inline __m128i load_part(const char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline struct block load(const char *p)
{
    return (struct block){load_part(p), load_part(p + 16), load_part(p + 32), load_part(p + 48)};
}

static inline uint64_t mask_of(__m128i a, __m128i b, __m128i c, __m128i d)
{
    uint64_t low = (unsigned)_mm_movemask_epi8(a) | (unsigned)_mm_movemask_epi8(b) << 16;
    uint64_t high = (unsigned)_mm_movemask_epi8(c) | (unsigned)_mm_movemask_epi8(d) << 16;
    return low | high << 32;
}

/* Where the byte `c` is. */
static inline uint64_t where(const struct block *block, char c)
{
    __m128i byte = _mm_set1_epi8(c);
    return mask_of(_mm_cmpeq_epi8(block->a, byte), _mm_cmpeq_epi8(block->b, byte), _mm_cmpeq_epi8(block->c, byte),
                   _mm_cmpeq_epi8(block->d, byte));
}

/* Which of 16 bytes are of a number: digits, '-', '.'; '/' too, which counts as it is written. */
static inline __m128i digits_in(__m128i bytes)
{
    return _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(',')), _mm_cmplt_epi8(bytes, _mm_set1_epi8(':')));
}

static inline uint64_t where_digits(const struct block *block)
{
    return mask_of(digits_in(block->a), digits_in(block->b), digits_in(block->c), digits_in(block->d));
}

/* The bytes behind an odd number of backslashes; *carry: whether the first byte is one, of this block and then of the
 * next. Adding a run's first bit to its bits leaves one bit, behind the run; the run is odd if that bit is at an even
 * place and the first was not, or the other way round. */
static inline uint64_t escaped_by(uint64_t slashes, uint64_t *carry)
{
    const uint64_t even = UINT64_C(0x5555555555555555);
    slashes &= ~*carry;
    uint64_t first = slashes & ~(slashes << 1), behind_odd;
    uint64_t behind_even = (slashes + (first & even)) & ~slashes;
    bool over = __builtin_add_overflow(slashes, first & ~even, &behind_odd);
    uint64_t escaped = (behind_even & ~even) | (behind_odd & ~slashes & even) | *carry;
    *carry = over;
    return escaped;
}

/* Bit i of the result: whether bits 0 to i of `bits` have an odd sum. */
static inline uint64_t parity_up_to(uint64_t bits)
{
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    return bits ^ bits << 32;
}

/* How many bits are set; the instruction for it is not in every processor that has SSE2. */
static inline unsigned count_bits(uint64_t bits)
{
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    return (unsigned)(((bits + (bits >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101) >> 56);
}

/* What is before a byte, in bit 0. */
struct before {
    uint64_t inside;    /* ~0: a string's inside */
    uint64_t separator; /* a comma or an opening bracket */
    uint64_t open;      /* an opening bracket */
    uint64_t digit;
    uint64_t end; /* the end of a value */
};

struct list_block {
    uint64_t good; /* the bytes before the first that is not as it should be */
    uint64_t commas, opens, closes, quotes;
};

/* Reads a block, and brings `before` to its end. */
static inline struct list_block read_list(const char *p, struct before *before)
{
    struct block block = load(p);
    struct list_block list = {.quotes = where(&block, '"')};
    uint64_t inside =
        parity_up_to(list.quotes) ^ before->inside; /* with the quotes that open, without those that close */
    uint64_t outside = ~(inside | list.quotes);
    uint64_t digits = where_digits(&block) & outside;
    list.commas = where(&block, ',') & outside;
    list.opens = where(&block, '[') & outside;
    list.closes = where(&block, ']') & outside;
    uint64_t separators = list.commas | list.opens, ends = (list.quotes & ~inside) | list.closes | digits;
    uint64_t after_separator = separators << 1 | before->separator, after_end = ends << 1 | before->end;
    uint64_t bad = where(&block, '\\') | (outside & ~(digits | separators | list.closes));
    bad |= ((list.quotes & inside) | list.opens) & ~after_separator;
    bad |= digits & ~(after_separator | digits << 1 | before->digit);
    bad |= list.commas & ~after_end;
    bad |= list.closes & ~(after_end | list.opens << 1 | before->open);
    list.good = bad != 0 ? (bad & (0 - bad)) - 1 : ~UINT64_C(0);
    *before = (struct before){0 - (inside >> 63), separators >> 63, list.opens >> 63, digits >> 63, ends >> 63};
    return list;
}

/* Goes through a block's brackets; those at which there are too many or too few are not good. */
static void limit_nest(struct list_block *list, unsigned nest, unsigned nest_max)
{
    for (uint64_t left = (list->opens | list->closes) & list->good; left != 0; left &= left - 1) {
        uint64_t bit = left & (0 - left);
        if ((list->opens & bit) != 0 ? nest == nest_max : nest == 1) {
            list->good &= bit - 1;
            return;
        }
        nest += (list->opens & bit) != 0 ? 1 : -1U;
    }
}

const char *body_skip_escapes(const char *p, const char *end)
{
    uint64_t carry = 0;
    for (; end - p >= 64; p += 64) {
        struct block block = load(p);
        uint64_t quotes = where(&block, '"') & ~escaped_by(where(&block, '\\'), &carry);
        if (quotes != 0)
            return p + __builtin_ctzll(quotes);
    }
    return skip_rest(p + (carry != 0 && p != end), end);
}

const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max, bool *strings)
{
    struct before before = {.separator = 1};
    const char *done = p;
    unsigned depth = *nest;
    for (; end - p >= 64; p += 64) {
        struct list_block list = read_list(p, &before);
        if ((list.opens | list.closes) != 0)
            limit_nest(&list, depth, nest_max);
        uint64_t commas = list.commas & list.good;
        *strings |= list.quotes != 0; /* a comma may follow in a block that has none */
        if (commas != 0) {
            unsigned last = 63 - (unsigned)__builtin_clzll(commas);
            uint64_t upto = ~UINT64_C(0) >> (63 - last);
            done = p + last + 1;
            *nest = depth + count_bits(list.opens & upto) - count_bits(list.closes & upto);
        }
        /* A long text is for others. */
        if (list.good != ~UINT64_C(0) || (list.quotes | list.commas | list.opens | list.closes) == 0)
            break;
        depth += count_bits(list.opens) - count_bits(list.closes);
    }
    return done;
}

/* The quotes of a text that are not escaped, one after the other. */
struct quotes {
    const char *block, *end;
    uint64_t left, slashes; /* of the block: quotes to come, backslashes */
    uint64_t slashes_before, carry;
};

static inline void read_quotes(struct quotes *quotes)
{
    struct block block = load(quotes->block);
    quotes->slashes_before = quotes->slashes;
    quotes->slashes = where(&block, '\\');
    quotes->left = where(&block, '"') & ~escaped_by(quotes->slashes, &quotes->carry);
}

/* The next quote; NULL if it is within the last 64 bytes, or far away: a long text is for others. */
static inline const char *next_quote(struct quotes *quotes)
{
    for (int blocks = 0; quotes->left == 0; blocks++) {
        if (quotes->end - quotes->block < 3 * 64 || blocks == TEXT_BLOCKS)
            return NULL;
        quotes->block += 64;
        read_quotes(quotes);
    }
    const char *quote = quotes->block + __builtin_ctzll(quotes->left);
    quotes->left &= quotes->left - 1;
    return quote;
}

/* The place behind the string at whose opening quote `p` is; NULL if there is none. */
static inline const char *skip_text(struct quotes *quotes, const char *p)
{
    if (*p != '"' || next_quote(quotes) == NULL)
        return NULL;
    const char *close = next_quote(quotes);
    return close != NULL ? close + 1 : NULL;
}

/* Skips a number or a word; NULL if there is none, or less than a few bytes behind it. */
static inline const char *skip_word(const char *p, const char *end)
{
    const char *start = p;
    while (p != end && ((*p >= '-' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '+'))
        p++;
    return p != start && end - p > 2 ? p : NULL;
}

/* The place behind the object that begins at `p`; NULL if it is not of the simple kind. */
static inline const char *skip_object(struct quotes *quotes, const char *p)
{
    struct span before = {NULL, 0};
    if (*++p == '}')
        return p + 1;
    for (;; p++) {
        const char *behind = skip_text(quotes, p);
        if (behind == NULL || *behind != ':')
            return NULL;
        struct span name = {p + 1, (size_t)(behind - p) - 2};
        if (before.base != NULL && body_compare_names(before, name) >= 0)
            return NULL;
        /* A longer name may have begun before the blocks that are known. */
        bool slashes = name.len > 64 || (quotes->slashes | quotes->slashes_before) != 0;
        if (slashes && memchr(name.base, '\\', name.len) != NULL)
            return NULL;
        before = name;
        p = behind[1] == '"' ? skip_text(quotes, behind + 1) : skip_word(behind + 1, quotes->end);
        if (p == NULL)
            return NULL;
        if (*p == '}')
            return p + 1;
        if (*p != ',')
            return NULL;
    }
}

const char *body_skip_objects(const char *p, const char *end)
{
    struct quotes quotes = {.block = p, .end = end};
    const char *done = p;
    if (end - p < 2 * 64)
        return p;
    read_quotes(&quotes);
    while (end - p > 2 * 64 && *p == '{' && (p = skip_object(&quotes, p)) != NULL && *p == ',')
        done = ++p;
    return done;
}

#else

const char *body_skip_objects(const char *p, const char *end)
{
    (void)end;
    return p;
}

const char *body_skip_escapes(const char *p, const char *end)
{
    return skip_rest(p, end);
}

const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max, bool *strings)
{
    (void)end, (void)nest, (void)nest_max, (void)strings;
    return p;
}

#endif
