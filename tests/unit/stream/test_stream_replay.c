/* Streams that are over from the start, and subscribers that only watch. */
#include "base/strbuf.h"
#include "run_suite.h"
#include "stream/stream.h"
#include <pthread.h>
#include <stdlib.h>

#define PIECES 5
#define THREADS 2
#define ROUNDS 300

static h2o_buffer_prototype_t prototype = {._initial_buf = {.capacity = 4096}};

struct reader {
    struct stream_subscriber subscriber;
    size_t bite; /* takes so much at a time; 0: nothing, but wants to hear of more */
    struct strbuf got;
    unsigned calls;
    bool over, leave;
    enum stream_state state;
    enum stream_failure failure;
    const char *base; /* where the last slice stood */
};

static struct stream *stream;
static unsigned cancels, resumes;
static bool breaks_late;

static void on_data(struct stream_subscriber *subscriber)
{
    struct reader *reader = H2O_STRUCT_FROM_MEMBER(struct reader, subscriber, subscriber);
    struct slice slice;
    reader->calls++;
    if (reader->leave) {
        stream_unsubscribe(subscriber);
        return;
    }
    for (size_t left = reader->bite; left != 0 && stream_peek(subscriber, &slice, 1) != 0;) {
        size_t n = slice.bytes.len < left ? slice.bytes.len : left;
        reader->base = slice.bytes.base;
        strbuf_add(&reader->got, (struct span){slice.bytes.base, n});
        stream_consume(subscriber, n);
        left -= n;
    }
    if (reader->bite == 0) {
        stream_wait(subscriber);
    } else if (stream_state(subscriber->_stream) != STREAM_OPEN && stream_unread(subscriber) == 0) {
        reader->over = true;
        reader->state = stream_state(subscriber->_stream);
        reader->failure = stream_failure(subscriber->_stream);
        stream_unsubscribe(subscriber);
    } else if (stream_unread(subscriber) == 0) {
        stream_ready(subscriber);
    }
}

static void reader_init(struct reader *reader, bool passive, size_t bite)
{
    *reader = (struct reader){.subscriber = {.on_data = on_data, .passive = passive}, .bite = bite};
    strbuf_init(&reader->got, 1 << 20);
}

static void join(struct reader *reader, bool passive, size_t bite)
{
    reader_init(reader, passive, bite);
    ck_assert(stream_subscribe(stream, &reader->subscriber, 0));
}

static void on_resume(void *ctx)
{
    (void)ctx;
    resumes++;
}

static void on_cancel(void *ctx)
{
    (void)ctx;
    cancels++;
    if (!breaks_late)
        stream_break(stream, STREAM_CANCELLED, NULL);
}

static void open_stream(size_t high_water)
{
    struct stream_settings settings = {.high_water = high_water};
    struct stream_producer producer = {on_resume, on_cancel, NULL};
    stream = stream_create(&settings, &producer);
    cancels = resumes = 0;
    breaks_late = false;
}

/* ---- passive subscribers ---- */

START_TEST(the_last_reader_cancels_though_one_watches)
{
    struct reader reader, watcher;
    for (int order = 0; order < 2; order++) {
        open_stream(0);
        join(order == 0 ? &reader : &watcher, order != 0, SIZE_MAX);
        join(order == 0 ? &watcher : &reader, order == 0, SIZE_MAX);
        ck_assert_int_eq(stream_append(stream, SPAN("some")), STREAM_GO_ON);
        ck_assert(!watcher.over);
        stream_unsubscribe(&reader.subscriber);
        ck_assert_uint_eq(cancels, 1);
        ck_assert(watcher.over);
        ck_assert_int_eq(watcher.state, STREAM_BROKEN);
        ck_assert_int_eq(watcher.failure, STREAM_CANCELLED);
        ck_assert_str_eq(strbuf_cstr(&watcher.got), "some");
        strbuf_dispose(&reader.got);
        strbuf_dispose(&watcher.got);
    }
}
END_TEST

START_TEST(a_reader_that_leaves_while_told_makes_the_stream_unwanted)
{
    struct reader reader, watcher;
    open_stream(0);
    join(&watcher, true, SIZE_MAX);
    join(&reader, false, SIZE_MAX);
    reader.leave = true;
    ck_assert(stream_is_wanted(stream));
    ck_assert_int_eq(stream_append(stream, SPAN("x")), STREAM_UNWANTED);
    ck_assert(!stream_is_wanted(stream));
    ck_assert_uint_eq(cancels, 0);
    ck_assert(!watcher.over);
    stream_break(stream, STREAM_CANCELLED, NULL);
    ck_assert(watcher.over);
    ck_assert_int_eq(watcher.state, STREAM_BROKEN);
    strbuf_dispose(&reader.got);
    strbuf_dispose(&watcher.got);
}
END_TEST

START_TEST(watchers_alone_are_nobody)
{
    struct reader watcher;
    open_stream(0);
    join(&watcher, true, SIZE_MAX);
    ck_assert(!stream_is_wanted(stream));
    ck_assert_int_eq(stream_append(stream, SPAN("x")), STREAM_UNWANTED);
    stream_unsubscribe(&watcher.subscriber); /* cancels nothing */
    ck_assert_uint_eq(cancels, 0);
    stream_break(stream, STREAM_CANCELLED, NULL);
    strbuf_dispose(&watcher.got);
}
END_TEST

START_TEST(a_watcher_may_leave_first)
{
    struct reader reader, watcher;
    open_stream(8);
    join(&reader, false, SIZE_MAX);
    join(&watcher, true, 0);
    ck_assert_int_eq(stream_append(stream, SPAN("0123456789")), STREAM_PAUSE);
    stream_unsubscribe(&watcher.subscriber);
    ck_assert_uint_eq(cancels, 0);
    ck_assert_uint_eq(resumes, 1);
    breaks_late = true;
    strbuf_dispose(&watcher.got);
    reader_init(&watcher, true, 0);
    ck_assert(stream_subscribe(stream, &watcher.subscriber, 10));
    stream_unsubscribe(&reader.subscriber);
    ck_assert_uint_eq(cancels, 1);
    stream_unsubscribe(&watcher.subscriber); /* between the cancelling and the break: nothing more is asked */
    ck_assert_uint_eq(cancels, 1);
    ck_assert_uint_eq(resumes, 1);
    stream_break(stream, STREAM_CANCELLED, NULL);
    strbuf_dispose(&reader.got);
    strbuf_dispose(&watcher.got);
}
END_TEST

/* The client's bytes are not copied because the cache looks on. */
START_TEST(a_watcher_costs_no_copy)
{
    struct reader reader, watcher;
    h2o_buffer_t *input;
    h2o_buffer_init(&input, &prototype);
    for (int lazy = 0; lazy < 2; lazy++) {
        open_stream(0);
        join(&reader, false, SIZE_MAX);
        join(&watcher, true, lazy ? 0 : SIZE_MAX);
        for (int i = 0; i < 3; i++) {
            h2o_buffer_reserve(&input, 100);
            memcpy(input->bytes, "some text", 9);
            input->size = 9;
            const char *stood = input->bytes;
            stream_append_buffer(stream, &input);
            if (!lazy || i == 0)
                ck_assert_ptr_eq(reader.base, stood);
            else
                ck_assert_ptr_ne(reader.base, stood); /* what has to wait is packed */
        }
        watcher.bite = SIZE_MAX;
        stream_end(stream);
        ck_assert_str_eq(strbuf_cstr(&watcher.got), "some textsome textsome text");
        ck_assert(watcher.over && reader.over);
        strbuf_dispose(&reader.got);
        strbuf_dispose(&watcher.got);
    }
    h2o_buffer_dispose(&input);
}
END_TEST

/* ---- streams that are over ---- */

static struct chunk *chunks[PIECES];
static struct strbuf whole;

static void make_chunks(void)
{
    strbuf_init(&whole, 1 << 20);
    for (unsigned i = 0; i < PIECES; i++) {
        size_t len = i == 2 ? 0 : 1 + i * 977; /* one is empty */
        char *memory = malloc(len + 1);
        ck_assert_ptr_nonnull(memory);
        for (size_t j = 0; j < len; j++)
            memory[j] = (char)('a' + (i * 7 + j) % 26);
        strbuf_add(&whole, (struct span){memory, len});
        chunks[i] = chunk_adopt(memory, len, len + 1);
        ck_assert(span_eq(chunk_bytes(chunks[i]), (struct span){memory, len}));
        ck_assert_uint_gt(chunk_allocated(chunks[i]), len + 1);
    }
}

static void drop_chunks(void)
{
    for (unsigned i = 0; i < PIECES; i++)
        chunk_release(chunks[i]);
    strbuf_dispose(&whole);
}

static struct stream *replay(void)
{
    struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT), .sse = true};
    struct stream_facts facts = {.bytes = 1, .events = 12, .terminal = true, .usage = {.known = true, .prompt = 5}};
    return stream_create_ended(&settings, &facts, chunks, PIECES);
}

START_TEST(a_replay_is_over_and_knows_its_facts)
{
    make_chunks();
    stream = replay();
    ck_assert_int_eq(stream_state(stream), STREAM_ENDED);
    const struct stream_facts *facts = stream_facts(stream);
    ck_assert_uint_eq(facts->bytes, whole.len);
    ck_assert_uint_eq(facts->events, 12);
    ck_assert_uint_eq(facts->usage.prompt, 5);
    ck_assert(facts->terminal && facts->first_event_us != 0 && facts->last_event_us != 0);
    ck_assert_ptr_eq(stream_dialect(stream), dialect_get(DIALECT_CHAT));
    ck_assert(stream_is_sse(stream));
    stream_release(stream);
    stream = stream_create_ended(&(struct stream_settings){.sse = false}, &(struct stream_facts){.bytes = 0}, NULL, 0);
    struct reader reader;
    join(&reader, false, 10);
    stream_release(stream);
    ck_assert(!reader.over);
    stream_ready(&reader.subscriber);
    ck_assert(reader.over && reader.got.len == 0);
    strbuf_dispose(&reader.got);
    drop_chunks();
}
END_TEST

/* Reads `bite` bytes whenever asked, and compares. */
static void read_through(size_t bite, bool late)
{
    struct reader reader, other;
    stream = replay();
    join(&reader, false, bite);
    join(&other, false, late ? SIZE_MAX : 1 + bite / 2);
    stream_release(stream); /* the subscribers keep it */
    unsigned calls = 0;
    while (!reader.over) {
        ck_assert_uint_eq(reader.calls, calls++);
        stream_ready(&reader.subscriber);
        ck_assert_uint_eq(reader.got.len, reader.over ? whole.len : calls * bite);
        if (!late && !other.over)
            stream_ready(&other.subscriber);
    }
    while (!other.over)
        stream_ready(&other.subscriber);
    ck_assert_int_eq(reader.state, STREAM_ENDED);
    ck_assert(span_eq(strbuf_span(&reader.got), strbuf_span(&whole)));
    ck_assert(span_eq(strbuf_span(&other.got), strbuf_span(&whole)));
    strbuf_dispose(&reader.got);
    strbuf_dispose(&other.got);
}

START_TEST(a_replay_is_byte_for_byte_whatever_is_read_at_a_time)
{
    make_chunks();
    static const size_t bites[] = {1, 2, 3, 977, 978, 1955, 4000, 5863, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof(bites) / sizeof(bites[0]); i++) {
        read_through(bites[i], false);
        read_through(bites[i], true);
    }
    drop_chunks();
}
END_TEST

START_TEST(bytes_outlive_stream_and_owner)
{
    make_chunks();
    struct reader reader;
    struct slice slice;
    struct span bytes;
    stream = replay();
    join(&reader, false, 1);
    stream_release(stream);
    ck_assert_uint_eq(stream_peek(&reader.subscriber, &slice, 1), 1);
    struct span first = chunk_bytes(chunks[0]);
    ck_assert_ptr_eq(slice.bytes.base, first.base); /* shared, not copied */
    struct chunk *kept = chunk_retain(&slice, &bytes);
    struct stream *second =
        stream_create_ended(&(struct stream_settings){.sse = false}, &(struct stream_facts){.bytes = 0}, &kept, 1);
    drop_chunks();
    stream_unsubscribe(&reader.subscriber); /* in the middle */
    ck_assert_int_eq(bytes.base[0], 'a');
    chunk_release(kept);
    stream = second;
    join(&reader, false, SIZE_MAX);
    stream_release(second);
    stream_ready(&reader.subscriber);
    ck_assert(reader.over);
    ck_assert_str_eq(strbuf_cstr(&reader.got), "a");
    strbuf_dispose(&reader.got);
}
END_TEST

static void *replay_often(void *arg)
{
    (void)arg;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct reader reader;
        struct stream *mine = replay();
        reader_init(&reader, false, 1 + round * 13);
        bool joined = stream_subscribe(mine, &reader.subscriber, 0);
        stream_release(mine);
        while (joined && !reader.over)
            stream_ready(&reader.subscriber);
        if (!span_eq(strbuf_span(&reader.got), strbuf_span(&whole)))
            return "differs";
        strbuf_dispose(&reader.got);
    }
    return NULL;
}

START_TEST(many_threads_replay_one_set_of_chunks)
{
    pthread_t threads[THREADS];
    void *problem;
    make_chunks();
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, replay_often, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &problem);
        ck_assert_ptr_null(problem);
    }
    drop_chunks();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("replay");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, the_last_reader_cancels_though_one_watches);
    tcase_add_test(tests, a_reader_that_leaves_while_told_makes_the_stream_unwanted);
    tcase_add_test(tests, watchers_alone_are_nobody);
    tcase_add_test(tests, a_watcher_may_leave_first);
    tcase_add_test(tests, a_watcher_costs_no_copy);
    tcase_add_test(tests, a_replay_is_over_and_knows_its_facts);
    tcase_add_test(tests, a_replay_is_byte_for_byte_whatever_is_read_at_a_time);
    tcase_add_test(tests, bytes_outlive_stream_and_owner);
    tcase_add_test(tests, many_threads_replay_one_set_of_chunks);
    return run_suite("stream_replay", tests);
}
