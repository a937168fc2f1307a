/* Reads vectors.txt, which says what it consists of, and holds an implementation of the strategies to it. */
#ifndef WEIR_TESTS_VECTORS_H
#define WEIR_TESTS_VECTORS_H

#include "ratelimit/strategy.h"
#include "run_suite.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define VECTOR_HITS_MAX 256

/* The implementation. `nth` counts the hits on a limit, from 0; the numbers are those after the call. */
struct vectors_of {
    void (*limit)(enum limit_strategy strategy, const struct limit *limit); /* a fresh one, for all that follows */
    bool (*hit)(unsigned nth, uint64_t now, uint64_t cost, uint64_t *retry, struct strategy_numbers *numbers);
    void (*adjust)(unsigned nth, uint64_t now, int64_t delta, struct strategy_numbers *numbers);
};

/* Where the reader is. */
struct vectors_place {
    char name[128];
    unsigned line, hits, vectors;
};

static inline void vectors_expect(const struct vectors_place *at, const struct strategy_numbers *numbers,
                                  const struct strategy_numbers *expected)
{
    ck_assert_msg(numbers->remaining == expected->remaining && numbers->reset_us == expected->reset_us &&
                      numbers->full_us == expected->full_us,
                  "line %u, %s: remaining %" PRIu64 " reset %" PRIu64 " full %" PRIu64, at->line, at->name,
                  numbers->remaining, numbers->reset_us, numbers->full_us);
}

static inline void vectors_limit(struct vectors_place *at, const struct vectors_of *of, const char *text)
{
    enum limit_strategy strategy;
    struct limit limit;
    struct limit_error error;
    size_t count, len = strcspn(text, " ");
    ck_assert(limit_strategy_parse((struct span){text, len}, &strategy));
    ck_assert_msg(limit_parse(span_of(text + len), &limit, 1, &count, &error), "line %u: %s", at->line, error.message);
    of->limit(strategy, &limit);
    at->hits = 0;
    at->vectors++;
}

static inline void vectors_hit(struct vectors_place *at, const struct vectors_of *of, const char *text)
{
    uint64_t now, cost, retry = 0;
    struct strategy_numbers expected, numbers;
    char verdict[16], retry_text[32];
    ck_assert_int_eq(sscanf(text, "%" SCNu64 " %" SCNu64 " = %15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %31s", &now,
                            &cost, verdict, &expected.remaining, &expected.reset_us, &expected.full_us, retry_text),
                     7);
    ck_assert_uint_lt(at->hits, VECTOR_HITS_MAX);
    bool allowed = of->hit(at->hits++, now, cost, &retry, &numbers);
    uint64_t expected_retry = strcmp(retry_text, "never") == 0 ? STRATEGY_NEVER : strtoull(retry_text, NULL, 10);
    ck_assert_msg(allowed == (strcmp(verdict, "allowed") == 0) && retry == expected_retry,
                  "line %u, %s: allowed %d retry %" PRIu64, at->line, at->name, allowed, retry);
    vectors_expect(at, &numbers, &expected);
}

static inline void vectors_adjust(struct vectors_place *at, const struct vectors_of *of, const char *text)
{
    uint64_t now;
    int64_t delta;
    unsigned nth;
    struct strategy_numbers expected, numbers;
    ck_assert_int_eq(sscanf(text, "%" SCNu64 " %u %" SCNd64 " = %" SCNu64 " %" SCNu64 " %" SCNu64, &now, &nth, &delta,
                            &expected.remaining, &expected.reset_us, &expected.full_us),
                     6);
    ck_assert_uint_lt(nth, at->hits);
    of->adjust(nth, now, delta, &numbers);
    vectors_expect(at, &numbers, &expected);
}

/* Holds the implementation to all of the file. */
static inline void vectors_check(const struct vectors_of *of)
{
    struct vectors_place at = {.line = 0};
    FILE *file = fopen(TEST_DATA "/ratelimit/vectors.txt", "r");
    char line[512];
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        at.line++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (strncmp(line, "vector ", 7) == 0)
            snprintf(at.name, sizeof(at.name), "%.120s", line + 7);
        else if (strncmp(line, "limit ", 6) == 0)
            vectors_limit(&at, of, line + 6);
        else if (strncmp(line, "hit ", 4) == 0)
            vectors_hit(&at, of, line + 4);
        else if (strncmp(line, "adjust ", 7) == 0)
            vectors_adjust(&at, of, line + 7);
        else
            ck_abort_msg("line %u: %s", at.line, line);
    }
    fclose(file);
    ck_assert_uint_ge(at.vectors, 90);
}

#endif
