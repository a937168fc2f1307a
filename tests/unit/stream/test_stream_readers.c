#include "stream/stream_reader.h"
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

/* ---- coming, going and calling back ---- */

START_TEST(the_last_to_leave_cancels_once)
{
    begin_plain();
    struct reader *a = join(HOLD), *b = join(HOLD);
    text("x");
    stream_unsubscribe(&a->subscriber);
    stream_unsubscribe(&a->subscriber); /* has none */
    ck_assert_uint_eq(cancels, 0);
    stream_unsubscribe(&b->subscriber);
    ck_assert_uint_eq(cancels, 1);
    ck_assert_ptr_null(stream);
    reader_free(a);
    reader_free(b);

    begin_plain(); /* paused, it is cancelled and not resumed */
    a = join(HOLD);
    zeros(100000);
    reader_free(a);
    ck_assert_uint_eq(cancels, 2);
    ck_assert_uint_eq(resumes, 0);

    begin_plain(); /* nobody ever */
    ck_assert_int_eq(text("x"), STREAM_UNWANTED);
    stream_break(stream, STREAM_CANCELLED, NULL);

    begin_plain(); /* over */
    a = join(HOLD);
    stream_end(stream);
    reader_free(a);
    ck_assert_uint_eq(cancels, 2);
}
END_TEST

START_TEST(leaving_from_within_is_told_by_the_result)
{
    static const enum manner manners[] = {LEAVE, TAKE_LEAVE};
    for (size_t i = 0; i < COUNT(manners); i++) {
        begin_plain();
        struct reader *a = join(manners[i]), *b = join(TAKE);
        ck_assert_int_eq(text("one"), STREAM_GO_ON);
        ck_assert(a->over && !b->over);
        b->manner = manners[i];
        ck_assert_int_eq(i == 0 ? text("two") : buffer("two"), STREAM_UNWANTED);
        ck_assert(!stream_is_wanted(stream));
        ck_assert_uint_eq(cancels, 0);
        stream_break(stream, STREAM_CANCELLED, NULL);
        expect_got(b, i == 0 ? "one" : "onetwo");
        reader_free(a);
        reader_free(b);
    }
    ck_assert_uint_eq(cancels, 0);
}
END_TEST

START_TEST(ready_calls_at_once_if_there_is_something)
{
    begin_plain();
    struct reader *reader = join(HOLD);
    stream_ready(&reader->subscriber);
    ck_assert_uint_eq(reader->calls, 0);
    text("ab");
    text("cd");
    ck_assert_uint_eq(reader->calls, 1);
    reader->manner = NIBBLE; /* stream_ready within on_data within stream_ready … */
    stream_ready(&reader->subscriber);
    expect_got(reader, "abcd");
    ck_assert_uint_eq(reader->calls, 5);
    ck_assert_uint_eq(reader->deepest, 4);
    text("ef");
    ck_assert_uint_eq(reader->calls, 7);
    expect_got(reader, "abcdef");

    reader->manner = WAIT; /* leaves it, and hears of it again only with more */
    text("g");
    ck_assert_uint_eq(reader->calls, 8);
    text("h");
    ck_assert_uint_eq(reader->calls, 9);
    reader->manner = TAKE;
    stream_wait(&reader->subscriber);
    ck_assert_uint_eq(reader->calls, 9);
    stream_end(stream);
    expect_got(reader, "abcdefgh");
    ck_assert(reader->over);
    reader_free(reader);
}
END_TEST

/* Every reader of three evicts every other, whichever is called first. */
START_TEST(a_reader_may_take_another_out)
{
    for (int evictor = 0; evictor < 3; evictor++) {
        for (int victim = 0; victim < 3; victim++) {
            if (victim == evictor)
                continue;
            begin_plain();
            struct reader *readers[3];
            for (int i = 0; i < 3; i++)
                readers[i] = join(TAKE);
            readers[evictor]->manner = EVICT;
            readers[evictor]->victim = readers[victim];
            ck_assert_int_eq(text("some"), STREAM_GO_ON);
            ck_assert_int_eq(buffer("thing"), STREAM_GO_ON);
            stream_end(stream);
            for (int i = 0; i < 3; i++) {
                if (i == victim)
                    continue;
                expect_got(readers[i], "something");
                ck_assert(readers[i]->over);
                ck_assert_uint_eq(readers[i]->calls, 3);
                reader_free(readers[i]);
            }
            ck_assert_uint_eq(cancels, 0);
        }
    }
}
END_TEST

START_TEST(a_reader_may_go_for_good_from_within)
{
    for (int mortal = 0; mortal < 3; mortal++) {
        for (int at_end = 0; at_end < 2; at_end++) {
            begin_plain();
            struct reader *readers[3];
            for (int i = 0; i < 3; i++)
                readers[i] = join(i == mortal && at_end == 0 ? DIE : TAKE);
            ck_assert_int_eq(text("text"), STREAM_GO_ON);
            if (at_end != 0)
                readers[mortal]->manner = DIE;
            stream_end(stream);
            for (int i = 0; i < 3; i++) {
                if (i == mortal)
                    continue;
                expect_got(readers[i], "text");
                ck_assert(readers[i]->over);
                reader_free(readers[i]);
            }
        }
    }
}
END_TEST

START_TEST(a_busy_reader_hears_of_the_end_when_it_asks)
{
    for (int broken = 0; broken < 2; broken++) {
        begin_plain();
        struct reader *busy = join(HOLD), *gone = join(TAKE), *late = reader_create(TAKE);
        text("rest");
        if (broken != 0)
            stream_break(stream, STREAM_RESET, "the peer hung up");
        else
            stream_end(stream);
        ck_assert(gone->over);
        ck_assert_uint_eq(busy->calls, 1);
        struct stream *over = busy->subscriber._stream;
        ck_assert_int_eq(stream_state(over), broken != 0 ? STREAM_BROKEN : STREAM_ENDED);
        ck_assert_str_eq(stream_failure_message(over), broken != 0 ? "the peer hung up" : "none");
        ck_assert(stream_subscribe(over, &late->subscriber, 2));
        stream_ready(&late->subscriber);
        expect_got(late, "st");
        stream_ready(&busy->subscriber); /* called, though it holds again */
        ck_assert_uint_eq(busy->calls, 2);
        take(busy, SIZE_MAX);
        stream_ready(&busy->subscriber); /* nothing left, but over */
        ck_assert_uint_eq(busy->calls, 3);
        busy->manner = TAKE;
        stream_ready(&busy->subscriber);
        expect_got(busy, "rest");
        ck_assert_int_eq(busy->failure, broken != 0 ? STREAM_RESET : STREAM_NOT_FAILED);
        reader_free(busy);
        reader_free(gone);
        reader_free(late);
        ck_assert_uint_eq(cancels + resumes, 0);
    }
}
END_TEST

/* ---- chunks that outlive their stream ---- */

struct kept {
    struct chunk *chunk;
    struct span bytes;
};

static struct kept kept[2];
static sem_t released;

/* Lives as long as the process, as workers do, since a thread's store of chunk heads goes only with that. */
static void *release_elsewhere(void *arg)
{
    for (int i = 0; i < 2; i++) {
        ck_assert(span_eq(kept[i].bytes, i == 0 ? SPAN("direct") : SPAN("packed")));
        chunk_release(kept[i].chunk);
    }
    sem_post(&released);
    for (;;)
        pause();
    return arg;
}

START_TEST(retained_bytes_outlive_the_stream)
{
    begin_plain();
    struct reader *reader = join(HOLD);
    buffer("direct");
    buffer("packed");
    struct slice slices[2];
    ck_assert_uint_eq(stream_peek(&reader->subscriber, slices, 2), 2);
    for (int i = 0; i < 2; i++)
        kept[i].chunk = chunk_retain(&slices[i], &kept[i].bytes);
    ck_assert_ptr_ne(kept[0].bytes.base, slices[0].bytes.base); /* this thread's memory is not given away */
    ck_assert_ptr_eq(kept[1].bytes.base, slices[1].bytes.base);
    ck_assert_ptr_eq(kept[1].chunk, slices[1].chunk);
    text("more in the same block");
    ck_assert_uint_eq(kept[1].bytes.len, 6);
    stream_end(stream);
    reader_free(reader);

    pthread_t thread;
    ck_assert_int_eq(sem_init(&released, 0, 0), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, release_elsewhere, NULL), 0);
    ck_assert_int_eq(sem_wait(&released), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("stream_readers");

    tcase_add_test(tests, the_last_to_leave_cancels_once);
    tcase_add_test(tests, leaving_from_within_is_told_by_the_result);
    tcase_add_test(tests, ready_calls_at_once_if_there_is_something);
    tcase_add_test(tests, a_reader_may_take_another_out);
    tcase_add_test(tests, a_reader_may_go_for_good_from_within);
    tcase_add_test(tests, a_busy_reader_hears_of_the_end_when_it_asks);
    tcase_add_test(tests, retained_bytes_outlive_the_stream);
    return run_tests("stream_readers", tests);
}
