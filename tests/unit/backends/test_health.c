#include "backends/health.h"
#include "run_suite.h"
#include <stddef.h>

#define SECOND UINT64_C(1000000)
#define START (1000 * SECOND)

static struct health_settings settings;
static struct health health;
static uint32_t begun;

static void setup(void)
{
    health_settings_init(&settings);
    health_init(&health);
    begun = 0;
}

static const char *fail_once(enum health_failure failure, uint64_t now)
{
    return health_failed(&health, &settings, failure, ++begun, now);
}

/* Ejects it; returns when a trial may be made. */
static uint64_t eject(uint64_t now)
{
    health_eject(&health, &settings, "test", now);
    return health.until_us;
}

START_TEST(failures_in_a_row_eject)
{
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    ck_assert(!health_is_calm(&health));
    health_answered(&health, &settings, START);
    ck_assert(health_is_calm(&health));
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    ck_assert_str_eq(fail_once(HEALTH_NO_START, START), "failures in a row");
}
END_TEST

/* A server that answers every request and finishes none is no good either. */
START_TEST(deaths_in_a_row_eject_though_each_had_its_first_token)
{
    for (int i = 0; i < 2; i++) {
        health_answered(&health, &settings, START);
        ck_assert_ptr_null(fail_once(HEALTH_DEATH, START));
    }
    health_answered(&health, &settings, START);
    ck_assert_str_eq(fail_once(HEALTH_DEATH, START), "streams broken off in a row");
    setup();
    for (int i = 0; i < 9; i++) {
        ck_assert_ptr_null(fail_once(HEALTH_DEATH, START));
        health_finished(&health);
    }
}
END_TEST

START_TEST(an_error_rate_ejects_once_there_are_enough_requests)
{
    const char *reason = NULL;
    unsigned requests = 0;
    while (reason == NULL && requests < 100) {
        requests += 2; /* every other one fails */
        begun++;
        reason = fail_once(HEALTH_NO_START, START + requests);
        health_answered(&health, &settings, START);
    }
    ck_assert_str_eq(reason, "error rate");
    ck_assert_uint_ge(requests, 20);
    ck_assert_uint_le(requests, 22);
}
END_TEST

START_TEST(a_low_error_rate_and_old_failures_do_not_eject)
{
    for (unsigned i = 0; i < 1000; i++) {
        begun += 2;
        ck_assert_ptr_null(fail_once(HEALTH_NO_START, START + i * 1000));
        health_answered(&health, &settings, START);
    }
    setup();
    for (unsigned i = 0; i < 100; i++) { /* one in every window */
        ck_assert_ptr_null(fail_once(HEALTH_NO_START, START + i * 11 * SECOND));
        health_answered(&health, &settings, START);
    }
}
END_TEST

START_TEST(a_counter_that_wraps_does_no_harm)
{
    begun = UINT32_MAX - 5;
    for (int i = 0; i < 30; i++) {
        begun += 9;
        ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
        health_answered(&health, &settings, START);
    }
}
END_TEST

START_TEST(ejections_grow_up_to_a_maximum_and_start_over_after_recovery)
{
    static const uint64_t seconds[] = {5, 10, 20, 40, 80, 120, 120, 120};
    uint64_t now = START;
    for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
        uint64_t until = eject(now);
        ck_assert_uint_eq(until - now, seconds[i] * SECOND);
        ck_assert(!health_begin_trial(&health, until - 1));
        ck_assert(health_begin_trial(&health, until));
        ck_assert(!health_begin_trial(&health, until)); /* one is enough */
        ck_assert_str_eq(fail_once(HEALTH_NO_START, until), "the trial failed");
        now = until;
    }
    eject(now);
    now = health.until_us;
    ck_assert(health_begin_trial(&health, now));
    ck_assert(health_answered(&health, &settings, now));
    ck_assert_int_eq(health.state, HEALTH_SLOW);
    ck_assert(!health_settle(&health, &settings, now + 10 * SECOND - 1));
    ck_assert(health_settle(&health, &settings, now + 10 * SECOND));
    ck_assert_int_eq(health.state, HEALTH_HEALTHY);
    ck_assert_uint_eq(eject(now) - now, 5 * SECOND);
}
END_TEST

START_TEST(a_failure_in_slow_start_makes_the_next_ejection_longer)
{
    uint64_t now = eject(START);
    health_begin_trial(&health, now);
    health_answered(&health, &settings, now);
    ck_assert_uint_eq(eject(now) - now, 10 * SECOND);
}
END_TEST

START_TEST(without_slow_start_recovery_is_at_once)
{
    settings.slow_start_us = 0;
    uint64_t now = eject(START);
    health_begin_trial(&health, now);
    ck_assert(health_answered(&health, &settings, now));
    ck_assert_int_eq(health.state, HEALTH_HEALTHY);
}
END_TEST

START_TEST(a_trial_that_shows_nothing_leaves_room_for_another)
{
    uint64_t now = eject(START);
    health_begin_trial(&health, now);
    health_trial_void(&health, now + 3);
    ck_assert_int_eq(health.state, HEALTH_EJECTED);
    ck_assert(health_begin_trial(&health, now + 3));
}
END_TEST

START_TEST(late_answers_of_old_requests_change_nothing)
{
    eject(START);
    ck_assert(!health_answered(&health, &settings, START));
    health_finished(&health);
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    ck_assert_ptr_null(fail_once(HEALTH_DEATH, START));
    ck_assert_int_eq(health.state, HEALTH_EJECTED);
}
END_TEST

START_TEST(a_pause_is_as_long_as_asked_for_within_bounds)
{
    ck_assert_uint_eq(health_pause(&health, &settings, 7 * SECOND, START), START + 7 * SECOND);
    ck_assert_uint_eq(health_pause(&health, &settings, 1 * SECOND, START), START + 7 * SECOND); /* never shorter */
    ck_assert_uint_eq(health_pause(&health, &settings, 3600 * SECOND, START), START + 60 * SECOND);
    setup();
    ck_assert_uint_eq(health_pause(&health, &settings, 0, START), START + 1 * SECOND);
    ck_assert_int_eq(health.state, HEALTH_HEALTHY);
    ck_assert(health_is_calm(&health));
}
END_TEST

START_TEST(a_spared_server_is_counted_anew)
{
    fail_once(HEALTH_NO_START, START);
    fail_once(HEALTH_NO_START, START);
    ck_assert_ptr_nonnull(fail_once(HEALTH_NO_START, START));
    ck_assert(health_spare(&health, &settings, HEALTH_NO_START, START));
    ck_assert_int_eq(health.state, HEALTH_HEALTHY);
    ck_assert_ptr_null(fail_once(HEALTH_NO_START, START));
    eject(START);
    health_begin_trial(&health, health.until_us);
    ck_assert(health_spare(&health, &settings, HEALTH_NO_START, START));
    ck_assert_int_eq(health.state, HEALTH_HEALTHY);
}
END_TEST

START_TEST(a_spared_server_is_failing_until_it_answers)
{
    ck_assert(!health_begin_try(&health, &settings, START));
    ck_assert(health_spare(&health, &settings, HEALTH_NO_START, START));
    ck_assert(!health_is_calm(&health) && health.failing_until_us == START + 5 * SECOND);
    ck_assert(!health_begin_try(&health, &settings, START + 5 * SECOND - 1));
    ck_assert(!health_spare(&health, &settings, HEALTH_NO_START, START));
    ck_assert_uint_eq(health.failing_until_us, START + 10 * SECOND); /* longer each time */
    ck_assert(health_begin_try(&health, &settings, START + 10 * SECOND));
    ck_assert(!health_begin_try(&health, &settings, START + 10 * SECOND)); /* one at a time */
    ck_assert(!health_answered(&health, &settings, START + 10 * SECOND));
    ck_assert(health_is_calm(&health));
    ck_assert(health_spare(&health, &settings, HEALTH_NO_START, START));
    ck_assert_uint_eq(health.failing_until_us, START + 5 * SECOND);
    eject(START);
    ck_assert_uint_eq(health.failing_until_us, 0); /* one or the other */
}
END_TEST

START_TEST(one_whose_answers_break_off_is_failing_until_one_ends)
{
    ck_assert(health_spare(&health, &settings, HEALTH_DEATH, START));
    for (int i = 0; i < 3; i++) { /* it begins answers as ever */
        ck_assert(!health_answered(&health, &settings, START));
        ck_assert_uint_ne(health.failing_until_us, 0);
        fail_once(HEALTH_DEATH, START);
    }
    ck_assert(!health_spare(&health, &settings, HEALTH_DEATH, START));
    ck_assert_uint_eq(health.failing_until_us, START + 10 * SECOND);
    ck_assert(health_finished(&health));
    ck_assert(health_is_calm(&health));
    ck_assert(!health_finished(&health));
}
END_TEST

START_TEST(old_answers_that_end_are_no_new_ones_that_begin)
{
    health_spare(&health, &settings, HEALTH_NO_START, START);
    ck_assert(!health_finished(&health));
    ck_assert_uint_ne(health.failing_until_us, 0);
    health_spare(&health, &settings, HEALTH_DEATH, START); /* now it has to do both */
    health_answered(&health, &settings, START);
    ck_assert_uint_ne(health.failing_until_us, 0);
    ck_assert(health_finished(&health));
    ck_assert(health_is_calm(&health));
    health_spare(&health, &settings, HEALTH_DEATH, START);
    health_probed_down(&health, &settings, START);
    ck_assert(!health_finished(&health)); /* while it fails probes */
    ck_assert(health_probed_up(&health, &settings, START));
    ck_assert(health_is_calm(&health));
}
END_TEST

START_TEST(a_server_that_fails_probes_is_failing_until_it_passes_them)
{
    health_spare(&health, &settings, HEALTH_NO_START, START);
    health_probed_down(&health, &settings, START);
    ck_assert(!health_begin_try(&health, &settings, START + 20 * SECOND));
    ck_assert(!health_answered(&health, &settings, START));
    ck_assert_uint_ne(health.failing_until_us, 0);
    ck_assert(health_probed_up(&health, &settings, START));
    ck_assert(health_is_calm(&health) && health.state == HEALTH_HEALTHY);
    ck_assert(!health_probed_up(&health, &settings, START));
}
END_TEST

START_TEST(probes_bring_an_ejected_server_back)
{
    ck_assert(!health_probed_up(&health, &settings, START));
    eject(START);
    ck_assert(health_probed_up(&health, &settings, START + 1));
    ck_assert_int_eq(health.state, HEALTH_SLOW);
}
END_TEST

START_TEST(zero_turns_a_rule_off)
{
    settings.failures = settings.error_rate = 0;
    for (int i = 0; i < 1000; i++)
        ck_assert_ptr_null(fail_once(i % 2 == 0 ? HEALTH_NO_START : HEALTH_DEATH, START));
}
END_TEST

START_TEST(the_share_grows_from_a_tenth_to_all)
{
    ck_assert_uint_eq(health_share(START, 10 * SECOND, START), HEALTH_FULL / 10);
    ck_assert_uint_eq(health_share(START, 10 * SECOND, START - 5), HEALTH_FULL / 10);
    ck_assert_uint_eq(health_share(START, 10 * SECOND, START + 5 * SECOND), HEALTH_FULL / 2);
    ck_assert_uint_eq(health_share(START, 10 * SECOND, START + 10 * SECOND), HEALTH_FULL);
    ck_assert_uint_eq(health_share(START, 0, START), HEALTH_FULL);
}
END_TEST

START_TEST(what_a_backend_leaves_open_is_inherited)
{
    struct health_settings own;
    health_settings_init_inherit(&own);
    own.failures = 0;
    own.pause_us = 7;
    health_settings_inherit(&own, &settings);
    ck_assert_uint_eq(own.failures, 0);
    ck_assert_uint_eq(own.pause_us, 7);
    ck_assert_uint_eq(own.error_rate, 50);
    ck_assert_uint_eq(own.slow_start_us, 10 * SECOND);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("health");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, failures_in_a_row_eject);
    tcase_add_test(tests, deaths_in_a_row_eject_though_each_had_its_first_token);
    tcase_add_test(tests, an_error_rate_ejects_once_there_are_enough_requests);
    tcase_add_test(tests, a_low_error_rate_and_old_failures_do_not_eject);
    tcase_add_test(tests, a_counter_that_wraps_does_no_harm);
    tcase_add_test(tests, ejections_grow_up_to_a_maximum_and_start_over_after_recovery);
    tcase_add_test(tests, a_failure_in_slow_start_makes_the_next_ejection_longer);
    tcase_add_test(tests, without_slow_start_recovery_is_at_once);
    tcase_add_test(tests, a_trial_that_shows_nothing_leaves_room_for_another);
    tcase_add_test(tests, late_answers_of_old_requests_change_nothing);
    tcase_add_test(tests, a_pause_is_as_long_as_asked_for_within_bounds);
    tcase_add_test(tests, a_spared_server_is_counted_anew);
    tcase_add_test(tests, a_spared_server_is_failing_until_it_answers);
    tcase_add_test(tests, one_whose_answers_break_off_is_failing_until_one_ends);
    tcase_add_test(tests, old_answers_that_end_are_no_new_ones_that_begin);
    tcase_add_test(tests, a_server_that_fails_probes_is_failing_until_it_passes_them);
    tcase_add_test(tests, probes_bring_an_ejected_server_back);
    tcase_add_test(tests, zero_turns_a_rule_off);
    tcase_add_test(tests, the_share_grows_from_a_tenth_to_all);
    tcase_add_test(tests, what_a_backend_leaves_open_is_inherited);
    return run_suite("health", tests);
}
