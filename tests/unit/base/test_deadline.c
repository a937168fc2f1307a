#include "base/deadline.h"
#include "run_suite.h"
#include <stdlib.h>

#define CROWD 2000

struct owner {
    struct deadline deadline;
    uint64_t at_us;
    int calls;
};

static struct deadlines set;
static struct owner *called[CROWD];
static size_t call_count;

static struct owner *owner_of(struct deadline *deadline)
{
    return (struct owner *)((char *)deadline - offsetof(struct owner, deadline));
}

static void note(struct deadline *deadline)
{
    struct owner *owner = owner_of(deadline);
    ck_assert(!deadline_armed(deadline));
    owner->calls++;
    called[call_count++ % CROWD] = owner;
}

static void setup(void)
{
    deadlines_init(&set);
    call_count = 0;
}

static void teardown(void)
{
    deadlines_dispose(&set);
}

static void arm(struct owner *owner, uint64_t at_us)
{
    owner->at_us = at_us;
    deadline_arm(&set, &owner->deadline, at_us);
}

START_TEST(fires_in_order_of_time_and_once)
{
    struct owner a = {.deadline.cb = note}, b = a, c = a, d = a;
    arm(&a, 300);
    arm(&b, 100);
    arm(&c, 200);
    arm(&d, 100);
    deadlines_run(&set, 99);
    ck_assert_uint_eq(call_count, 0);
    deadlines_run(&set, 200);
    ck_assert_uint_eq(call_count, 3);
    ck_assert_ptr_eq(called[0], &b);
    ck_assert_ptr_eq(called[1], &d); /* equal times: first armed, first called */
    ck_assert_ptr_eq(called[2], &c);
    ck_assert(deadline_armed(&a.deadline));
    deadlines_run(&set, 1000);
    deadlines_run(&set, 2000);
    ck_assert_uint_eq(call_count, 4);
    ck_assert_int_eq(a.calls, 1);
}
END_TEST

START_TEST(arming_again_moves_and_disarming_is_idempotent)
{
    struct owner a = {.deadline.cb = note}, b = a;
    arm(&a, 100);
    arm(&b, 200);
    arm(&a, 300);
    deadlines_run(&set, 250);
    ck_assert_uint_eq(call_count, 1);
    ck_assert_ptr_eq(called[0], &b);
    arm(&a, 260);
    deadline_disarm(&set, &a.deadline);
    deadline_disarm(&set, &a.deadline);
    deadline_disarm(&set, &b.deadline);
    deadlines_run(&set, 1000);
    ck_assert_uint_eq(call_count, 1);
}
END_TEST

START_TEST(waits_are_rounded_up)
{
    struct owner a = {.deadline.cb = note};
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, 500), 500);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, -1), -1);
    arm(&a, 10001);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, 500), 11);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, -1), 11);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, 5), 5);
    ck_assert_int_eq(deadlines_wait_ms(&set, 9001, 500), 1);
    ck_assert_int_eq(deadlines_wait_ms(&set, 10000, 500), 1);
    ck_assert_int_eq(deadlines_wait_ms(&set, 10001, 500), 0);
    ck_assert_int_eq(deadlines_wait_ms(&set, 99999, 500), 0);
    arm(&a, UINT64_MAX);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, 500), 500);
    ck_assert_int_eq(deadlines_wait_ms(&set, 0, -1), INT32_MAX);
}
END_TEST

static void rearm_past(struct deadline *deadline)
{
    note(deadline);
    deadline_arm(&set, deadline, 1);
}

START_TEST(armed_for_the_past_in_a_run_waits_for_the_next)
{
    struct owner a = {.deadline.cb = rearm_past}, b = {.deadline.cb = note}, c = {.deadline.cb = rearm_past};
    arm(&a, 10);
    arm(&b, 20);
    arm(&c, 30);
    deadlines_run(&set, 30);
    ck_assert_uint_eq(call_count, 3);
    ck_assert_ptr_eq(called[1], &b); /* not kept from its turn by those armed for earlier */
    deadlines_run(&set, 30);
    ck_assert_uint_eq(call_count, 5);
    ck_assert_int_eq(a.calls, 2);
    ck_assert_int_eq(c.calls, 2);
    ck_assert_int_eq(deadlines_wait_ms(&set, 30, 500), 0);
}
END_TEST

static struct owner *victim;

static void free_self_and_victim(struct deadline *deadline)
{
    note(deadline);
    if (victim != NULL) {
        deadline_disarm(&set, &victim->deadline);
        free(victim);
        victim = NULL;
    }
    free(owner_of(deadline));
}

START_TEST(callbacks_may_free_themselves_and_others)
{
    struct owner *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b)), *c = calloc(1, sizeof(*c));
    a->deadline.cb = b->deadline.cb = c->deadline.cb = free_self_and_victim;
    arm(a, 10);
    arm(b, 20);
    arm(c, 30);
    victim = b;
    deadlines_run(&set, 100);
    ck_assert_uint_eq(call_count, 2);
    ck_assert_ptr_null(victim);
    ck_assert_int_eq(deadlines_wait_ms(&set, 100, 7), 7);
}
END_TEST

static struct owner crowd[CROWD];
static uint64_t run_us, last_us, run_calls;

static uint32_t next_random(void)
{
    static uint32_t state = 12345;
    state = state * 1664525 + 1013904223;
    return state >> 8;
}

/* Besides counting, disturbs the heap: arms, moves and disarms others in the middle of the run. */
static void disturb(struct deadline *deadline)
{
    struct owner *owner = owner_of(deadline);
    ck_assert_uint_le(owner->at_us, run_us);
    ck_assert_uint_ge(owner->at_us, last_us);
    last_us = owner->at_us;
    owner->at_us = UINT64_MAX;
    run_calls++;
    struct owner *other = &crowd[next_random() % CROWD];
    if (next_random() % 3 == 0) {
        deadline_disarm(&set, &other->deadline);
        other->at_us = UINT64_MAX;
    } else {
        arm(other, run_us + 1 + next_random() % 1000);
    }
}

START_TEST(random_operations_agree_with_a_plain_table)
{
    for (size_t i = 0; i < CROWD; i++)
        crowd[i] = (struct owner){.deadline.cb = disturb, .at_us = UINT64_MAX};
    uint64_t total = 0;
    for (run_us = 1; run_us < 20000; run_us += 1 + next_random() % 200) {
        for (int i = 0; i < 50; i++) {
            struct owner *owner = &crowd[next_random() % CROWD];
            if (next_random() % 4 == 0) {
                deadline_disarm(&set, &owner->deadline);
                owner->at_us = UINT64_MAX;
            } else {
                arm(owner, next_random() % 4 == 0 ? run_us : run_us + next_random() % 3000);
            }
        }
        last_us = run_calls = 0;
        deadlines_run(&set, run_us);
        total += run_calls;
        /* Each assertion is a system call of Check's: one for all. */
        size_t armed = 0, wrong = 0, left = 0;
        for (size_t i = 0; i < CROWD; i++) {
            wrong += deadline_armed(&crowd[i].deadline) != (crowd[i].at_us != UINT64_MAX);
            left += crowd[i].at_us <= run_us; /* although it is due */
            armed += deadline_armed(&crowd[i].deadline);
        }
        ck_assert_uint_eq(wrong, 0);
        ck_assert_uint_eq(left, 0);
        ck_assert_uint_eq(armed, set._count);
    }
    ck_assert_uint_gt(total, 1000);
}
END_TEST

START_TEST(dispose_forgets_without_calling)
{
    struct owner a = {.deadline.cb = note};
    arm(&a, 1);
    deadlines_dispose(&set);
    deadlines_run(&set, 100);
    ck_assert_int_eq(a.calls, 0);
    deadline_disarm(&set, &a.deadline);
    ck_assert(!deadline_armed(&a.deadline));
    arm(&a, 2);
    deadlines_run(&set, 100);
    ck_assert_int_eq(a.calls, 1);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("deadline");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, fires_in_order_of_time_and_once);
    tcase_add_test(tc, arming_again_moves_and_disarming_is_idempotent);
    tcase_add_test(tc, waits_are_rounded_up);
    tcase_add_test(tc, armed_for_the_past_in_a_run_waits_for_the_next);
    tcase_add_test(tc, callbacks_may_free_themselves_and_others);
    tcase_add_test(tc, random_operations_agree_with_a_plain_table);
    tcase_add_test(tc, dispose_forgets_without_calling);
    return run_suite("deadline", tc);
}
