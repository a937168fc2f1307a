/* 64 bytes of text at a time, as masks of which bytes are what. Pure. A private part of cache/key, for processors that
 * have SSE2. */
#ifndef WEIR_CACHE_BLOCK_H
#define WEIR_CACHE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>

/* 64 bytes; in masks of them the first byte is bit 0. No loops over the four parts: they would live in memory. */
struct block {
    __m128i a, b, c, d;
};

static inline __m128i block_part(const char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline struct block block_load(const char *p)
{
    return (struct block){block_part(p), block_part(p + 16), block_part(p + 32), block_part(p + 48)};
}

static inline uint64_t block_mask(__m128i a, __m128i b, __m128i c, __m128i d)
{
    uint64_t low = (unsigned)_mm_movemask_epi8(a) | (unsigned)_mm_movemask_epi8(b) << 16;
    uint64_t high = (unsigned)_mm_movemask_epi8(c) | (unsigned)_mm_movemask_epi8(d) << 16;
    return low | high << 32;
}

/* Where the byte `c` is. */
static inline uint64_t block_where(const struct block *block, char c)
{
    __m128i byte = _mm_set1_epi8(c);
    return block_mask(_mm_cmpeq_epi8(block->a, byte), _mm_cmpeq_epi8(block->b, byte), _mm_cmpeq_epi8(block->c, byte),
                      _mm_cmpeq_epi8(block->d, byte));
}

/* The bytes behind an odd number of backslashes, of a block whose backslashes these are; *carry: whether the first byte
 * is one, of this block and then of the next. Adding a run's first bit to its bits leaves one bit, behind the run; the
 * run is odd if that bit is at an even place and the first was not, or the other way round. */
static inline uint64_t block_escaped(uint64_t slashes, uint64_t *carry)
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
static inline uint64_t block_parity(uint64_t bits)
{
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    return bits ^ bits << 32;
}

/* How many bits are set; the instruction for it is not in every processor that has SSE2. */
static inline unsigned block_count(uint64_t bits)
{
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    return (unsigned)(((bits + (bits >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101) >> 56);
}

#endif

#endif
