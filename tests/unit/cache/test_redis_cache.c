#include "redis_store.h"

START_TEST(test_small_answers)
{
    struct client client = {.done = false};
    const struct {
        bool sse;
        size_t bytes;
    } sizes[] = {{false, 1}, {true, 1}, {true, 4000}, {false, 65000}, {true, REDIS_VALUE_INLINE_MAX - 30}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char c = (char)('a' + i);
        put(c, sizes[i].sse, sizes[i].bytes);
        ck_assert(!in_memory(c));
        look_up(&client, c);
        ck_assert_ptr_nonnull(client.entry);
        ck_assert(client.whole && client.entry->sse == sizes[i].sse);
        ck_assert_uint_eq(client.entry->prompt_tokens, 4);
        ck_assert_uint_eq(client.entry->bytes, text.len);
        ck_assert_uint_le(cache_entry_age(client.entry, clock_us()), 60); /* seconds; of its 600 it has all before it */
        ck_assert(in_memory(c));
        dispose(&client);
    }
    ck_assert_int_eq(tell("DBSIZE"), 5);
    ck_assert_int_eq(
        over_keys("*", "if redis.call('PTTL', k) < 500000 or redis.call('PTTL', k) > 600000 then n = n + 1 end"), 0);
}
END_TEST

START_TEST(test_large_answers_come_in_pieces)
{
    struct client client = {.done = false};
    for (int sse = 0; sse < 2; sse++) {
        char c = (char)('a' + sse);
        put(c, sse, 5 << 20);
        look_up(&client, c);
        ck_assert_ptr_nonnull(client.entry);
        ck_assert(!client.whole && client.entry->chunk_count == 0);
        ck_assert_uint_eq(client.entry->bytes, text.len);
        char etag[CACHE_ETAG_SIZE];
        ck_assert_int_eq(cache_entry_etag(client.entry, etag)[0], sse ? '\0' : '"');
        ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
        ck_assert_int_eq(client.state, STREAM_ENDED);
        ck_assert(span_eq(strbuf_span(&client.got), strbuf_span(&text)));
        ck_assert(in_memory(c));
        dispose(&client);
    }
    ck_assert_int_ge(tell("DBSIZE"), 2 * 81);
    ck_assert_int_eq(over_keys("*", "if redis.call('STRLEN', k) > 70000 then n = n + 1 end"), 0);
    ck_assert_int_eq(over_keys("w:c:*:*", "if redis.call('PTTL', k) < 1100000 then n = n + 1 end"), 0);
}
END_TEST

START_TEST(test_a_slow_reader_holds_the_fetching_back)
{
    struct client client = {.paused = true};
    put('a', true, 5 << 20);
    look_up(&client, 'a');
    for (int i = 0; i < 2000 && stream_unread(&client.subscriber) < REDIS_VALUE_PIECE; i++)
        redis_loop_run(&loop, NULL, 5);
    redis_loop_run(&loop, NULL, 200);
    ck_assert_uint_le(stream_unread(&client.subscriber), 512 << 10);
    ck_assert_uint_ge(stream_unread(&client.subscriber), REDIS_VALUE_PIECE);
    client.paused = false;
    on_data(&client.subscriber);
    ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
    ck_assert(span_eq(strbuf_span(&client.got), strbuf_span(&text)));
    dispose(&client);
}
END_TEST

START_TEST(test_readers_that_leave)
{
    struct client client = {.paused = true};
    put('a', true, 2 << 20);
    look_up(&client, 'a'); /* in the middle */
    redis_loop_run(&loop, NULL, 50);
    stream_unsubscribe(&client.subscriber);
    dispose(&client);
    client.reads = true;
    ck_assert(start(&client, 'a')); /* while it is looked up */
    redis_lookup_cancel(&client.lookup);
    redis_loop_run(&loop, NULL, 50);
    ck_assert(!client.done);
    ck_assert(start(&client, 'a')); /* between the head and the first piece */
    for (int i = 0; i < 1000 && client.lookup._pieces == NULL; i++)
        h2o_evloop_run(loop.ctx.loop, 1);
    ck_assert_ptr_nonnull(client.lookup._pieces);
    redis_lookup_cancel(&client.lookup);
    redis_loop_run(&loop, NULL, 50);
    ck_assert(!client.done && !in_memory('a'));
    client.reads = false; /* who wants no body: a 304 */
    ck_assert(start(&client, 'a'));
    ck_assert(redis_loop_run(&loop, &client.done, LONG_MS));
    ck_assert_ptr_nonnull(client.entry);
    dispose(&client);
    client.paused = true; /* the store's end */
    look_up(&client, 'a');
    redis_cache_close(store);
    ck_assert_int_eq(stream_state(client.subscriber._stream), STREAM_BROKEN);
    stream_unsubscribe(&client.subscriber);
    dispose(&client);
}
END_TEST

START_TEST(test_what_is_not_whole_is_a_miss)
{
    struct client client = {.done = false};
    put('a', true, 1 << 20);
    over_keys("w:c:*:7", "redis.call('DEL', k)"); /* a piece is gone */
    look_up(&client, 'a');
    ck_assert_ptr_null(client.entry);
    put('b', true, 1 << 20);
    over_keys("w:c:*:0", "redis.call('SETRANGE', k, 300, 'xxxx')"); /* the first is changed */
    look_up(&client, 'b');
    ck_assert_ptr_null(client.entry);
    put('c', true, 100);
    over_keys("w:c:6363*", "redis.call('APPEND', k, 'x')");
    look_up(&client, 'c');
    ck_assert_ptr_null(client.entry);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_CORRUPT), 2);
    over_keys("w:c:6363*", "redis.call('DEL', k) redis.call('LPUSH', k, 'x')"); /* another type */
    look_up(&client, 'c');
    ck_assert_ptr_null(client.entry);
    put('d', true, 100); /* one answer in the place of another */
    over_keys("w:c:6464*", "redis.call('COPY', k, 'w:c:' .. string.rep('65', 32))");
    look_up(&client, 'e');
    ck_assert_ptr_null(client.entry);
    over_keys("w:c:6464*", "redis.call('SETRANGE', k, 20000000, 'x')"); /* too long to be ours: not read whole */
    look_up(&client, 'd');
    ck_assert_ptr_null(client.entry);
}
END_TEST

START_TEST(test_a_piece_that_goes_during_a_replay_breaks_the_stream)
{
    struct client client = {.paused = true};
    put('a', true, 4 << 20);
    look_up(&client, 'a');
    redis_loop_run(&loop, NULL, 50);
    over_keys("w:c:*:40", "redis.call('DEL', k)");
    client.paused = false;
    on_data(&client.subscriber);
    ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
    ck_assert_int_eq(client.state, STREAM_BROKEN);
    ck_assert_uint_le(client.got.len, 40 * REDIS_VALUE_PIECE);
    ck_assert_uint_ge(client.got.len, 40 * REDIS_VALUE_PIECE - 100);
    ck_assert_msg(memcmp(client.got.base + client.got.len - 2, "\n\n", 2) == 0, "between two events");
    ck_assert(memcmp(client.got.base, text.base, client.got.len) == 0);
    ck_assert(!in_memory('a'));
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_BROKEN), 1);
    dispose(&client);
}
END_TEST

START_TEST(test_a_lost_connection_does_not_break_a_replay)
{
    struct client client = {.paused = true};
    put('a', true, 4 << 20);
    look_up(&client, 'a');
    redis_loop_run(&loop, NULL, 50);
    client.paused = false;
    redis_server_tell(&server, "CLIENT KILL TYPE normal");
    on_data(&client.subscriber);
    ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
    ck_assert_int_eq(client.state, STREAM_ENDED);
    ck_assert(span_eq(strbuf_span(&client.got), strbuf_span(&text)));
    dispose(&client);
}
END_TEST

START_TEST(test_a_server_that_is_gone_or_frozen)
{
    struct client client = {.done = false};
    teardown();
    redis_server_prepare(&server);
    redis_server_start(&server, NULL);
    redis_loop_init(&loop);
    is_up = false;
    open_store(50000);
    put('a', true, 100);
    kill(server.pid, SIGSTOP);
    uint64_t before = clock_us();
    client.reads = true;
    ck_assert(start(&client, 'a'));
    ck_assert(redis_loop_run(&loop, &client.done, LONG_MS));
    ck_assert_ptr_null(client.entry);
    ck_assert_uint_ge(clock_us() - before, 40000);
    ck_assert(!client.lookup.birth.has_epoch);
    ck_assert_msg(!start(&client, 'a'), "it was late: not asked again at once");
    kill(server.pid, SIGCONT);
    bool there = false;
    for (int i = 0; i < 300 && !there; i++) {
        redis_loop_run(&loop, NULL, 20);
        client = (struct client){.reads = true};
        there = start(&client, 'a') && redis_loop_run(&loop, &client.done, LONG_MS) && client.entry != NULL;
        dispose(&client);
    }
    ck_assert(there);
    redis_server_kill(&server);
    redis_loop_run(&loop, NULL, 50);
    client = (struct client){.reads = true};
    ck_assert(!start(&client, 'a'));
    struct cache_birth birth = {.has_epoch = true};
    struct cache_entry *entry = make('a', true, 100);
    redis_cache_put(store, entry, &birth);
    cache_entry_release(entry);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_NOT_WRITTEN), 1);
}
END_TEST

START_TEST(test_what_waits_for_redis_is_bounded)
{
    struct cache_birth birth = birth_of('a');
    kill(server.pid, SIGSTOP);
    struct cache_entry *entry = make('a', true, 3 << 20);
    for (int i = 0; i < 10; i++)
        redis_cache_put(store, entry, &birth);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_PASSED_BY), 5);
    birth.has_epoch = false;
    struct cache_entry *unborn = make('b', true, 100);
    redis_cache_put(store, unborn, &birth);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_PASSED_BY), 5);
    cache_entry_release(unborn);
    kill(server.pid, SIGCONT);
    for (int i = 0; i < 2000 && redis_cache_count(store, REDIS_CACHE_WRITTEN) < 5; i++)
        redis_loop_run(&loop, NULL, 5);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_WRITTEN), 5);
    cache_entry_release(entry);
    kill(server.pid, SIGSTOP); /* the end comes while they wait */
    entry = make('a', true, 3 << 20);
    birth.has_epoch = true;
    for (int i = 0; i < 3; i++)
        redis_cache_put(store, entry, &birth);
    cache_entry_release(entry);
    kill(server.pid, SIGCONT);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_cache");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_small_answers);
    tcase_add_test(tc, test_large_answers_come_in_pieces);
    tcase_add_test(tc, test_a_slow_reader_holds_the_fetching_back);
    tcase_add_test(tc, test_readers_that_leave);
    tcase_add_test(tc, test_what_is_not_whole_is_a_miss);
    tcase_add_test(tc, test_a_piece_that_goes_during_a_replay_breaks_the_stream);
    tcase_add_test(tc, test_a_lost_connection_does_not_break_a_replay);
    tcase_add_test(tc, test_a_server_that_is_gone_or_frozen);
    tcase_add_test(tc, test_what_waits_for_redis_is_bounded);
    return run_suite("redis_cache", tc);
}
