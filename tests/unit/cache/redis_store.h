/* A store in a Redis of the tests' own, answers for it, and clients that ask it, for the tests of cache/redis_cache. */
#ifndef WEIR_TESTS_REDIS_STORE_H
#define WEIR_TESTS_REDIS_STORE_H

#include "base/clock.h"
#include "cache/redis_cache.h"
#include "redis_server.h"
#include "run_suite.h"

#define LONG_MS 60000 /* a busy machine; nothing here should need it */
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

static inline void open_store(uint64_t timeout_us)
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

static inline void setup(void)
{
    redis_server_prepare(&server);
    redis_server_start(&server, NULL);
    redis_loop_init(&loop);
    is_up = false;
    open_store(60000000);
}

static inline void teardown(void)
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

static inline long long tell(const char *line)
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
static inline long long over_keys(const char *pattern, const char *script)
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

static inline struct cache_key key_of(char c)
{
    struct cache_key key;
    memset(key.bytes, c, sizeof(key.bytes));
    return key;
}

static struct strbuf text; /* the answer that was stored last */

static inline struct cache_entry *make(char c, bool sse, size_t bytes)
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
                                      .judged = true};
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

static inline bool start(struct client *client, char c)
{
    static struct cache_key key;
    key = key_of(c);
    client->lookup.on_done = on_found;
    struct redis_lookup_question question = {.key = &key, .of = {SPAN("alice"), SPAN("llama")}};
    return redis_lookup_start(&client->lookup, store, &question);
}

static inline void look_up(struct client *client, char c)
{
    *client = (struct client){.reads = true, .paused = client->paused};
    ck_assert(start(client, c));
    ck_assert(redis_loop_run(&loop, &client->done, LONG_MS));
}

static inline void dispose(struct client *client)
{
    if (client->entry != NULL)
        cache_entry_release(client->entry);
    strbuf_dispose(&client->got);
    *client = (struct client){.done = false};
}

static inline struct cache_birth birth_of(char c)
{
    struct client client = {.reads = false};
    look_up(&client, c);
    struct cache_birth birth = client.lookup.birth;
    ck_assert(birth.has_epoch);
    dispose(&client);
    return birth;
}

/* Misses, stores an answer of this size and waits until Redis has it. */
static inline void put(char c, bool sse, size_t bytes)
{
    struct cache_birth birth = birth_of(c);
    struct cache_entry *entry = make(c, sse, bytes);
    uint64_t before = redis_cache_count(store, REDIS_CACHE_WRITTEN);
    redis_cache_put(store, entry, &birth);
    cache_entry_release(entry);
    for (int i = 0; i < 2000 && redis_cache_count(store, REDIS_CACHE_WRITTEN) == before; i++)
        redis_loop_run(&loop, NULL, 5);
    ck_assert_uint_eq(redis_cache_count(store, REDIS_CACHE_WRITTEN), before + 1);
}

static inline bool in_memory(char c)
{
    struct cache_key key = key_of(c);
    struct cache_entry *entry = cache_memory_lookup(memory, &key, clock_us());
    if (entry == NULL)
        return false;
    struct strbuf body;
    strbuf_init(&body, 64 << 20);
    for (size_t i = 0; i < entry->chunk_count; i++)
        strbuf_add(&body, chunk_bytes(cache_entry_chunks(entry)[i]));
    ck_assert(span_eq(strbuf_span(&body), strbuf_span(&text)));
    ck_assert(span_eq(cache_entry_scope_name(entry), SPAN("alice")) &&
              span_eq(cache_entry_model(entry), SPAN("llama")));
    strbuf_dispose(&body);
    cache_entry_release(entry);
    return true;
}

#endif
