#include "stream/stream_reader.h"

/* ---- how bytes are held ---- */

START_TEST(one_ready_reader_gets_the_producers_own_buffer)
{
    begin_plain();
    struct reader *reader = join(TAKE);
    ck_assert(stream_is_wanted(stream));
    const char *base;
    for (unsigned i = 1; i <= 3; i++) {
        ck_assert_int_eq(buffer_at("hello ", &base), STREAM_GO_ON);
        ck_assert_ptr_eq(reader->base, base);
        ck_assert_ptr_null(input->bytes); /* handed over: the prototype is back in its place */
        ck_assert_uint_eq(reader->calls, i);
    }
    ck_assert_int_eq(text("copied"), STREAM_GO_ON);
    ck_assert_int_eq(stream_append_buffer(stream, &input), STREAM_GO_ON); /* nothing in it */
    ck_assert_int_eq(text(""), STREAM_GO_ON);
    ck_assert_uint_eq(reader->calls, 4);
    expect_got(reader, "hello hello hello copied");
    ck_assert_uint_eq(stream_facts(stream)->bytes, 24);
    stream_end(stream);
    ck_assert(reader->over && reader->state == STREAM_ENDED && cancels == 0);
    reader_free(reader);
}
END_TEST

START_TEST(the_last_bytes_and_the_end_come_together)
{
    begin_plain();
    struct reader *reader = join(TAKE), *idle = join(HOLD);
    buffer("first ");
    ck_assert_uint_eq(reader->calls, 1);
    memcpy(h2o_buffer_reserve(&input, 4).base, "last", 4);
    input->size += 4;
    stream_append_last(stream, &input);
    ck_assert_uint_eq(input->size, 0);
    ck_assert_uint_eq(reader->calls, 1);
    ck_assert(!reader->over);
    stream_end(stream);
    ck_assert_uint_eq(reader->calls, 2);
    ck_assert(reader->over && reader->state == STREAM_ENDED);
    expect_got(reader, "first last");
    take(idle, SIZE_MAX);
    expect_got(idle, "first last");
    reader_free(reader);
    reader_free(idle);

    begin_plain(); /* there may be none */
    reader = join(TAKE);
    stream_append_last(stream, &input);
    stream_end(stream);
    ck_assert_uint_eq(reader->calls, 1);
    ck_assert(reader->over);
    reader_free(reader);
}
END_TEST

START_TEST(bytes_that_wait_or_stay_are_copied)
{
    const char *base;
    begin_plain(); /* two readers */
    struct reader *a = join(TAKE), *b = join(TAKE);
    buffer_at("x", &base);
    ck_assert_ptr_ne(a->base, base);
    ck_assert_ptr_eq(a->base, b->base);
    stream_end(stream);
    reader_free(a);
    reader_free(b);

    begin(&(struct stream_settings){.keep_bytes = 100000});
    a = join(TAKE);
    buffer_at("x", &base);
    ck_assert_ptr_ne(a->base, base);
    stream_end(stream);
    reader_free(a);

    begin_plain(); /* it does not wait for them now */
    a = join(TAKE_HOLD);
    buffer("x");
    buffer_at("y", &base);
    ck_assert_ptr_nonnull(base);
    take(a, SIZE_MAX);
    ck_assert_ptr_ne(a->base, base);

    a->manner = WAIT; /* it waits, but not for these */
    stream_ready(&a->subscriber);
    buffer("p");
    buffer_at("q", &base);
    take(a, 1);
    take(a, 1);
    ck_assert_ptr_ne(a->base, base);
    expect_got(a, "xypq");
    stream_end(stream);
    reader_free(a);
}
END_TEST

/* 2000 buffers of 4 KiB with a byte each are 8 MB of air, packed they are one block. */
START_TEST(waiting_bytes_are_packed)
{
    begin(&(struct stream_settings){.max_bytes = 12288});
    struct reader *reader = join(HOLD);
    for (int i = 0; i < 2000; i++)
        ck_assert_int_eq(buffer("z"), STREAM_GO_ON);
    struct slice slices[8];
    ck_assert_uint_eq(stream_peek(&reader->subscriber, slices, 8), 2);
    ck_assert_uint_eq(slices[0].bytes.len, 1);
    ck_assert_uint_eq(slices[1].bytes.len, 1999);
    ck_assert_uint_eq(stream_peek(&reader->subscriber, slices, 1), 1);
    ck_assert_uint_eq(stream_peek(&reader->subscriber, slices, 0), 0);
    ck_assert_uint_eq(reader->calls, 1);
    stream_consume(&reader->subscriber, 500); /* over a border, in one go */
    ck_assert_uint_eq(stream_peek(&reader->subscriber, slices, 8), 1);
    ck_assert_uint_eq(slices[0].bytes.len, 1500);
    ck_assert_uint_eq(stream_unread(&reader->subscriber), 1500);
    stream_end(stream);
    reader_free(reader);
}
END_TEST

START_TEST(each_reader_has_a_cursor)
{
    begin_plain();
    struct reader *slow = join(HOLD), *fast = join(TAKE), *nibbler = join(NIBBLE);
    buffer("one ");
    text("two ");
    buffer("three");
    expect_got(fast, "one two three");
    expect_got(nibbler, "one two three");
    ck_assert_uint_eq(nibbler->slices, 13);
    ck_assert_uint_eq(slow->calls, 1);
    ck_assert_uint_eq(stream_unread(&slow->subscriber), 13);
    ck_assert_uint_eq(stream_unread(&fast->subscriber), 0);
    take(slow, 5);
    expect_got(slow, "one t");
    stream_end(stream);
    ck_assert(fast->over && nibbler->over && !slow->over);
    take(slow, SIZE_MAX);
    expect_got(slow, "one two three");
    ck_assert_int_eq(stream_state(slow->subscriber._stream), STREAM_ENDED);
    reader_free(slow);
    reader_free(fast);
    reader_free(nibbler);
}
END_TEST

START_TEST(chunks_go_with_the_slowest)
{
    begin_plain();
    struct reader *slow = join(HOLD), *fast = join(TAKE);
    ck_assert_int_eq(zeros(20000), STREAM_GO_ON);
    ck_assert_int_eq(zeros(20000), STREAM_GO_ON);
    ck_assert(may_join(0) && may_join(40000) && !may_join(40001));
    take(slow, 19999);
    ck_assert(may_join(0));
    take(slow, 1);
    ck_assert(!may_join(0) && !may_join(19999) && may_join(20000));
    reader_free(slow);
    ck_assert(!may_join(39999) && may_join(40000));
    ck_assert_uint_eq(cancels, 0);
    stream_end(stream);
    reader_free(fast);
}
END_TEST

/* ---- back-pressure and limits ---- */

START_TEST(pauses_at_high_water_and_resumes_at_half)
{
    begin(&(struct stream_settings){.high_water = 1000});
    struct reader *slow = join(HOLD), *fast = join(TAKE);
    ck_assert_int_eq(zeros(999), STREAM_GO_ON);
    ck_assert_int_eq(zeros(1), STREAM_PAUSE);
    take(slow, 499);
    ck_assert_uint_eq(resumes, 0);
    take(slow, 1);
    ck_assert_uint_eq(resumes, 1);
    take(slow, 400);
    ck_assert_uint_eq(resumes, 1); /* once for each pause */
    ck_assert_int_eq(zeros(900), STREAM_PAUSE);
    ck_assert_uint_eq(stream_unread(&slow->subscriber), 1000);
    reader_free(slow); /* the one that was behind */
    ck_assert_uint_eq(resumes, 2);
    ck_assert_int_eq(zeros(5000), STREAM_GO_ON); /* taken from within */
    ck_assert_uint_eq(stream_unread(&fast->subscriber), 0);
    ck_assert_uint_eq(resumes, 2);
    fast->manner = HOLD;
    ck_assert_int_eq(zeros(5000), STREAM_PAUSE);
    stream_end(stream);
    take(fast, SIZE_MAX);
    ck_assert_uint_eq(resumes, 2); /* there is nobody to go on */
    reader_free(fast);
}
END_TEST

START_TEST(the_default_high_water_is_64_kib)
{
    begin_plain();
    struct reader *reader = join(HOLD);
    ck_assert_int_eq(zeros(65535), STREAM_GO_ON);
    ck_assert_int_eq(zeros(1), STREAM_PAUSE);
    stream_end(stream);
    reader_free(reader);
}
END_TEST

START_TEST(more_than_the_maximum_is_too_much)
{
    begin(&(struct stream_settings){.high_water = SIZE_MAX, .max_bytes = 8192});
    struct reader *reader = join(HOLD), *other = join(TAKE);
    ck_assert_int_eq(zeros(4096), STREAM_GO_ON);
    ck_assert_int_eq(zeros(4096), STREAM_GO_ON);
    take(reader, 4096);
    ck_assert_int_eq(zeros(4096), STREAM_GO_ON);
    ck_assert_int_eq(zeros(1), STREAM_FULL);
    stream_break(stream, STREAM_OVERFLOW, NULL);
    ck_assert_int_eq(other->failure, STREAM_OVERFLOW);
    ck_assert_uint_eq(other->got.len, 3 * 4096 + 1);
    ck_assert_str_eq(stream_failure_message(reader->subscriber._stream), "overflow");
    take(reader, SIZE_MAX);
    ck_assert_uint_eq(reader->got.len, 3 * 4096 + 1);
    ck_assert_uint_eq(cancels + resumes, 0);
    reader_free(reader);
    reader_free(other);
}
END_TEST

START_TEST(what_is_kept_can_be_joined_late)
{
    begin(&(struct stream_settings){.keep_bytes = 3 * 4096, .high_water = 100});
    struct reader *first = join(TAKE), *late = reader_create(TAKE), *later = reader_create(TAKE);
    ck_assert_int_eq(buffer("from the "), STREAM_GO_ON);
    ck_assert_int_eq(text("start"), STREAM_GO_ON);
    ck_assert(stream_subscribe(stream, &late->subscriber, 0));
    ck_assert_uint_eq(late->calls, 0);
    stream_ready(&late->subscriber);
    expect_got(late, "from the start");
    ck_assert(stream_subscribe(stream, &later->subscriber, 9));
    stream_ready(&later->subscriber);
    expect_got(later, "start");
    ck_assert(!may_join(15));

    ck_assert_int_eq(zeros(3 * 4096 - 14), STREAM_GO_ON);
    ck_assert(may_join(0));
    ck_assert_int_eq(zeros(1), STREAM_GO_ON); /* no longer */
    ck_assert(!may_join(0) && may_join(3 * 4096 + 1));
    const char *base;
    reader_free(late);
    reader_free(later);
    buffer_at("own", &base); /* and so nothing need be copied any more */
    ck_assert_ptr_eq(first->base, base);
    stream_end(stream);
    ck_assert_uint_eq(first->got.len, 3 * 4096 + 4);
    reader_free(first);
}
END_TEST

START_TEST(giving_up_keeps_what_the_slowest_needs)
{
    begin(&(struct stream_settings){.keep_bytes = 8192, .max_bytes = 40000, .high_water = SIZE_MAX});
    struct reader *slow = join(HOLD);
    ck_assert_int_eq(text("slow"), STREAM_GO_ON);
    take(slow, 4);
    ck_assert_int_eq(zeros(20000), STREAM_GO_ON);
    ck_assert(may_join(4096) || may_join(4));
    take(slow, SIZE_MAX);
    ck_assert_uint_eq(slow->got.len, 20004);
    ck_assert(!may_join(0));
    stream_end(stream);
    reader_free(slow);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("stream");

    tcase_add_test(tests, one_ready_reader_gets_the_producers_own_buffer);
    tcase_add_test(tests, the_last_bytes_and_the_end_come_together);
    tcase_add_test(tests, bytes_that_wait_or_stay_are_copied);
    tcase_add_test(tests, waiting_bytes_are_packed);
    tcase_add_test(tests, each_reader_has_a_cursor);
    tcase_add_test(tests, chunks_go_with_the_slowest);
    tcase_add_test(tests, pauses_at_high_water_and_resumes_at_half);
    tcase_add_test(tests, the_default_high_water_is_64_kib);
    tcase_add_test(tests, more_than_the_maximum_is_too_much);
    tcase_add_test(tests, what_is_kept_can_be_joined_late);
    tcase_add_test(tests, giving_up_keeps_what_the_slowest_needs);
    return run_tests("stream", tests);
}
