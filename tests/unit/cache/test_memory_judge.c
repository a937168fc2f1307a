#include "memory_store.h"
#include <pthread.h>
#include <stdlib.h>

START_TEST(what_is_not_good_is_found_out_when_it_is_asked_for)
{
    static const struct {
        struct span body;
        bool judged, found;
    } cases[] = {
        {SPAN("{\"a\":1}"), false, true},
        {SPAN("{\"error\":null}"), false, true},
        {SPAN("{\"error\":\"no\"}"), false, false},
        {SPAN("{\"a\":"), false, false},
        {SPAN("<html>"), false, false},
        {SPAN("<html>"), true, true},
        {SPAN(""), false, false},
    };
    open_store(1 << 20, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cache_entry_parts parts = {
            .key = key_of(1), .status = 200, .rest = cases[i].body, .judged = cases[i].judged, .expires_us = MINUTE};
        struct cache_memory_counts before;
        cache_memory_counts(memory, &before);
        ck_assert(cache_memory_insert(memory, cache_entry_create(&parts), 0, 0));
        for (int again = 0; again < 2; again++)
            ck_assert_msg(is_there(1, 0) == cases[i].found, "%.*s", (int)cases[i].body.len, cases[i].body.base);
        cache_memory_counts(memory, &counts);
        ck_assert_uint_eq(counts.entries, cases[i].found);
        ck_assert_uint_eq(counts.hits - before.hits, cases[i].found ? 2 : 0);
        ck_assert_uint_eq(counts.misses - before.misses, cases[i].found ? 0 : 2);
        /* What is there goes only for what is good. */
        parts.rest = SPAN("{\"error\":1}");
        parts.judged = false;
        ck_assert_int_eq(cache_memory_insert(memory, cache_entry_create(&parts), 0, 0), !cases[i].found);
        ck_assert_int_eq(is_there(1, 0), cases[i].found);
        parts.rest = SPAN("{}");
        ck_assert(cache_memory_insert(memory, cache_entry_create(&parts), 0, 0));
        ck_assert(is_there(1, 0));
        cache_memory_remove(memory, &parts.key);
    }
    cache_memory_destroy(memory);
}
END_TEST

/* A plain answer that nobody judged, in two chunks if it is long. */
static struct cache_entry *make_plain(unsigned n, const char *head, size_t len, uint64_t expires_us)
{
    struct chunk *chunks[2];
    size_t front = len / 2, count = 0;
    char *body = malloc(len);
    memset(body, '1', len);
    memcpy(body, head, strlen(head));
    body[len - 1] = '}';
    if (len > 600) {
        chunks[count++] = chunk_adopt(memcpy(malloc(front), body, front), front, front);
        chunks[count++] = chunk_adopt(memcpy(malloc(len - front), body + front, len - front), len - front, len - front);
    }
    struct cache_entry_parts parts = {.key = key_of(n),
                                      .status = 200,
                                      .chunks = chunks,
                                      .chunk_count = count,
                                      .rest = {body, count == 0 ? len : 0},
                                      .expires_us = expires_us};
    struct cache_entry *entry = cache_entry_create(&parts);
    free(body);
    return entry;
}

START_TEST(what_is_in_several_chunks_is_judged_as_a_whole)
{
    open_store(1 << 20, 0);
    for (size_t len = 20; len < 40000; len = len * 3 / 2) {
        ck_assert(cache_memory_insert(memory, make_plain(1, "{\"a\":1", len, MINUTE), 0, 0));
        ck_assert(cache_memory_insert(memory, make_plain(2, "{\"error\":1", len, MINUTE), 0, 0));
        ck_assert(cache_memory_insert(memory, make_plain(3, "{\"a\":x", len, MINUTE), 0, 0));
        ck_assert(is_there(1, 0));
        ck_assert(!is_there(2, 0));
        ck_assert(!is_there(3, 0));
        cache_memory_remove(memory, &(struct cache_key[]){key_of(1)}[0]);
    }
    cache_memory_destroy(memory);
}
END_TEST

static bool insert_plain(unsigned n, const char *head)
{
    return cache_memory_insert(memory, make_plain(n, head, 500, MINUTE), 0, 0);
}

/* A backend that fails with 200s does not empty a full store, neither all the time nor now and then. */
START_TEST(what_is_not_good_hardly_takes_places)
{
    open_store(200000, 0);
    unsigned good = 0, left = 0;
    for (cache_memory_counts(memory, &counts); counts.evictions == 0; cache_memory_counts(memory, &counts))
        ck_assert(insert_plain(good++, "{\"a\":1"));
    ck_assert_uint_gt(good, 200);
    for (unsigned i = 0; i < 2000; i++)
        insert_plain(1000 + i, i % 2 == 0 ? "{\"error\":1" : "<html>");
    for (unsigned i = 0; i < good; i++)
        left += is_there(i, 0);
    ck_assert_uint_ge(left, good - 17);
    for (unsigned i = 0; i < 16; i++) { /* what is good still does */
        ck_assert(insert_plain(4000 + i, "{\"a\":1"));
        ck_assert(is_there(4000 + i, 0));
        ck_assert(!insert_plain(5000 + i, "{\"error\":1"));
    }
    for (unsigned i = 0; i < 5000; i++) /* nothing bad for long: it is looked for less */
        ck_assert(insert_plain(6000 + i, "{\"a\":1"));
    for (unsigned i = left = 0; i < 16; i++)
        left += insert_plain(20000 + i, "{\"error\":1");
    ck_assert_uint_gt(left, 0);
    ck_assert_uint_lt(left, 16);
    for (unsigned i = 0; i < 5000; i++)
        ck_assert(insert_plain(30000 + i, "{\"a\":1"));
    cache_memory_counts(memory, &counts);
    while (counts.stores % 16 != 1) { /* just looked */
        ck_assert(insert_plain(40000 + (unsigned)counts.stores, "{\"a\":1"));
        cache_memory_counts(memory, &counts);
    }
    ck_assert(insert_plain(50000, "{\"error\":1"));
    ck_assert(!is_there(50000, 0));             /* which warns, too */
    ck_assert(insert_plain(50001, "{\"a\":1")); /* there was room for that */
    ck_assert(!insert_plain(50002, "{\"error\":1"));
    cache_memory_destroy(memory);
}
END_TEST

/* Plain answers, of which every other one is bad, each in the place of the one before. */
static void *work_plain(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < 6000; i++) {
        unsigned n = (seed = seed * 1103515245u + 12345u) >> 16 & 63;
        struct cache_key key = key_of(n);
        bool good = (seed >> 24 & 1) != 0;
        cache_memory_insert(memory, make_plain(n, good ? "{\"a\":1" : "{\"error\":1", 3000 + n, i + 3000),
                            cache_memory_purges(memory), i);
        struct cache_entry *entry = cache_memory_lookup(memory, &key, i);
        if (entry == NULL)
            continue;
        if (entry->chunk_count != 2 || chunk_bytes(cache_entry_chunks(entry)[0]).base[2] != 'a')
            abort();
        cache_entry_release(entry);
    }
    return arg;
}

START_TEST(threads_judge_in_one_store)
{
    pthread_t threads[3];
    open_store(150000, 0); /* for most of them */
    for (uintptr_t i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work_plain, (void *)(i + 1)), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    cache_memory_counts(memory, &counts);
    ck_assert_uint_le(counts.bytes, 150000);
    ck_assert_uint_gt(counts.hits, 0);
    cache_memory_purge(memory, NULL, NULL);
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries, 0);
    ck_assert_uint_eq(counts.bytes, 0);
    cache_memory_destroy(memory);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("judge");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, what_is_not_good_is_found_out_when_it_is_asked_for);
    tcase_add_test(tests, what_is_in_several_chunks_is_judged_as_a_whole);
    tcase_add_test(tests, what_is_not_good_hardly_takes_places);
    tcase_add_test(tests, threads_judge_in_one_store);
    return run_suite("cache memory judge", tests);
}
