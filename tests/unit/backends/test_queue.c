#include "backends/queue.h"
#include "run_suite.h"
#include <stdlib.h>
#include <string.h>

#define ENTRIES 2000

static struct queue queue;
static struct queue_entry entries[ENTRIES];
static const struct queue_entry *unfit;

static void setup(void)
{
    queue_init(&queue, 1000);
    memset(entries, 0, sizeof(entries));
    unfit = NULL;
}

static bool fits(void *ctx, struct queue_entry *entry)
{
    (void)ctx;
    return entry != unfit;
}

/* The number of the entry whose turn it is; -1: none. */
static int take(void)
{
    struct queue_entry *entry = queue_take(&queue, fits, NULL);
    if (entry == NULL)
        return -1;
    ck_assert(!queue_holds(entry));
    return (int)(entry - entries);
}

static void push(int i, enum queue_class class, uint64_t key)
{
    ck_assert(queue_push(&queue, &entries[i], class, key));
    ck_assert(queue_holds(&entries[i]));
}

static void drain(void)
{
    while (take() >= 0)
        ;
    ck_assert_uint_eq(queue.waiting, 0);
}

START_TEST(one_key_is_served_in_order)
{
    for (int i = 0; i < 5; i++)
        push(i, QUEUE_NORMAL, 1);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(take(), i);
    ck_assert_int_eq(take(), -1);
}
END_TEST

START_TEST(a_key_with_a_thousand_requests_does_not_delay_the_others)
{
    for (int i = 0; i < 990; i++)
        push(i, QUEUE_NORMAL, 1);
    push(990, QUEUE_NORMAL, 2);
    push(991, QUEUE_NORMAL, 2);
    push(992, QUEUE_NORMAL, 3);
    static const int order[] = {0, 990, 992, 1, 991, 2, 3};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        ck_assert_int_eq(take(), order[i]);
    drain();
}
END_TEST

START_TEST(a_higher_class_goes_first_but_not_for_ever)
{
    for (int i = 0; i < 100; i++)
        push(i, QUEUE_HIGH, 1);
    push(500, QUEUE_NORMAL, 2);
    push(600, QUEUE_LOW, 3);
    bool normal = false, low = false;
    for (int i = 0; i < QUEUE_PATIENCE; i++)
        ck_assert_int_lt(take(), 100);
    for (int i = 0; i < 3; i++) {
        int taken = take();
        normal |= taken == 500;
        low |= taken == 600;
    }
    ck_assert(normal && low);
    drain();
}
END_TEST

START_TEST(it_holds_no_more_than_its_maximum)
{
    for (int i = 0; i < 1000; i++)
        push(i, QUEUE_NORMAL, (uint64_t)i % 7);
    ck_assert(!queue_push(&queue, &entries[1000], QUEUE_HIGH, 1));
    ck_assert(!queue_holds(&entries[1000]));
    queue_remove(&queue, &entries[500]);
    queue_remove(&queue, &entries[500]);
    push(1000, QUEUE_HIGH, 1);
    ck_assert_int_eq(take(), 1000);
    drain();
}
END_TEST

START_TEST(an_entry_that_does_not_fit_holds_nobody_up)
{
    push(0, QUEUE_HIGH, 1);
    push(1, QUEUE_HIGH, 1);
    push(2, QUEUE_NORMAL, 2);
    unfit = &entries[0];
    ck_assert_int_eq(take(), 1);
    ck_assert_int_eq(take(), 2);
    ck_assert_int_eq(take(), -1);
    unfit = NULL;
    ck_assert_int_eq(take(), 0);
}
END_TEST

/* Against a plain model: whatever is pushed, removed and taken, everything comes out once and keys keep their order. */
START_TEST(random_operations)
{
    static int key_of[ENTRIES], class_of[ENTRIES], last[QUEUE_CLASSES][5];
    bool in[ENTRIES] = {false};
    size_t inside = 0;
    srand(4711);
    memset(last, 0xff, sizeof(last));
    for (int next = 0, step = 0; step < 20000; step++) {
        int what = rand() % 4;
        if (what < 2 && next < ENTRIES) {
            key_of[next] = rand() % 5;
            class_of[next] = rand() % QUEUE_CLASSES;
            if (queue_push(&queue, &entries[next], (enum queue_class)class_of[next], (uint64_t)key_of[next]))
                in[next] = true, inside++;
            next++;
        } else if (what == 2 && next > 0) {
            int i = rand() % next;
            queue_remove(&queue, &entries[i]);
            inside -= in[i];
            in[i] = false;
        } else {
            int i = take();
            ck_assert_int_eq(i >= 0, inside != 0);
            if (i < 0)
                continue;
            ck_assert(in[i]);
            ck_assert_int_gt(i, last[class_of[i]][key_of[i]]);
            last[class_of[i]][key_of[i]] = i;
            in[i] = false;
            inside--;
        }
        ck_assert_uint_eq(queue.waiting, inside);
    }
    drain();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("queue");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, one_key_is_served_in_order);
    tcase_add_test(tests, a_key_with_a_thousand_requests_does_not_delay_the_others);
    tcase_add_test(tests, a_higher_class_goes_first_but_not_for_ever);
    tcase_add_test(tests, it_holds_no_more_than_its_maximum);
    tcase_add_test(tests, an_entry_that_does_not_fit_holds_nobody_up);
    tcase_add_test(tests, random_operations);
    return run_suite("queue", tests);
}
