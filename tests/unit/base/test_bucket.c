#include "base/bucket.h"
#include "run_suite.h"
#include <stdlib.h>

static const struct bucket_rate rate = {.burst = 3, .per_second = 10};

static unsigned take_all(struct bucket *bucket, uint64_t now)
{
    unsigned taken = 0;
    while (bucket_take(bucket, &rate, now))
        taken++;
    return taken;
}

START_TEST(a_new_one_holds_its_burst)
{
    uint64_t times[] = {0, 1, 1000000, 1ull << 50};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        struct bucket bucket = {0};
        ck_assert_uint_eq(bucket_wait_us(&bucket, &rate, times[i]), 0);
        ck_assert_uint_eq(take_all(&bucket, times[i]), 3);
        ck_assert_uint_eq(bucket_wait_us(&bucket, &rate, times[i]), 100000);
    }
}
END_TEST

START_TEST(tokens_come_back_one_by_one_and_no_more_than_the_burst)
{
    struct bucket bucket = {0};
    uint64_t now = 5000000;
    take_all(&bucket, now);
    ck_assert(!bucket_take(&bucket, &rate, now + 99999));
    ck_assert_uint_eq(bucket_wait_us(&bucket, &rate, now + 99999), 1);
    ck_assert_uint_eq(take_all(&bucket, now + 100000), 1);
    ck_assert_uint_eq(take_all(&bucket, now + 300000), 2);
    ck_assert_uint_eq(take_all(&bucket, now + 100000000), 3);
}
END_TEST

START_TEST(what_is_refused_takes_nothing)
{
    struct bucket bucket = {0};
    take_all(&bucket, 1000);
    for (int i = 0; i < 100; i++)
        ck_assert(!bucket_take(&bucket, &rate, 1000));
    ck_assert(bucket_take(&bucket, &rate, 101000));
}
END_TEST

START_TEST(what_is_given_back_is_there_again_and_never_more_than_the_burst)
{
    struct bucket bucket = {0};
    uint64_t now = 7000000;
    for (int i = 0; i < 1000; i++) {
        ck_assert(bucket_take(&bucket, &rate, now));
        bucket_give(&bucket, &rate);
    }
    for (int i = 0; i < 10; i++)
        bucket_give(&bucket, &rate);
    ck_assert_uint_eq(take_all(&bucket, now), 3);
}
END_TEST

START_TEST(a_clock_that_steps_back_does_no_harm)
{
    struct bucket bucket = {0};
    take_all(&bucket, 1000000);
    ck_assert(!bucket_take(&bucket, &rate, 500000));
    ck_assert(bucket_take(&bucket, &rate, 1100000));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("bucket");
    tcase_add_test(tc, a_new_one_holds_its_burst);
    tcase_add_test(tc, tokens_come_back_one_by_one_and_no_more_than_the_burst);
    tcase_add_test(tc, what_is_refused_takes_nothing);
    tcase_add_test(tc, what_is_given_back_is_there_again_and_never_more_than_the_burst);
    tcase_add_test(tc, a_clock_that_steps_back_does_no_harm);
    return run_suite("bucket", tc);
}
