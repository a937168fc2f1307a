#include "cache/body_skip.h"
#include "cache/block.h"

const char body_words[256] = {['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['+'] = 1, ['-' ... '/'] = 1};

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

/* Which of 16 bytes are of a number: digits, '-', '.'; '/' too, which counts as it is written. */
static inline __m128i digits_in(__m128i bytes)
{
    return _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(',')), _mm_cmplt_epi8(bytes, _mm_set1_epi8(':')));
}

static inline uint64_t where_digits(const struct block *block)
{
    return block_mask(digits_in(block->a), digits_in(block->b), digits_in(block->c), digits_in(block->d));
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
    struct block block = block_load(p);
    struct list_block list = {.quotes = block_where(&block, '"')};
    uint64_t inside =
        block_parity(list.quotes) ^ before->inside; /* with the quotes that open, without those that close */
    uint64_t outside = ~(inside | list.quotes);
    uint64_t digits = where_digits(&block) & outside;
    list.commas = block_where(&block, ',') & outside;
    list.opens = block_where(&block, '[') & outside;
    list.closes = block_where(&block, ']') & outside;
    uint64_t separators = list.commas | list.opens, ends = (list.quotes & ~inside) | list.closes | digits;
    uint64_t after_separator = separators << 1 | before->separator, after_end = ends << 1 | before->end;
    uint64_t bad = block_where(&block, '\\') | (outside & ~(digits | separators | list.closes));
    bad |= ((list.quotes & inside) | list.opens) & ~after_separator;
    bad |= digits & ~(after_separator | digits << 1 | before->digit);
    bad |= list.commas & ~after_end;
    bad |= list.closes & ~(after_end | list.opens << 1 | before->open);
    list.good = bad != 0 ? (bad & (0 - bad)) - 1 : ~UINT64_C(0);
    *before = (struct before){0 - (inside >> 63), separators >> 63, list.opens >> 63, digits >> 63, ends >> 63};
    return list;
}

/* Whether the brackets of a block that has no strings keep within the nest: sums of 1 and -1 for them, up to each byte.
 */
static inline bool keeps_nest(const char *p, unsigned nest, unsigned nest_max)
{
    __m128i sum = _mm_setzero_si128(), low = sum, high = sum;
    for (int i = 0; i < 64; i += 16) {
        __m128i bytes = block_part(p + i), before = _mm_set1_epi8((char)(_mm_extract_epi16(sum, 7) >> 8));
        sum = _mm_sub_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(']')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('[')));
        sum = _mm_add_epi8(sum, _mm_slli_si128(sum, 1));
        sum = _mm_add_epi8(sum, _mm_slli_si128(sum, 2));
        sum = _mm_add_epi8(sum, _mm_slli_si128(sum, 4));
        sum = _mm_add_epi8(_mm_add_epi8(sum, _mm_slli_si128(sum, 8)), before);
        low = _mm_or_si128(low, _mm_cmplt_epi8(sum, _mm_set1_epi8((char)(1 - (int)nest))));
        high = _mm_or_si128(high, _mm_cmpgt_epi8(sum, _mm_set1_epi8((char)(nest_max - nest))));
    }
    return _mm_movemask_epi8(_mm_or_si128(low, high)) == 0;
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
        struct block block = block_load(p);
        uint64_t quotes = block_where(&block, '"') & ~block_escaped(block_where(&block, '\\'), &carry);
        if (quotes != 0)
            return p + __builtin_ctzll(quotes);
    }
    return skip_rest(p + (carry != 0 && p != end), end);
}

const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max)
{
    struct before before = {.separator = 1};
    const char *done = p;
    unsigned depth = *nest;
    for (; end - p >= 64; p += 64) {
        struct list_block list = read_list(p, &before);
        if ((list.opens | list.closes) != 0 && (list.quotes != 0 || !keeps_nest(p, depth, nest_max)))
            limit_nest(&list, depth, nest_max);
        uint64_t commas = list.commas & list.good;
        if (commas != 0) {
            unsigned last = 63 - (unsigned)__builtin_clzll(commas);
            uint64_t upto = ~UINT64_C(0) >> (63 - last);
            done = p + last + 1;
            *nest = depth + block_count(list.opens & upto) - block_count(list.closes & upto);
        }
        /* A long text is for others. */
        if (list.good != ~UINT64_C(0) || (list.quotes | list.commas | list.opens | list.closes) == 0)
            break;
        depth += block_count(list.opens) - block_count(list.closes);
    }
    return done;
}

const char *body_skip_word_list(const char *start, const char *end, bool *spaced)
{
    const char *p = start;
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
    return p;
}

#else

const char *body_skip_escapes(const char *p, const char *end)
{
    return skip_rest(p, end);
}

const char *body_skip_list(const char *p, const char *end, unsigned *nest, unsigned nest_max)
{
    (void)end, (void)nest, (void)nest_max;
    return p;
}

const char *body_skip_word_list(const char *start, const char *end, bool *spaced)
{
    (void)end, (void)spaced;
    return start;
}

#endif
