#include "base/clock.h"
#include "cache/redis_cache.h"
#include "redis_server.h"
#include "run_suite.h"

#define LONG_MS 20000 /* a busy machine; nothing here should need it */
#define TTL_US ((uint64_t)600 * 1000000)

static struct redis_server server;
static struct redis_loop loop;
static struct redis_link *up_link;
static struct redis_url url;
static bool is_up;
static struct cache_memory *memory;
static struct redis_cache *store;
static struct redis_purge_origin origin;

static void on_state(void *ctx, bool up, const char *why)
{
    (void)ctx;
    (void)why;
    is_up = up;
}

static void open_store(uint64_t timeout_us)
{
    char text[128], error[256];
    snprintf(text, sizeof(text), "unix://%s", server.path);
    ck_assert(redis_url_parse(span_of(text), &url, error, sizeof(error)));
    struct redis_link_settings settings = {.url = &url, .timeout_us = timeout_us, .name = "test", .on_state = on_state};
    up_link = redis_link_create(&settings, &loop.ctx, &loop.deadlines);
    ck_assert(redis_loop_run(&loop, &is_up, LONG_MS));
    memory = cache_memory_create(&(struct cache_memory_settings){.max_bytes = 64 << 20, .max_entry = 16 << 20});
    struct redis_cache_settings store_settings = {.link = up_link,
                                                  .deadlines = &loop.deadlines,
                                                  .memory = memory,
                                                  .prefix = SPAN("w:"),
                                                  .timeout_us = timeout_us,
                                                  .ttl_us = TTL_US};
    store = redis_cache_create(&store_settings);
    redis_purge_origin_init(&origin);
}

static void setup(void)
{
    redis_server_prepare(&server);
    redis_server_start(&server, NULL);
    redis_loop_init(&loop);
    is_up = false;
    open_store(10000000);
}

static void teardown(void)
{
    redis_cache_close(store);
    redis_cache_destroy(store);
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    cache_memory_destroy(memory);
    redis_loop_dispose(&loop);
    redis_server_dispose(&server);
}

/* ---- a command past the store ---- */

struct ask {
    struct redis_command command;
    bool done;
    long long integer;
    char text[256];
};

static void on_asked(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct ask *ask = H2O_STRUCT_FROM_MEMBER(struct ask, command, command);
    ck_assert_msg(reply != NULL && reply->type != REDIS_REPLY_ERROR, "%d %s", why, reply != NULL ? reply->str : "");
    ask->integer = reply->integer;
    if (reply->str != NULL)
        snprintf(ask->text, sizeof(ask->text), "%.*s", (int)reply->len, reply->str);
    ask->done = true;
}

static long long tell(const char *line)
{
    struct ask ask = {.command.on_reply = on_asked};
    struct span pieces[16];
    size_t count = 0;
    char *copy = span_dup(span_of(line)), *rest = copy, *word;
    enum redis_failure why;
    while ((word = strsep(&rest, " ")) != NULL)
        pieces[count++] = span_of(word);
    ck_assert(redis_link_send(up_link, &ask.command, pieces, count, &why));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    free(copy);
    return ask.integer;
}

/* The script's number; KEYS are those below a pattern. */
static long long over_keys(const char *pattern, const char *script)
{
    char text[600];
    struct ask ask = {.command.on_reply = on_asked};
    enum redis_failure why;
    snprintf(text, sizeof(text), "local n = 0 for _, k in ipairs(redis.call('KEYS', '%s')) do %s end return n", pattern,
             script);
    const struct span pieces[] = {SPAN("EVAL"), span_of(text), SPAN("0")};
    ck_assert(redis_link_send(up_link, &ask.command, pieces, 3, &why));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    return ask.integer;
}

/* ---- answers and questions ---- */

static struct cache_key key_of(char c)
{
    struct cache_key key;
    memset(key.bytes, c, sizeof(key.bytes));
    return key;
}

static struct strbuf text; /* the answer that was stored last */

static struct cache_entry *make(char c, bool sse, size_t bytes, const struct cache_birth *birth)
{
    static const struct cache_header headers[] = {{SPAN("content-type"), SPAN("x/y")}};
    struct chunk *chunks[1024];
    size_t count = 0;
    strbuf_dispose(&text);
    strbuf_init(&text, 64 << 20);
    strbuf_puts(&text, sse ? "" : "{\"a\":\"");
    for (unsigned n = 0; text.len < bytes; n++)
        strbuf_printf(&text, sse ? "data: {\"n\":%u}\n\n" : "%u,", n);
    strbuf_puts(&text, sse ? "data: [DONE]\n\n" : "\"}");
    struct cache_entry_parts parts = {.key = key_of(c),
                                      .status = 200,
                                      .sse = sse,
                                      .dialect = dialect_get(DIALECT_CHAT),
                                      .headers = headers,
                                      .header_count = 1,
                                      .scope_name = SPAN("alice"),
                                      .model = SPAN("llama"),
                                      .chunks = chunks,
                                      .facts = {.events = 5, .terminal = sse, .usage = {.prompt = 4, .known = true}},
                                      .created_us = clock_us(),
                                      .birth = *birth};
    for (size_t at = 0; at < text.len;) {
        size_t n = text.len - at < 16384 ? text.len - at : 16384;
        char *block = malloc(n);
        memcpy(block, text.base + at, n);
        chunks[count++] = chunk_adopt(block, n, n);
        at += n;
    }
    parts.chunk_count = count;
    parts.facts.bytes = text.len;
    parts.expires_us = parts.created_us + TTL_US;
    return cache_entry_create(&parts);
}

/* A client that asks Redis and reads what comes. */
struct client {
    struct redis_lookup lookup;
    struct stream_subscriber subscriber;
    struct strbuf got;
    struct cache_entry *entry;
    bool done, whole, over, paused, reads;
    enum stream_state state;
};

static void on_data(struct stream_subscriber *subscriber)
{
    struct client *client = H2O_STRUCT_FROM_MEMBER(struct client, subscriber, subscriber);
    struct slice slice;
    if (client->paused) {
        stream_wait(subscriber);
        return;
    }
    while (stream_peek(subscriber, &slice, 1) != 0) {
        strbuf_add(&client->got, slice.bytes);
        stream_consume(subscriber, slice.bytes.len);
    }
    if (stream_state(subscriber->_stream) == STREAM_OPEN) {
        stream_ready(subscriber);
        return;
    }
    client->over = true;
    client->state = stream_state(subscriber->_stream);
    stream_unsubscribe(subscriber);
}

static void on_found(struct redis_lookup *lookup, struct cache_entry *entry, bool whole)
{
    struct client *client = H2O_STRUCT_FROM_MEMBER(struct client, lookup, lookup);
    ck_assert(!client->done);
    client->done = true;
    client->entry = entry;
    client->whole = whole;
    if (entry == NULL || whole || !client->reads)
        return;
    strbuf_init(&client->got, 64 << 20);
    client->subscriber.on_data = on_data;
    ck_assert(stream_subscribe(redis_lookup_replay(lookup), &client->subscriber, 0));
}

static bool start(struct client *client, char c)
{
    static struct cache_key key;
    key = key_of(c);
    client->lookup.on_done = on_found;
    struct redis_lookup_question question = {.key = &key, .of = {SPAN("alice"), SPAN("llama")}};
    return redis_lookup_start(&client->lookup, store, &question);
}

static void look_up(struct client *client, char c)
{
    *client = (struct client){.reads = true, .paused = client->paused};
    ck_assert(start(client, c));
    ck_assert(redis_loop_run(&loop, &client->done, LONG_MS));
}

static void dispose(struct client *client)
{
    if (client->entry != NULL)
        cache_entry_release(client->entry);
    strbuf_dispose(&client->got);
    *client = (struct client){.done = false};
}

static struct cache_birth birth_of(char c)
{
    struct client client = {.reads = false};
    look_up(&client, c);
    struct cache_birth birth = client.lookup.birth;
    ck_assert(birth.has_epoch);
    dispose(&client);
    return birth;
}

/* Misses, stores an answer of this size and waits until Redis has it. */
static void put(char c, bool sse, size_t bytes)
{
    struct cache_birth birth = birth_of(c);
    struct cache_entry *entry = make(c, sse, bytes, &birth);
    uint64_t before = redis_cache_count(store, REDIS_CACHE_WRITTEN);
    redis_cache_put(store, entry);
    cache_entry_release(entry);
    for (int i = 0; i < 2000 && redis_cache_count(store, REDIS_CACHE_WRITTEN) == before; i++)
        redis_loop_run(&loop, NULL, 5);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_WRITTEN), before + 1);
}

static bool in_memory(char c)
{
    struct cache_key key = key_of(c);
    struct cache_entry *entry = cache_memory_lookup(memory, &key, clock_us());
    if (entry == NULL)
        return false;
    struct strbuf body;
    strbuf_init(&body, 64 << 20);
    for (size_t i = 0; i < entry->chunk_count; i++)
        strbuf_add(&body, chunk_bytes(entry->chunks[i]));
    ck_assert(span_eq(strbuf_span(&body), strbuf_span(&text)));
    ck_assert(span_eq(entry->scope_name, SPAN("alice")) && span_eq(entry->model, SPAN("llama")));
    strbuf_dispose(&body);
    cache_entry_release(entry);
    return true;
}

/* ---- the tests ---- */

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
        ck_assert_uint_eq(client.entry->facts.usage.prompt, 4);
        ck_assert_uint_eq(client.entry->facts.bytes, text.len);
        ck_assert_uint_eq(cache_entry_age(client.entry, clock_us()), 0);
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
        ck_assert_uint_eq(client.entry->facts.bytes, text.len);
        ck_assert_int_eq(cache_entry_etag(client.entry)[0], sse ? '\0' : '"');
        ck_assert(redis_loop_run(&loop, &client.over, LONG_MS));
        ck_assert_int_eq(client.state, STREAM_ENDED);
        ck_assert(span_eq(strbuf_span(&client.got), strbuf_span(&text)));
        ck_assert(in_memory(c));
        dispose(&client);
    }
    ck_assert_int_ge(tell("DBSIZE"), 2 * 81);
    ck_assert_int_eq(over_keys("*", "if redis.call('STRLEN', k) > 70000 then n = n + 1 end"), 0);
    ck_assert_int_eq(over_keys("w:c:*:*", "if redis.call('PTTL', k) < 1190000 then n = n + 1 end"), 0);
}
END_TEST

START_TEST(test_a_slow_reader_holds_the_fetching_back)
{
    struct client client = {.paused = true};
    put('a', true, 5 << 20);
    look_up(&client, 'a');
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
            struct cache_entry *entry = make('a', true, 100, &before);
            redis_cache_put(store, entry);
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
        struct cache_birth birth = {.purges = cache_memory_purges(memory)};
        cache_memory_insert(memory, make('a', true, 100, &birth), clock_us());
        ck_assert(in_memory('a'));
        purge(purges[i].scope_name, purges[i].model);
        for (int n = 0; n < 400 && cache_memory_purges(memory) == birth.purges; n++)
            redis_loop_run(&loop, NULL, 10);
        ck_assert_msg(cache_memory_purges(memory) != birth.purges, "purge %zu is not heard of", i);
        ck_assert_msg(in_memory('a') != purges[i].hits, "purge %zu", i);
        cache_memory_purge(memory, NULL, NULL);
    }
    /* More than the list holds, while nobody looked. */
    struct cache_birth birth = {.purges = cache_memory_purges(memory)};
    cache_memory_insert(memory, make('a', true, 100, &birth), clock_us());
    for (int i = 0; i < 80; i++)
        purge(SPAN("bob"), SPAN_NONE);
    for (int n = 0; n < 400 && in_memory('a'); n++)
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
    struct cache_birth birth = {.purges = cache_memory_purges(memory)};
    redis_loop_run(&loop, NULL, 900);
    ck_assert_uint_eq(cache_memory_purges(memory), birth.purges);
    redis_purge_watch_destroy(watch);
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
    struct cache_entry *entry = make('a', true, 100, &birth);
    redis_cache_put(store, entry);
    cache_entry_release(entry);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_NOT_WRITTEN), 1);
}
END_TEST

START_TEST(test_what_waits_for_redis_is_bounded)
{
    struct cache_birth birth = birth_of('a');
    kill(server.pid, SIGSTOP);
    struct cache_entry *entry = make('a', true, 3 << 20, &birth);
    for (int i = 0; i < 10; i++)
        redis_cache_put(store, entry);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_PASSED_BY), 5);
    birth.has_epoch = false;
    struct cache_entry *unborn = make('b', true, 100, &birth);
    redis_cache_put(store, unborn);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_PASSED_BY), 5);
    cache_entry_release(unborn);
    kill(server.pid, SIGCONT);
    for (int i = 0; i < 2000 && redis_cache_count(store, REDIS_CACHE_WRITTEN) < 5; i++)
        redis_loop_run(&loop, NULL, 5);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_WRITTEN), 5);
    cache_entry_release(entry);
    kill(server.pid, SIGSTOP); /* the end comes while they wait */
    entry = make('a', true, 3 << 20, &birth);
    entry->birth.has_epoch = true;
    for (int i = 0; i < 3; i++)
        redis_cache_put(store, entry);
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
    tcase_add_test(tc, test_purges);
    tcase_add_test(tc, test_others_purges_reach_memory);
    tcase_add_test(tc, test_own_purges_are_passed_over);
    tcase_add_test(tc, test_a_server_that_is_gone_or_frozen);
    tcase_add_test(tc, test_what_waits_for_redis_is_bounded);
    return run_suite("redis_cache", tc);
}
