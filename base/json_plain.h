/* Private to json_scan and strbuf: runs of a JSON string's bytes that need no closer look, which is nearly all of a
 * prompt. Made of what a processor finds in 16 bytes at a time, or in 8 without SSE2. Pure. */
#ifndef WEIR_BASE_JSON_PLAIN_H
#define WEIR_BASE_JSON_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>

static inline unsigned json_plain_bits(__m128i bytes)
{
    return (unsigned)_mm_movemask_epi8(bytes);
}

/* Marks quotes, backslashes, control characters but DEL, and the bytes of longer UTF-8 sequences. */
static inline __m128i json_plain_marks(__m128i bytes)
{
    __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    /* Signed: one comparison finds both those below ' ' and those above 7F. */
    return _mm_or_si128(ends, _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')));
}

/* Where the marked bytes are. */
static inline unsigned json_plain_special(__m128i bytes)
{
    return json_plain_bits(json_plain_marks(bytes));
}

/* Looks at 16 bytes that start with a character. Returns how many of them are whole, valid characters up to the first
 * whose bit is set in `stops`; 0 for what is left to strbuf_utf8_len: sequences of four bytes, and whatever is wrong.
 */
static inline size_t json_plain_skip_utf8(__m128i bytes, unsigned stops)
{
    /* Bytes are signed here, so that the order is 80 ... FF 00 ... 7F. */
    __m128i above_c1 = _mm_cmpgt_epi8(bytes, _mm_set1_epi8((char)0xC1));
    unsigned negative = json_plain_bits(bytes),
             follow = json_plain_bits(_mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xC0)));
    unsigned upper = follow & json_plain_bits(_mm_cmpgt_epi8(bytes, _mm_set1_epi8((char)0x9F))); /* A0 ... BF */
    unsigned lead2 = json_plain_bits(_mm_and_si128(above_c1, _mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xE0))));
    unsigned lead3 =
        json_plain_bits(_mm_and_si128(above_c1, _mm_cmplt_epi8(bytes, _mm_set1_epi8((char)0xF0)))) & ~lead2;
    unsigned e0 = json_plain_bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xE0)));
    unsigned ed = json_plain_bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xED)));
    unsigned len = stops != 0 ? (unsigned)__builtin_ctz(stops) : 16, within = (1U << len) - 1;

    lead2 &= within;
    lead3 &= within;
    unsigned wanted = (lead2 | lead3) << 1 | lead3 << 2;
    bool wrong = ((wanted ^ follow) & within) != 0 || ((lead2 | lead3 | follow) & within) != (negative & within) ||
                 ((e0 << 1 & ~upper) & within) != 0 || ((ed << 1 & upper) & within) != 0;
    if (wrong || (stops != 0 && (wanted & ~within) != 0))
        return 0;
    if (wanted >> 16 == 0)
        return len;
    return (lead2 | lead3) >> 15 != 0 ? 15 : 14; /* the last character goes on behind the 16 bytes */
}
#endif

/* The first byte in [p, end), where a character starts, that wants a closer look: a quote, a backslash, a control
 * character, or a longer UTF-8 sequence that was not found valid on the way. */
static inline const char *json_plain_skip(const char *p, const char *end)
{
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned special = json_plain_special(bytes);
        if (special == 0) {
            p += 16;
            continue;
        }
        unsigned negative = json_plain_bits(bytes), stops = special & ~negative;
        size_t len = negative != 0 ? json_plain_skip_utf8(bytes, stops) : 0;
        if (len == 0)
            return p + __builtin_ctz(special);
        p += len;
        if (stops != 0)
            return p;
    }
#else
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;

    while (end - p >= 8) {
        uint64_t bytes;
        memcpy(&bytes, p, 8);
        uint64_t quote = bytes ^ (ones * '"'), backslash = bytes ^ (ones * '\\');
        /* x - 01... sets the high bit where a byte of x was 0, and perhaps, by a borrow, in one after it. */
        if (((bytes | (bytes - ones * ' ') | (quote - ones) | (backslash - ones)) & highs) != 0)
            break;
        p += 8;
    }
#endif
    while (p != end && *p != '"' && *p != '\\' && (signed char)*p >= ' ')
        ++p;
    return p;
}

#endif
