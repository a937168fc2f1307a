#include "base/clock.h"
#include "base/strbuf.h"
#include "memory_store.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define KEYS 200

static char etag[CACHE_ETAG_SIZE];

/* An entry whose body is `len` times the letter of `version`, in pieces. */
static struct cache_entry *make_entry(unsigned n, size_t len, unsigned version, uint64_t expires_us)
{
    static const struct cache_header headers[] = {{SPAN("content-type"), SPAN("text/event-stream")},
                                                  {SPAN("date"), SPAN("x")},
                                                  {SPAN("openai-model"), SPAN("m")}};
    struct chunk *chunks[3];
    for (size_t i = 0; i < 3; i++) {
        size_t part = i < 2 ? len / 3 : len - 2 * (len / 3);
        char *bytes = malloc(part + 1);
        ck_assert_ptr_nonnull(bytes);
        memset(bytes, 'a' + (int)(version % 26), part);
        chunks[i] = chunk_adopt(bytes, part, part + 1);
    }
    struct cache_entry_parts parts = {
        .key = key_of(n),
        .status = 200,
        .sse = true,
        .dialect = dialect_get(DIALECT_CHAT),
        .headers = headers,
        .header_count = 3,
        .scope_name = n % 2 == 0 ? SPAN("alice") : SPAN("bob"),
        .model = SPAN("llama"),
        .chunks = chunks,
        .chunk_count = 3,
        .facts = {.events = n, .terminal = true},
        .created_us = 5 * MINUTE,
        .expires_us = expires_us,
    };
    return cache_entry_create(&parts);
}

static bool insert(unsigned n, size_t len, uint64_t expires_us)
{
    return cache_memory_insert(memory, make_entry(n, len, n, expires_us), cache_memory_purges(memory), 0);
}

START_TEST(an_entry_keeps_what_it_was_given)
{
    open_store(1 << 20, 0);
    ck_assert(insert(7, 100, MINUTE));
    struct cache_key key = key_of(7), other = key_of(8);
    ck_assert_ptr_null(cache_memory_lookup(memory, &other, 0));
    struct cache_entry *entry = cache_memory_lookup(memory, &key, 0);
    ck_assert_ptr_nonnull(entry);
    cache_memory_destroy(memory); /* it lives on */
    ck_assert_int_eq(entry->status, 200);
    ck_assert_uint_eq(entry->header_count, 2);
    ck_assert(span_eq(cache_entry_headers(entry)[0].value, SPAN("text/event-stream")));
    ck_assert(span_eq(cache_entry_headers(entry)[1].name, SPAN("openai-model")));
    ck_assert(span_eq(cache_entry_scope_name(entry), SPAN("bob")));
    ck_assert(span_eq(cache_entry_model(entry), SPAN("llama")));
    ck_assert_uint_eq(entry->events, 7);
    ck_assert_str_eq(cache_entry_etag(entry, etag), "");
    ck_assert_uint_gt(entry->allocated, sizeof(*entry) + 100);
    ck_assert_uint_eq(cache_entry_age(entry, 5 * MINUTE + 2999999), 2);
    ck_assert_uint_eq(cache_entry_age(entry, MINUTE), 0);
    cache_entry_release(entry);
}
END_TEST

START_TEST(a_plain_answer_has_a_strong_tag_of_its_bytes)
{
    const char *bodies[] = {"{\"a\":1}", "{\"a\":1}", "{\"a\":2}"};
    size_t cuts[] = {0, 3, 0};
    struct cache_entry *entries[3];
    for (int i = 0; i < 3; i++) {
        struct chunk *chunks[2];
        char *front = strndup(bodies[i], cuts[i]), *back = strdup(bodies[i] + cuts[i]);
        chunks[0] = chunk_adopt(front, cuts[i], cuts[i] + 1);
        chunks[1] = chunk_adopt(back, strlen(back), strlen(back) + 1);
        struct cache_entry_parts parts = {.key = key_of(1), .status = 200, .chunks = chunks, .chunk_count = 2};
        entries[i] = cache_entry_create(&parts);
    }
    /* The first half of: printf '{"a":1}' | sha256sum */
    for (int i = 0; i < 2; i++)
        ck_assert_str_eq(cache_entry_etag(entries[i], etag), "\"015abd7f5cc57a2dd94b7590f04ad808\"");
    ck_assert_str_eq(cache_entry_etag(entries[0], etag), "\"015abd7f5cc57a2dd94b7590f04ad808\""); /* and again */
    ck_assert_str_ne(cache_entry_etag(entries[2], etag), "\"015abd7f5cc57a2dd94b7590f04ad808\"");
    ck_assert_uint_eq(strlen(etag), CACHE_ETAG_SIZE - 1);
    for (int i = 0; i < 3; i++)
        cache_entry_release(entries[i]);
}
END_TEST

/* One that comes with the answer is taken as it is, if it can be one of ours. */
START_TEST(a_tag_that_is_known_is_not_made_again)
{
    static const struct {
        const char *given, *is;
    } cases[] = {
        {"\"0123456789abcdef0123456789abcdef\"", "\"0123456789abcdef0123456789abcdef\""},
        {"\"0123456789abcdef0123456789abcdeF\"", "\"015abd7f5cc57a2dd94b7590f04ad808\""},
        {"\"0123456789abcdef0123456789abcde/\"", "\"015abd7f5cc57a2dd94b7590f04ad808\""},
        {"'0123456789abcdef0123456789abcdef'", "\"015abd7f5cc57a2dd94b7590f04ad808\""},
        {"\"0123456789abcdef0123456789abcde\"", "\"015abd7f5cc57a2dd94b7590f04ad808\""},
        {"", "\"015abd7f5cc57a2dd94b7590f04ad808\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cache_entry_parts parts = {
            .key = key_of(1), .status = 200, .rest = SPAN("{\"a\":1}"), .etag = span_of(cases[i].given)};
        struct cache_entry *entry = cache_entry_create(&parts);
        ck_assert_str_eq(cache_entry_etag(entry, etag), cases[i].is);
        cache_entry_release(entry);
    }
}
END_TEST

/* What nobody has read through is read through when it is first asked for. */
/* Bytes behind the chunks are copied into the entry's own memory, which a replay keeps. */
START_TEST(a_replay_outlives_its_entry)
{
    for (size_t chunk_count = 0; chunk_count < 2; chunk_count++) {
        char rest[] = "the rest";
        struct chunk *chunks[] = {chunk_count != 0 ? chunk_adopt(strdup("first, "), 7, 8) : NULL};
        struct cache_entry_parts parts = {.key = key_of(1),
                                          .status = 200,
                                          .model = SPAN("llama"),
                                          .chunks = chunks,
                                          .chunk_count = chunk_count,
                                          .rest = {rest, 8}};
        struct cache_entry *entry = cache_entry_create(&parts);
        memset(rest, 'x', sizeof(rest));
        ck_assert_uint_eq(entry->chunk_count, chunk_count + 1);
        ck_assert_uint_ge(entry->allocated, sizeof(*entry) + 8 + 5);
        ck_assert(span_eq(cache_entry_model(entry), SPAN("llama")));
        struct stream *replay = cache_entry_replay(entry);
        struct stream_subscriber reader = {.on_data = NULL};
        ck_assert(stream_subscribe(replay, &reader, 0));
        stream_release(replay);
        cache_entry_release(entry);
        struct slice slices[3];
        ck_assert_uint_eq(stream_peek(&reader, slices, 3), chunk_count + 1);
        ck_assert(chunk_count == 0 || span_eq(slices[0].bytes, SPAN("first, ")));
        ck_assert(span_eq(slices[chunk_count].bytes, SPAN("the rest")));
        stream_unsubscribe(&reader);
    }
}
END_TEST

START_TEST(time_runs_out)
{
    open_store(1 << 20, 0);
    ck_assert(insert(1, 10, MINUTE));
    ck_assert(is_there(1, MINUTE - 1));
    ck_assert(!is_there(1, MINUTE));
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries, 0);
    ck_assert_uint_eq(counts.bytes, 0);
    ck_assert_uint_eq(counts.expirations, 1);
    ck_assert_uint_eq(counts.hits, 1);
    ck_assert_uint_eq(counts.misses, 1);
    ck_assert(!cache_memory_insert(memory, make_entry(1, 10, 1, MINUTE), 0, MINUTE));
    cache_memory_destroy(memory);
}
END_TEST

START_TEST(a_second_answer_replaces_the_first)
{
    open_store(1 << 20, 0);
    struct cache_key key = key_of(1);
    ck_assert(cache_memory_insert(memory, make_entry(1, 3, 0, MINUTE), 0, 0));
    struct cache_entry *old = cache_memory_lookup(memory, &key, 0);
    ck_assert(cache_memory_insert(memory, make_entry(1, 6, 1, MINUTE), 0, 0));
    struct cache_entry *new = cache_memory_lookup(memory, &key, 0);
    ck_assert_ptr_ne(old, new);
    ck_assert_int_eq(chunk_bytes(cache_entry_chunks(old)[0]).base[0], 'a');
    ck_assert_int_eq(chunk_bytes(cache_entry_chunks(new)[0]).base[0], 'b');
    cache_entry_release(old);
    cache_entry_release(new);
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries, 1);
    ck_assert_uint_eq(counts.stores, 2);
    ck_assert_uint_eq(counts.evictions, 0);
    ck_assert(cache_memory_remove(memory, &key));
    ck_assert(!cache_memory_remove(memory, &key));
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries + counts.bytes, 0);
    cache_memory_destroy(memory);
}
END_TEST

static bool is_bobs(void *ctx, const struct cache_entry *entry)
{
    (*(unsigned *)ctx)++;
    return span_eq(cache_entry_scope_name(entry), SPAN("bob"));
}

START_TEST(purges_take_what_matches)
{
    unsigned seen = 0;
    open_store((size_t)64 << 20, 1 << 20); /* several shards */
    for (unsigned n = 0; n < 1000; n++)
        ck_assert(insert(n, 100, MINUTE));
    ck_assert_uint_eq(cache_memory_purge(memory, is_bobs, &seen), 500);
    ck_assert_uint_eq(seen, 1000);
    for (unsigned n = 0; n < 1000; n++)
        ck_assert_int_eq(is_there(n, 0), n % 2 == 0);
    ck_assert_uint_eq(cache_memory_purge(memory, NULL, NULL), 500);
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries + counts.bytes, 0);
    cache_memory_destroy(memory);
}
END_TEST

START_TEST(what_is_too_large_is_not_stored)
{
    open_store(1 << 20, 20000);
    ck_assert_uint_eq(cache_memory_max_entry(memory), 20000);
    ck_assert(insert(1, 19000, MINUTE));
    ck_assert(!insert(1, 20000, MINUTE));
    ck_assert(is_there(1, 0)); /* the earlier one stays */
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.refusals, 1);
    cache_memory_destroy(memory);
    open_store(4000, 0);
    ck_assert_uint_eq(cache_memory_max_entry(memory), 4000);
    ck_assert(!insert(1, 4000, MINUTE));
    cache_memory_destroy(memory);
    open_store(0, 0);
    ck_assert(!insert(1, 1, MINUTE));
    cache_memory_destroy(memory);
}
END_TEST

START_TEST(the_expired_make_room_before_the_old)
{
    struct cache_entry *probe = make_entry(0, 1000, 0, MINUTE);
    size_t each = probe->allocated + 4 * sizeof(void *);
    cache_entry_release(probe);
    open_store(3 * each, 0);
    ck_assert(insert(1, 1000, 9 * MINUTE));
    ck_assert(insert(2, 1000, MINUTE));
    ck_assert(insert(3, 1000, 9 * MINUTE));
    ck_assert(cache_memory_insert(memory, make_entry(4, 1000, 4, 9 * MINUTE), 0, 2 * MINUTE));
    ck_assert(is_there(1, 2 * MINUTE));
    ck_assert(!is_there(2, 0));
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.expirations, 1);
    ck_assert_uint_eq(counts.evictions, 0);
    ck_assert(insert(5, 1000, 9 * MINUTE)); /* 3 is the oldest now */
    ck_assert(is_there(1, 0));
    ck_assert(!is_there(3, 0));
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.evictions, 1);
    cache_memory_destroy(memory);
}
END_TEST

/* ---- against an oracle ---- */

static uint64_t state;

static unsigned dice(unsigned sides)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % sides;
}

/* The same store, written the slow way: newest first. */
static struct model {
    unsigned n, version;
    size_t cost;
    uint64_t expires_us;
} model[KEYS];
static size_t model_count, model_bytes;
static uint64_t model_evictions, model_expirations;

static size_t model_find(unsigned n)
{
    size_t i = 0;
    while (i < model_count && model[i].n != n)
        i++;
    return i;
}

static struct model model_take(size_t i)
{
    struct model taken = model[i];
    model_bytes -= taken.cost;
    memmove(&model[i], &model[i + 1], (--model_count - i) * sizeof(model[0]));
    return taken;
}

static void model_push(struct model entry)
{
    memmove(&model[1], &model[0], model_count++ * sizeof(model[0]));
    model[0] = entry;
    model_bytes += entry.cost;
}

static void model_insert(struct model entry, size_t max_bytes, uint64_t now_us)
{
    size_t i = model_find(entry.n);
    if (i < model_count)
        model_take(i);
    size_t looks = model_count < 4 ? model_count : 4;
    for (size_t last = model_count; looks != 0; looks--) {
        if (model[--last].expires_us <= now_us) {
            model_take(last);
            model_expirations++;
        }
    }
    while (model_bytes + entry.cost > max_bytes) {
        model_take(model_count - 1);
        model_evictions++;
    }
    model_push(entry);
}

static void one_lookup(unsigned n, uint64_t now)
{
    struct cache_key key = key_of(n);
    struct cache_entry *entry = cache_memory_lookup(memory, &key, now);
    size_t i = model_find(n);
    if (i < model_count && model[i].expires_us <= now) {
        model_take(i);
        model_expirations++;
        i = model_count;
    }
    ck_assert_int_eq(entry != NULL, i < model_count);
    if (entry == NULL)
        return;
    ck_assert_int_eq(chunk_bytes(cache_entry_chunks(entry)[2]).base[0], 'a' + (int)(model[i].version % 26));
    cache_entry_release(entry);
    model_push(model_take(i));
}

START_TEST(random_load_behaves_like_the_oracle)
{
    const size_t max_bytes = 100000, max_entry = 12000;
    uint64_t now = 1;
    state = (uint64_t)_i + 1;
    model_count = model_bytes = 0;
    model_evictions = model_expirations = 0;
    open_store(max_bytes, max_entry);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned n = dice(KEYS);
        now += dice(100);
        if (dice(50) == 0) {
            struct cache_key key = key_of(n);
            size_t i = model_find(n);
            ck_assert_int_eq(cache_memory_remove(memory, &key), i < model_count);
            if (i < model_count)
                model_take(i);
        } else if (dice(2) == 0) {
            one_lookup(n, now);
        } else {
            struct model entry = {.n = n, .version = step, .expires_us = now + dice(40000)};
            struct cache_entry *made = make_entry(n, dice(dice(4) == 0 ? 14000 : 900), step, entry.expires_us);
            entry.cost = made->allocated + 4 * sizeof(void *);
            bool fits = entry.cost <= max_entry && entry.expires_us > now;
            ck_assert_int_eq(cache_memory_insert(memory, made, cache_memory_purges(memory), now), fits);
            if (fits)
                model_insert(entry, max_bytes, now);
        }
        cache_memory_counts(memory, &counts);
        ck_assert_uint_le(counts.bytes, max_bytes);
        ck_assert_uint_eq(counts.bytes, model_bytes);
        ck_assert_uint_eq(counts.entries, model_count);
        ck_assert_uint_eq(counts.evictions, model_evictions);
        ck_assert_uint_eq(counts.expirations, model_expirations);
    }
    ck_assert_uint_gt(model_evictions, 100);
    ck_assert_uint_gt(model_expirations, 100);
    cache_memory_destroy(memory);
}
END_TEST

/* ---- threads ---- */

static void on_data(struct stream_subscriber *subscriber)
{
    (void)subscriber;
}

/* Reads an entry through a stream; all its bytes must be the same letter. */
static size_t read_replay(const struct cache_entry *entry)
{
    struct stream_subscriber reader = {.on_data = on_data};
    struct stream *stream = cache_entry_replay(entry);
    struct slice slice;
    size_t total = 0;
    char letter = '\0';
    stream_subscribe(stream, &reader, 0);
    stream_release(stream);
    while (stream_peek(&reader, &slice, 1) != 0) {
        if (letter == '\0')
            letter = slice.bytes.base[0];
        for (size_t i = 0; i < slice.bytes.len; i++)
            if (slice.bytes.base[i] != letter)
                abort();
        total += slice.bytes.len;
        stream_consume(&reader, slice.bytes.len);
    }
    stream_unsubscribe(&reader);
    return total;
}

static void *work(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    size_t total = 0;
    for (unsigned i = 0; i < 6000; i++) {
        unsigned n = (seed = seed * 1103515245u + 12345u) >> 16 & 63;
        struct cache_key key = key_of(n);
        struct cache_entry *entry = cache_memory_lookup(memory, &key, i);
        if (entry == NULL) {
            cache_memory_insert(memory, make_entry(n, 300 + n, i, i + 3000), cache_memory_purges(memory), i);
            continue;
        }
        size_t len = read_replay(entry);
        if (len != 300 + n)
            abort();
        total += len;
        cache_entry_release(entry);
        if (i % 500 == 0)
            cache_memory_purge(memory, is_bobs, &(unsigned){0});
    }
    return (void *)(uintptr_t)(total != 0);
}

START_TEST(threads_share_one_store)
{
    pthread_t threads[3];
    void *worked;
    open_store(40000, 0);
    for (uintptr_t i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &worked);
        ck_assert_ptr_nonnull(worked);
    }
    cache_memory_counts(memory, &counts);
    ck_assert_uint_le(counts.bytes, 40000);
    ck_assert_uint_eq(counts.hits + counts.misses, 18000);
    cache_memory_destroy(memory);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("memory");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_entry_keeps_what_it_was_given);
    tcase_add_test(tests, a_plain_answer_has_a_strong_tag_of_its_bytes);
    tcase_add_test(tests, a_tag_that_is_known_is_not_made_again);
    tcase_add_test(tests, a_replay_outlives_its_entry);
    tcase_add_test(tests, time_runs_out);
    tcase_add_test(tests, a_second_answer_replaces_the_first);
    tcase_add_test(tests, purges_take_what_matches);
    tcase_add_test(tests, what_is_too_large_is_not_stored);
    tcase_add_test(tests, the_expired_make_room_before_the_old);
    tcase_add_loop_test(tests, random_load_behaves_like_the_oracle, 0, 3);
    tcase_add_test(tests, threads_share_one_store);
    return run_suite("cache memory", tests);
}
