#include "cache/blanks.h"
#include "cache/block.h"
#include <string.h>
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
/* Which of 16 bytes are blanks: those that are what stands in the table at their lower half. */
__attribute__((target("ssse3"))) static inline __m128i blanks_in(__m128i bytes)
{
    const __m128i table = _mm_setr_epi8(' ', 0, 0, 0, 0, 0, 0, 0, 0, '\t', '\n', 0, 0, '\r', 0, 0);
    return _mm_cmpeq_epi8(bytes, _mm_shuffle_epi8(table, bytes));
}

/* Copies eight bytes but those in the mask; returns how many. */
__attribute__((target("ssse3,popcnt"))) static inline size_t copy_others(const struct blanks *blanks, unsigned char *to,
                                                                         const char *from, unsigned mask)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)from);
    __m128i order = _mm_loadl_epi64((const __m128i *)(const void *)blanks->_order[mask]);
    _mm_storel_epi64((__m128i *)(void *)to, _mm_shuffle_epi8(bytes, order));
    return 8 - (size_t)__builtin_popcount(mask);
}

/* 64 bytes at a time; *from and *left are moved past what was done. No branch depends on where blanks are. */
__attribute__((target("ssse3,popcnt"))) static size_t shuffle(const struct blanks *blanks, struct blanks_state *state,
                                                              unsigned char *to, const char **from, size_t *left)
{
    const char *p = *from;
    size_t kept = 0, len = *left;
    for (; len >= 64; p += 64, len -= 64) {
        struct block block = block_load(p);
        uint64_t slashes = block_where(&block, '\\'), quotes = block_where(&block, '"');
        if ((slashes | state->escaped) != 0)
            quotes &= ~block_escaped(slashes, &state->escaped);
        uint64_t inside = block_parity(quotes) ^ state->inside;
        uint64_t drop =
            block_mask(blanks_in(block.a), blanks_in(block.b), blanks_in(block.c), blanks_in(block.d)) & ~inside;
        state->inside = 0 - (inside >> 63);
        if (drop == 0) {
            memcpy(to + kept, p, 64);
            kept += 64;
            continue;
        }
        /* Each writes eight bytes however many stay: what has been read so far is room enough. */
        for (unsigned i = 0; i < 64; i += 8)
            kept += copy_others(blanks, to + kept, p + i, drop >> i & 0xFF);
    }
    *from = p;
    *left = len;
    return kept;
}
#endif

size_t blanks_drop(const struct blanks *blanks, struct blanks_state *state, unsigned char *to, const char *from,
                   size_t len)
{
    size_t kept = 0;
#ifdef __x86_64__
    if (blanks->_shuffles)
        kept = shuffle(blanks, state, to, &from, &len);
#endif
    bool inside = state->inside != 0, escaped = state->escaped != 0;
    for (size_t i = 0; i < len; i++) {
        char c = from[i];
        to[kept] = (unsigned char)c;
        kept += inside || !body_is_blank(c);
        inside ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    *state = (struct blanks_state){inside ? ~UINT64_C(0) : 0, escaped};
    return kept;
}
