#include "cache/blanks.h"
#ifdef __x86_64__
#include <tmmintrin.h>
#endif

void blanks_init(struct blanks *blanks)
{
    *blanks = (struct blanks){._shuffles = false};
#ifdef __x86_64__
    blanks->_shuffles = __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("popcnt");
#endif
    for (unsigned mask = 0; mask < 256; mask++)
        for (unsigned i = 0, kept = 0; i < 8; i++)
            if ((mask >> i & 1) == 0)
                blanks->_order[mask][kept++] = (uint8_t)i;
}

#ifdef __x86_64__
/* Eight bytes at a time; *from and *left are moved past what was done. No branch depends on the text. */
__attribute__((target("ssse3,popcnt"))) static size_t shuffle(const struct blanks *blanks, unsigned char *to,
                                                              const char **from, size_t *left)
{
    const char *p = *from;
    size_t kept = 0, len = *left;
    for (; len >= 8; p += 8, len -= 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)p);
        __m128i lines =
            _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\n')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\r')));
        __m128i others =
            _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t')));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(lines, others)) & 0xFF;
        __m128i order = _mm_loadl_epi64((const __m128i *)(const void *)blanks->_order[mask]);
        /* Writes eight bytes however many stay: what has been read so far is room enough. */
        _mm_storel_epi64((__m128i *)(void *)(to + kept), _mm_shuffle_epi8(bytes, order));
        kept += 8 - (size_t)__builtin_popcount(mask);
    }
    *from = p;
    *left = len;
    return kept;
}
#endif

size_t blanks_drop(const struct blanks *blanks, unsigned char *to, const char *from, size_t len)
{
    size_t kept = 0;
#ifdef __x86_64__
    if (blanks->_shuffles)
        kept = shuffle(blanks, to, &from, &len);
#endif
    /* Branches would be guessed wrong at each short token, so there are none. */
    for (size_t i = 0; i < len; i++) {
        to[kept] = (unsigned char)from[i];
        kept += !body_is_blank(from[i]);
    }
    return kept;
}
