#include "backends/retry.h"
#include "run_suite.h"

static struct retry_settings settings;
static struct retry_budget budget;

static void setup(void)
{
    retry_settings_init(&settings);
    retry_budget_init(&budget, 1000000);
}

static unsigned take_all(uint64_t now)
{
    unsigned taken = 0;
    while (retry_budget_take(&budget, &settings, now) && taken < 100000)
        taken++;
    return taken;
}

START_TEST(a_quiet_gateway_has_a_few)
{
    ck_assert_uint_eq(take_all(1000000), RETRY_MINIMUM);
    ck_assert_uint_eq(take_all(1999999), 0);
    ck_assert_uint_eq(take_all(4000000), 3);
    ck_assert_uint_eq(take_all(4000000000), RETRY_MINIMUM);
}
END_TEST

START_TEST(an_outage_costs_a_fifth_more_not_a_multiple)
{
    unsigned taken = 0;
    take_all(1000000);
    for (int i = 0; i < 10000; i++) { /* every request fails and wants two more */
        retry_budget_fill(&budget, &settings);
        taken += retry_budget_take(&budget, &settings, 1000000);
        taken += retry_budget_take(&budget, &settings, 1000000);
    }
    ck_assert_uint_eq(taken, 2000);
}
END_TEST

START_TEST(what_is_saved_up_is_bounded)
{
    for (int i = 0; i < 1000000; i++)
        retry_budget_fill(&budget, &settings);
    ck_assert_uint_eq(take_all(1000000), RETRY_MAXIMUM);
}
END_TEST

START_TEST(no_budget_no_retry)
{
    settings.budget = 0;
    retry_budget_fill(&budget, &settings);
    ck_assert(!retry_budget_take(&budget, &settings, 99000000));
}
END_TEST

START_TEST(back_off_doubles_within_its_bounds_and_has_chance_in_it)
{
    for (unsigned attempt = 2; attempt < 100; attempt++) {
        uint64_t full = attempt - 2 < 6 ? UINT64_C(25000) << (attempt - 2) : RETRY_BACKOFF_MAX_US;
        if (full > RETRY_BACKOFF_MAX_US)
            full = RETRY_BACKOFF_MAX_US;
        ck_assert_uint_eq(retry_backoff_us(&settings, attempt, 0), full / 2);
        ck_assert_uint_eq(retry_backoff_us(&settings, attempt, UINT64_MAX), full / 2 + full / 2);
    }
    settings.backoff_us = 0;
    ck_assert_uint_eq(retry_backoff_us(&settings, 9, UINT64_MAX), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("retry");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, a_quiet_gateway_has_a_few);
    tcase_add_test(tests, an_outage_costs_a_fifth_more_not_a_multiple);
    tcase_add_test(tests, what_is_saved_up_is_bounded);
    tcase_add_test(tests, no_budget_no_retry);
    tcase_add_test(tests, back_off_doubles_within_its_bounds_and_has_chance_in_it);
    return run_suite("retry", tests);
}
