#include "redis_store.h"

struct purging {
    struct redis_purge purge;
    bool done, purged;
};

static void on_purged(struct redis_purge *purge, bool purged, enum redis_failure why)
{
    struct purging *purging = H2O_STRUCT_FROM_MEMBER(struct purging, purge, purge);
    (void)why;
    purging->done = true;
    purging->purged = purged;
}

static void purge(struct span scope_name, struct span model)
{
    struct purging purging = {.purge.on_done = on_purged};
    struct redis_purge_target target = {scope_name, model};
    enum redis_failure why;
    ck_assert(redis_purge_send(&purging.purge, up_link, SPAN("w:"), &origin, &target, TTL_US, &why));
    ck_assert(redis_loop_run(&loop, &purging.done, LONG_MS));
    ck_assert(purging.purged);
}

static bool is_there(char c)
{
    struct client client = {.done = false};
    look_up(&client, c);
    bool there = client.entry != NULL;
    dispose(&client);
    return there;
}

START_TEST(test_purges)
{
    struct client client = {.done = false};
    const struct {
        struct span scope_name, model;
        bool hits;
    } purges[] = {
        {SPAN_NONE, SPAN_NONE, true},         {SPAN("alice"), SPAN_NONE, true},      {SPAN_NONE, SPAN("llama"), true},
        {SPAN("alice"), SPAN("llama"), true}, {SPAN("bob"), SPAN_NONE, false},       {SPAN_NONE, SPAN("qwen"), false},
        {SPAN("bob"), SPAN("llama"), false},  {SPAN("alice"), SPAN("qwen"), false},  {SPAN_NONE, SPAN("alice"), false},
        {SPAN("llama"), SPAN_NONE, false},    {SPAN("ali"), SPAN("cellama"), false},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof(purges) / sizeof(purges[0]); i++) {
            put('a', true, 100);
            ck_assert(is_there('a'));
            struct cache_birth before = birth_of('a');
            purge(purges[i].scope_name, purges[i].model);
            ck_assert_msg(is_there('a') != purges[i].hits, "purge %zu", i);
            if (!purges[i].hits)
                continue;
            /* An answer that was asked for before the purge and comes after it. */
            struct cache_entry *entry = make('a', true, 100);
            redis_cache_put(store, entry, &before);
            cache_entry_release(entry);
            redis_loop_run(&loop, NULL, 20);
            ck_assert_msg(!is_there('a'), "purge %zu", i);
        }
    }
    dispose(&client);
    ck_assert_int_eq(over_keys("w:p:*", "n = n + 1"), 12);
    ck_assert_int_eq(over_keys("w:p:*", "if redis.call('PTTL', k) < 1 then n = n + 1 end"), 0);
}
END_TEST

START_TEST(test_others_purges_reach_memory)
{
    struct redis_purge_origin own;
    redis_purge_origin_init(&own);
    struct redis_purge_watch *watch = redis_purge_watch_create(up_link, &loop.deadlines, memory, SPAN("w:"), &own);
    redis_loop_run(&loop, NULL, 50);
    const struct {
        struct span scope_name, model;
        bool hits;
    } purges[] = {{SPAN("bob"), SPAN_NONE, false},
                  {SPAN("alice"), SPAN_NONE, true},
                  {SPAN_NONE, SPAN("qwen"), false},
                  {SPAN_NONE, SPAN("llama"), true},
                  {SPAN_NONE, SPAN_NONE, true}};
    for (size_t i = 0; i < sizeof(purges) / sizeof(purges[0]); i++) {
        uint64_t born = cache_memory_purges(memory);
        cache_memory_insert(memory, make('a', true, 100), born, clock_us());
        ck_assert(in_memory('a'));
        purge(purges[i].scope_name, purges[i].model);
        for (int n = 0; n < 2000 && cache_memory_purges(memory) == born; n++)
            redis_loop_run(&loop, NULL, 10);
        ck_assert_msg(cache_memory_purges(memory) != born, "purge %zu is not heard of", i);
        ck_assert_msg(in_memory('a') != purges[i].hits, "purge %zu", i);
        cache_memory_purge(memory, NULL, NULL);
    }
    /* More than the list holds, at once, so that nobody can look in between. Each begins with 32 digits of its own. */
    uint64_t born = cache_memory_purges(memory);
    cache_memory_insert(memory, make('a', true, 100), born, clock_us());
    purge(SPAN("bob"), SPAN_NONE);
    over_keys("w:p:log", "local rest = string.sub(redis.call('LINDEX', k, 0), 33) for i = 1, 80 do "
                         "redis.call('LPUSH', k, string.format('%032x', i) .. rest) end "
                         "redis.call('LTRIM', k, 0, 63)");
    for (int n = 0; n < 2000 && in_memory('a'); n++)
        redis_loop_run(&loop, NULL, 10);
    ck_assert(!in_memory('a'));
    redis_purge_watch_destroy(watch);
    redis_purge_watch_destroy(NULL);
}
END_TEST

START_TEST(test_own_purges_are_passed_over)
{
    struct redis_purge_watch *watch = redis_purge_watch_create(up_link, &loop.deadlines, memory, SPAN("w:"), &origin);
    redis_loop_run(&loop, NULL, 50);
    purge(SPAN_NONE, SPAN_NONE);
    uint64_t born = cache_memory_purges(memory);
    redis_loop_run(&loop, NULL, 900);
    ck_assert_uint_eq(cache_memory_purges(memory), born);
    redis_purge_watch_destroy(watch);
}
END_TEST

/* What Redis says may be older than a purge that memory has seen by now: the client gets it, nobody after it does. */
START_TEST(test_what_comes_behind_a_purge_stays_out_of_memory)
{
    static const size_t sizes[] = {100, 5 << 20}; /* whole, and in pieces */
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int purges = 1; purges >= 0; purges--) {
            struct client client = {.reads = true};
            char c = (char)('a' + i);
            put(c, true, sizes[i]);
            ck_assert(start(&client, c));
            if (purges == 1)
                cache_memory_purge(memory, NULL, NULL);
            ck_assert(redis_loop_run(&loop, &client.done, LONG_MS));
            ck_assert_ptr_nonnull(client.entry);
            ck_assert_int_eq(client.whole, i == 0);
            if (i != 0)
                ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
            ck_assert_msg(in_memory(c) == (purges == 0), "%zu bytes, %d purges", sizes[i], purges);
            dispose(&client);
            cache_memory_purge(memory, NULL, NULL);
            tell("FLUSHALL");
        }
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_purge");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_purges);
    tcase_add_test(tc, test_others_purges_reach_memory);
    tcase_add_test(tc, test_own_purges_are_passed_over);
    tcase_add_test(tc, test_what_comes_behind_a_purge_stays_out_of_memory);
    return run_suite("redis_purge", tc);
}
