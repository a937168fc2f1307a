#include "base/clock.h"
#include "base/strbuf.h"
#include "cache/writer.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOT_YET CACHE_OUTCOMES
#define TTL ((uint64_t)3600 * 1000000)

static struct cache_memory *memory;
static struct cache_key key;
static struct stream *stream;
static enum cache_outcome outcome;
static unsigned dones, cancels;

static void setup(void)
{
    memory = cache_memory_create(&(struct cache_memory_settings){.max_bytes = 4 << 20, .max_entry = 300000});
    memset(key.bytes, 'k', sizeof(key.bytes));
}

static void teardown(void)
{
    cache_memory_destroy(memory);
}

/* The client; takes everything at once unless told not to. */
struct reader {
    struct stream_subscriber subscriber;
    struct strbuf got;
    size_t bite;
    bool idle, over;
    enum stream_state state;
};

static void on_data(struct stream_subscriber *subscriber)
{
    struct reader *reader = H2O_STRUCT_FROM_MEMBER(struct reader, subscriber, subscriber);
    struct slice slice;
    if (reader->idle) {
        stream_wait(subscriber);
        return;
    }
    for (size_t left = reader->bite; left != 0 && stream_peek(subscriber, &slice, 1) != 0;) {
        size_t n = slice.bytes.len < left ? slice.bytes.len : left;
        strbuf_add(&reader->got, (struct span){slice.bytes.base, n});
        stream_consume(subscriber, n);
        left -= n;
    }
    if (stream_unread(subscriber) != 0)
        return;
    if (stream_state(subscriber->_stream) != STREAM_OPEN) {
        reader->over = true;
        reader->state = stream_state(subscriber->_stream);
        stream_unsubscribe(subscriber);
    } else {
        stream_ready(subscriber);
    }
}

static void reader_init(struct reader *reader, size_t bite)
{
    *reader = (struct reader){.subscriber = {.on_data = on_data}, .bite = bite};
    strbuf_init(&reader->got, 1 << 24);
}

static void on_resume(void *ctx)
{
    (void)ctx;
}

static void on_cancel(void *ctx)
{
    (void)ctx;
    cancels++;
    stream_break(stream, STREAM_CANCELLED, NULL);
}

static void on_done(void *ctx, enum cache_outcome what)
{
    ck_assert_ptr_eq(ctx, &dones);
    dones++;
    outcome = what;
}

static void on_entry(void *ctx, struct cache_entry *entry, const struct cache_birth *birth)
{
    ck_assert_ptr_eq(ctx, &dones);
    ck_assert(cache_entry_is_judged(entry));
    ck_assert_uint_eq(birth->purges, cache_memory_purges(memory));
}

static const struct cache_header sse_headers[] = {{SPAN("content-type"), SPAN("text/event-stream")},
                                                  {SPAN("x-request-id"), SPAN("7")}};

static bool begin(enum dialect_id dialect, bool sse, struct reader *reader)
{
    struct stream_settings settings = {.dialect = dialect_get(dialect), .sse = sse, .json = !sse};
    struct stream_producer producer = {on_resume, on_cancel, NULL};
    char scope[] = "alice", model[] = "llama";
    struct cache_writer_settings writer = {
        .memory = memory,
        .key = key,
        .ttl_us = TTL,
        .birth = {.purges = cache_memory_purges(memory)},
        .scope_name = span_of(scope),
        .model = span_of(model),
        .status = 200,
        .headers = sse_headers,
        .header_count = 2,
        .on_entry = on_entry,
        .on_done = on_done,
        .ctx = &dones,
    };
    stream = stream_create(&settings, &producer);
    dones = cancels = 0;
    outcome = NOT_YET;
    reader_init(reader, SIZE_MAX);
    ck_assert(stream_subscribe(stream, &reader->subscriber, 0));
    bool started = cache_writer_start(&writer, stream);
    memset(scope, '?', sizeof(scope)); /* what was given need not stay */
    memset(model, '?', sizeof(model));
    return started;
}

/* Appends in pieces of `size` bytes. */
static void feed(struct span text, size_t size)
{
    for (size_t at = 0; at < text.len; at += size)
        stream_append(stream, (struct span){text.base + at, text.len - at < size ? text.len - at : size});
}

static struct cache_entry *stored(void)
{
    return cache_memory_lookup(memory, &key, clock_us());
}

static void expect_nothing_stored(void)
{
    struct cache_memory_counts counts;
    cache_memory_counts(memory, &counts);
    ck_assert_uint_eq(counts.entries, 0);
    ck_assert_ptr_null(stored());
}

/* A stream of this text that ends as it should. */
static enum cache_outcome run(enum dialect_id dialect, bool sse, const char *text, size_t size)
{
    struct reader reader;
    ck_assert(begin(dialect, sse, &reader));
    feed(span_of(text), size);
    ck_assert_uint_eq(dones, 0);
    stream_end(stream);
    ck_assert_uint_eq(dones, 1);
    ck_assert(reader.over);
    ck_assert_str_eq(strbuf_cstr(&reader.got), text);
    strbuf_dispose(&reader.got);
    return outcome;
}

static const struct {
    enum dialect_id dialect;
    const char *text, *unfinished, *error;
} dialects[] = {
    {DIALECT_CHAT,
     "data: {\"choices\":[]}\n\ndata: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
     "data: {\"choices\":[]}\n\n", "data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n"},
    {DIALECT_COMPLETIONS,
     "data: {\"choices\":[]}\n\ndata: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
     "data: {\"choices\":[]}\n\ndata: [DONE]", "data: {\"object\":\"error\"}\n\ndata: [DONE]\n\n"},
    {DIALECT_RESPONSES,
     "event: response.created\ndata: {}\n\nevent: response.completed\ndata: "
     "{\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n",
     "event: response.created\ndata: {}\n\n", "event: response.failed\ndata: {\"type\":\"response.failed\"}\n\n"},
    {DIALECT_MESSAGES,
     "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: "
     "message_delta\ndata: {\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {}\n\n",
     "event: message_start\ndata: {}\n\n", "event: error\ndata: {\"type\":\"error\"}\n\n"},
};

START_TEST(streams_are_stored_after_their_proper_end)
{
    for (size_t i = 0; i < COUNT(dialects); i++) {
        for (size_t size = 1; size < 200; size += 33) {
            ck_assert_int_eq(run(dialects[i].dialect, true, dialects[i].text, size), CACHE_STORED);
            struct cache_entry *entry = stored();
            ck_assert_ptr_nonnull(entry);
            ck_assert_uint_ge(entry->events, 2);
            ck_assert_uint_eq(entry->prompt_tokens, 3);
            ck_assert_uint_eq(entry->completion_tokens, 2);
            ck_assert_ptr_eq(entry->dialect, dialect_get(dialects[i].dialect));
            ck_assert(entry->sse);
            char etag[CACHE_ETAG_SIZE];
            ck_assert_str_eq(cache_entry_etag(entry, etag), "");
            ck_assert_uint_eq(entry->header_count, 1);
            ck_assert(span_eq(cache_entry_headers(entry)[0].value, SPAN("text/event-stream")));
            ck_assert(span_eq(cache_entry_scope_name(entry), SPAN("alice")));
            ck_assert(span_eq(cache_entry_model(entry), SPAN("llama")));
            ck_assert_uint_eq(entry->expires_us - entry->created_us, TTL);
            struct reader reader;
            reader_init(&reader, SIZE_MAX);
            struct stream *replay = cache_entry_replay(entry);
            cache_entry_release(entry);
            ck_assert(stream_subscribe(replay, &reader.subscriber, 0));
            stream_release(replay);
            cache_memory_purge(memory, NULL, NULL);
            stream_ready(&reader.subscriber);
            ck_assert(reader.over);
            ck_assert_int_eq(reader.state, STREAM_ENDED);
            ck_assert_str_eq(strbuf_cstr(&reader.got), dialects[i].text);
            strbuf_dispose(&reader.got);
        }
    }
}
END_TEST

START_TEST(improper_ends_store_nothing)
{
    for (size_t i = 0; i < COUNT(dialects); i++) {
        ck_assert_int_eq(run(dialects[i].dialect, true, dialects[i].unfinished, 7), CACHE_BROKEN);
        expect_nothing_stored();
        ck_assert_int_eq(run(dialects[i].dialect, true, dialects[i].error, 7), CACHE_ERROR);
        expect_nothing_stored();
        struct reader reader;
        ck_assert(begin(dialects[i].dialect, true, &reader));
        feed(span_of(dialects[i].text), 1000);
        stream_break(stream, STREAM_RESET, "x"); /* even behind the last event */
        ck_assert_int_eq(outcome, CACHE_BROKEN);
        expect_nothing_stored();
        strbuf_dispose(&reader.got);
    }
    /* Where nobody can tell whether that was all. */
    ck_assert_int_eq(run(DIALECT_NONE, true, "data: x\n\n", 7), CACHE_BROKEN);
    ck_assert_int_eq(run(DIALECT_EMBEDDINGS, true, "data: [DONE]\n\n", 7), CACHE_BROKEN);
    expect_nothing_stored();
}
END_TEST

START_TEST(plain_answers)
{
    static const struct {
        const char *text;
        enum cache_outcome outcome;
    } cases[] = {
        {"{\"id\":\"x\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}", CACHE_STORED},
        {" {\"error\":null}\n", CACHE_STORED},
        {"[]", CACHE_STORED},
        {"{\"error\":{\"message\":\"no\"}}", CACHE_ERROR},
        {"{\"error\":\"no\"}", CACHE_ERROR},
        {"", CACHE_UNCLEAR},
        {"{\"id\":\"x\",", CACHE_UNCLEAR},
        {"{\"id\":1}}", CACHE_UNCLEAR},
        {"<html>", CACHE_UNCLEAR},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t size = 1; size < 20; size += 6) {
            enum cache_outcome got = run(DIALECT_CHAT, false, cases[i].text, size);
            ck_assert_msg(got == cases[i].outcome, "%s: %s", cases[i].text, cache_outcome_name(got));
            struct cache_entry *entry = stored();
            ck_assert_int_eq(entry != NULL, got == CACHE_STORED);
            if (entry != NULL) {
                char etag[CACHE_ETAG_SIZE];
                ck_assert_uint_eq(strlen(cache_entry_etag(entry, etag)), CACHE_ETAG_SIZE - 1);
                ck_assert(!entry->sse);
                if (i == 0)
                    ck_assert_uint_eq(entry->completion_tokens, 4);
                cache_entry_release(entry);
            }
            cache_memory_purge(memory, NULL, NULL);
        }
    }
}
END_TEST

/* An answer without a reader or anybody but the memory store that takes it. */
static struct cache_writer_settings quiet_writer(void)
{
    return (struct cache_writer_settings){.memory = memory,
                                          .key = key,
                                          .ttl_us = TTL,
                                          .birth = {.purges = cache_memory_purges(memory)},
                                          .status = 200,
                                          .on_done = on_done,
                                          .ctx = &dones};
}

/* Appends what comes together with the body's end. */
static void feed_last(struct span text)
{
    static h2o_buffer_prototype_t prototype = {._initial_buf = {.capacity = 4096}};
    h2o_buffer_t *buffer;
    h2o_buffer_init(&buffer, &prototype);
    memcpy(h2o_buffer_reserve(&buffer, text.len).base, text.base, text.len);
    buffer->size = text.len;
    stream_append_last(stream, &buffer);
    h2o_buffer_dispose(&buffer);
}

/* What comes in one piece with the end, too. */
START_TEST(plain_answers_may_be_judged_later)
{
    static const struct {
        struct span text;
        bool good;
    } cases[] = {{SPAN("{\"id\":\"x\"}"), true}, {SPAN("{\"error\":\"no\"}"), false}, {SPAN("<html>"), false}};
    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT), .json = true};
        struct stream_producer producer = {on_resume, on_cancel, NULL};
        struct cache_writer_settings writer = quiet_writer();
        struct span text = cases[i / 2].text;
        struct cache_memory_counts counts;
        struct reader reader;
        stream = stream_create(&settings, &producer);
        reader_init(&reader, SIZE_MAX);
        ck_assert(stream_subscribe(stream, &reader.subscriber, 0));
        ck_assert(cache_writer_start(&writer, stream));
        if (i % 2 == 0)
            stream_append(stream, text);
        else
            feed_last(text);
        stream_end(stream);
        ck_assert_int_eq(outcome, CACHE_STORED);
        cache_memory_counts(memory, &counts);
        ck_assert_uint_eq(counts.entries, 1);
        struct cache_entry *entry = stored();
        ck_assert_int_eq(entry != NULL, cases[i / 2].good);
        if (entry != NULL) {
            ck_assert(span_eq(chunk_bytes(cache_entry_chunks(entry)[0]), text));
            cache_entry_release(entry);
        }
        strbuf_dispose(&reader.got);
        cache_memory_purge(memory, NULL, NULL);
    }
}
END_TEST

START_TEST(what_cannot_be_stored_is_not_begun)
{
    struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT)};
    struct stream_producer producer = {on_resume, on_cancel, NULL};
    struct cache_writer_settings writer = {.memory = memory, .ttl_us = TTL, .on_done = on_done, .ctx = &dones};
    struct cache_header gzip = {SPAN("content-encoding"), SPAN("gzip")};
    struct cache_header plain = {SPAN("content-encoding"), SPAN(" Identity")};
    static const int statuses[] = {0, 201, 204, 206, 304, 400, 429, 500};
    dones = 0;
    stream = stream_create(&settings, &producer);
    for (size_t i = 0; i < COUNT(statuses); i++) {
        writer.status = statuses[i];
        ck_assert(!cache_writer_start(&writer, stream));
    }
    writer.status = 200;
    writer.header_count = 1;
    writer.headers = &gzip;
    ck_assert(!cache_writer_start(&writer, stream));
    struct reader reader;
    reader_init(&reader, SIZE_MAX);
    stream_subscribe(stream, &reader.subscriber, 0);
    stream_append(stream, SPAN("gone"));
    writer.headers = &plain;
    ck_assert(!cache_writer_start(&writer, stream)); /* too late */
    ck_assert_uint_eq(dones, 0);
    stream_end(stream);
    strbuf_dispose(&reader.got);
    stream = stream_create(&settings, &producer);
    ck_assert(cache_writer_start(&writer, stream));
    stream_append(stream, SPAN("{}"));
    stream_end(stream);
    ck_assert_int_eq(outcome, CACHE_STORED);
}
END_TEST

/* A client that leaves in the middle ends it all; one that leaves at the last event, as many do, has had a whole
 * answer. */
START_TEST(a_client_that_leaves_ends_it_all)
{
    struct span whole = span_of(dialects[0].text);
    for (int part = 0; part < 3; part++) {
        struct reader reader;
        ck_assert(begin(DIALECT_CHAT, true, &reader));
        if (part != 0)
            feed((struct span){whole.base, part == 1 ? whole.len / 2 : whole.len}, 1000);
        stream_unsubscribe(&reader.subscriber);
        ck_assert_uint_eq(cancels, 1);
        ck_assert_uint_eq(dones, 1);
        ck_assert_int_eq(outcome, part == 2 ? CACHE_STORED : CACHE_BROKEN);
        if (part != 2)
            expect_nothing_stored();
        strbuf_dispose(&reader.got);
    }
}
END_TEST

static void make_long(struct strbuf *text, size_t len)
{
    strbuf_init(text, 1 << 24);
    for (unsigned i = 0; text->len < len; i++)
        strbuf_printf(text, "data: {\"choices\":[{\"delta\":{\"content\":\"%u\"}}]}\n\n", i);
    strbuf_puts(text, "data: [DONE]\n\n");
}

START_TEST(what_grows_too_large_is_given_up)
{
    struct strbuf text;
    struct reader reader;
    make_long(&text, 310000);
    ck_assert(begin(DIALECT_CHAT, true, &reader));
    feed(strbuf_span(&text), 1000);
    ck_assert_uint_eq(dones, 1); /* before the end */
    ck_assert_int_eq(outcome, CACHE_TOO_LARGE);
    ck_assert_uint_eq(cancels, 0);
    stream_end(stream);
    ck_assert_int_eq(reader.state, STREAM_ENDED);
    ck_assert(span_eq(strbuf_span(&reader.got), strbuf_span(&text)));
    expect_nothing_stored();
    strbuf_dispose(&reader.got);
    /* Just too large together with what goes with it. */
    strbuf_dispose(&text);
    make_long(&text, 298500);
    ck_assert(begin(DIALECT_CHAT, true, &reader));
    feed(strbuf_span(&text), 1000);
    ck_assert_uint_eq(dones, 0);
    stream_end(stream);
    ck_assert_int_eq(outcome, CACHE_TOO_LARGE);
    expect_nothing_stored();
    strbuf_dispose(&reader.got);
    strbuf_dispose(&text);
}
END_TEST

/* A client that is slow is what pauses the backend, with a writer as without; and a writer never waits for it. */
START_TEST(the_reader_alone_sets_the_pace)
{
    struct reader reader;
    ck_assert(begin(DIALECT_CHAT, true, &reader));
    reader.idle = true;
    struct strbuf text;
    make_long(&text, 100000);
    struct span all = strbuf_span(&text);
    ck_assert_int_eq(stream_append(stream, (struct span){all.base, 60000}), STREAM_GO_ON);
    ck_assert_int_eq(stream_append(stream, (struct span){all.base + 60000, 6000}), STREAM_PAUSE);
    ck_assert_int_eq(stream_append(stream, span_skip(all, 66000)), STREAM_PAUSE);
    ck_assert_uint_eq(dones, 0);
    stream_end(stream);
    ck_assert_int_eq(outcome, CACHE_STORED); /* though the reader has read nothing */
    reader.idle = false;
    stream_ready(&reader.subscriber);
    ck_assert(span_eq(strbuf_span(&reader.got), all));
    strbuf_dispose(&reader.got);
    strbuf_dispose(&text);
}
END_TEST

START_TEST(a_replay_equals_the_original_whatever_the_pattern)
{
    static const size_t lengths[] = {1, 1000, 1024, 5000, 16000, 17000, 100000};
    static const size_t sizes[] = {1, 100, 1024, 16384, 40000};
    static const size_t bites[] = {1, 999, 16384, SIZE_MAX};
    for (size_t i = 0; i < COUNT(lengths) * COUNT(sizes); i++) {
        struct strbuf text;
        struct reader reader;
        make_long(&text, lengths[i / COUNT(sizes)]);
        ck_assert(begin(DIALECT_CHAT, true, &reader));
        feed(strbuf_span(&text), sizes[i % COUNT(sizes)]);
        stream_end(stream);
        strbuf_dispose(&reader.got);
        struct cache_entry *entry = stored();
        ck_assert_ptr_nonnull(entry);
        /* Little air: what is allocated is what is there, an eighth at most, and some for each chunk and the entry. */
        size_t there = text.len + sizeof(*entry);
        ck_assert_uint_le(entry->allocated, there + there / 8 + 192 + entry->chunk_count * 128);
        ck_assert_uint_le(entry->chunk_count, 1 + text.len / 16384);
        for (size_t b = 0; b < COUNT(bites); b++) {
            struct stream *replay = cache_entry_replay(entry);
            reader_init(&reader, bites[b]);
            ck_assert(stream_subscribe(replay, &reader.subscriber, 0));
            stream_release(replay);
            while (!reader.over)
                stream_ready(&reader.subscriber);
            ck_assert(span_eq(strbuf_span(&reader.got), strbuf_span(&text)));
            strbuf_dispose(&reader.got);
        }
        cache_entry_release(entry);
        strbuf_dispose(&text);
    }
}
END_TEST

static void expect_stored(struct span text)
{
    struct cache_entry *entry = stored();
    struct strbuf got;
    strbuf_init(&got, 1 << 24);
    ck_assert_ptr_nonnull(entry);
    for (size_t i = 0; i < entry->chunk_count; i++) {
        struct span bytes = chunk_bytes(cache_entry_chunks(entry)[i]);
        ck_assert_uint_le(bytes.len, 16384); /* a replay holds no more than a few of them for each reader */
        strbuf_add(&got, bytes);
    }
    ck_assert(span_eq(strbuf_span(&got), text));
    strbuf_dispose(&got);
    cache_entry_release(entry);
}

/* The end may come while much or little is unread, in one piece or in many, and with a last piece of its own. */
START_TEST(all_that_is_unread_at_the_end_is_stored)
{
    static const size_t lengths[] = {30, 900, 1024, 5000, 16384, 20000, 70000};
    static const size_t sizes[] = {20, 1000, 4096, 9000, 40000};
    for (size_t i = 0; i < COUNT(lengths) * COUNT(sizes) * 2; i++) {
        size_t size = sizes[i % COUNT(sizes)], length = lengths[i / COUNT(sizes) % COUNT(lengths)];
        bool breaks = i >= COUNT(lengths) * COUNT(sizes);
        struct cache_writer_settings writer = quiet_writer();
        struct stream_producer producer = {on_resume, on_cancel, NULL};
        struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT), .json = true};
        struct strbuf text;
        strbuf_init(&text, 1 << 24);
        strbuf_puts(&text, "[0");
        while (text.len < length)
            strbuf_printf(&text, ",%zu", text.len);
        strbuf_puts(&text, "]");
        struct span all = strbuf_span(&text);
        struct reader reader; /* keeps what the writer has not seen */
        stream = stream_create(&settings, &producer);
        reader_init(&reader, SIZE_MAX);
        reader.idle = true;
        ck_assert(stream_subscribe(stream, &reader.subscriber, 0));
        feed(all, size);
        if (breaks)
            stream_break(stream, STREAM_RESET, "x");
        else
            stream_end(stream);
        ck_assert(cache_writer_start(&writer, stream));
        ck_assert_int_eq(outcome, breaks ? CACHE_BROKEN : CACHE_STORED);
        if (breaks)
            expect_nothing_stored();
        else
            expect_stored(all);
        cache_memory_purge(memory, NULL, NULL);
        reader.idle = false;
        stream_ready(&reader.subscriber);
        strbuf_dispose(&reader.got);
        strbuf_dispose(&text);
        /* Events, of which the last comes with the end. */
        make_long(&text, length);
        all = strbuf_span(&text);
        ck_assert(begin(DIALECT_CHAT, true, &reader));
        size_t last = all.len < size ? all.len : size;
        feed((struct span){all.base, all.len - last}, size);
        feed_last(span_skip(all, all.len - last));
        stream_end(stream);
        ck_assert_int_eq(outcome, CACHE_STORED);
        expect_stored(all);
        cache_memory_purge(memory, NULL, NULL);
        strbuf_dispose(&reader.got);
        strbuf_dispose(&text);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("writer");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, streams_are_stored_after_their_proper_end);
    tcase_add_test(tests, improper_ends_store_nothing);
    tcase_add_test(tests, plain_answers);
    tcase_add_test(tests, plain_answers_may_be_judged_later);
    tcase_add_test(tests, what_cannot_be_stored_is_not_begun);
    tcase_add_test(tests, a_client_that_leaves_ends_it_all);
    tcase_add_test(tests, what_grows_too_large_is_given_up);
    tcase_add_test(tests, the_reader_alone_sets_the_pace);
    tcase_add_test(tests, a_replay_equals_the_original_whatever_the_pattern);
    tcase_add_test(tests, all_that_is_unread_at_the_end_is_stored);
    return run_suite("cache writer", tests);
}
