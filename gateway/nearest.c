#include "gateway/nearest.h"

#define LEN_MAX 32

/* Levenshtein's distance, a transposition of neighbours counting once. Both at most LEN_MAX. */
static size_t distance(struct span a, struct span b)
{
    size_t rows[3][LEN_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];

    for (size_t j = 0; j <= b.len; j++)
        last[j] = before[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t best = last[j - 1] + (a.base[i - 1] != b.base[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a.base[i - 1] == b.base[j - 2] && a.base[i - 2] == b.base[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b.len];
}

const char *nearest_name(struct span name, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    /* Further away than a third of its length, a name is another word. */
    size_t best = (name.len < 4 ? 1 : name.len / 3) + 1;

    if (name.len > LEN_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        struct span candidate = span_of(names[i]);
        if (candidate.len > LEN_MAX)
            continue;
        size_t d = distance(name, candidate);
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
