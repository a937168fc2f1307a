#include "ratelimit/store_logs.h"
#include "run_suite.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)256 * 1024)
#define LOGS 4096

static struct store_pages pages;
static struct store_memory memory;
static struct store_logs logs;

static void set_up(void)
{
    store_pages_init(&pages, MAX_BYTES);
    store_memory_init(&memory, &pages, MAX_BYTES);
    store_logs_init(&logs, &memory);
}

static void tear_down(void)
{
    store_memory_dispose(&memory);
    store_pages_dispose(&pages);
}

/* Writes all of a log, so that one that lies over another is found out. */
static void fill(struct strategy_log *log, uint64_t mark)
{
    for (uint32_t i = 0; i < log->cap; i++)
        strategy_log_push(log, i, mark, 1);
}

static void check(struct strategy_log *log, uint64_t mark)
{
    ck_assert_uint_eq(log->count, log->cap);
    for (uint32_t i = 0; i < log->cap; i++)
        ck_assert_uint_eq(strategy_log_at(log, i)->cost, mark);
}

START_TEST(logs_of_all_sizes_lie_apart_and_within_half_of_the_bytes)
{
    static struct strategy_log *held[LOGS];
    size_t count = 0, refused = 0;

    srand(7);
    for (int step = 0; step < 40000; step++) {
        size_t at = (size_t)rand() % LOGS;
        if (held[at] != NULL) {
            check(held[at], at + 1);
            store_logs_destroy(&logs, held[at]);
            held[at] = NULL;
            count--;
        } else if ((held[at] = store_logs_create(&logs, UINT32_C(4) << rand() % (step % 8 + 1))) != NULL) {
            fill(held[at], at + 1);
            count++;
        } else {
            refused++;
        }
        ck_assert_uint_le(logs._bytes, MAX_BYTES / 2);
        ck_assert_uint_le(memory.bytes, MAX_BYTES);
    }
    ck_assert_uint_gt(count, 50);
    ck_assert_uint_gt(refused, 1000);
    for (size_t i = 0; i < LOGS; i++) {
        if (held[i] == NULL)
            continue;
        check(held[i], i + 1);
        store_logs_destroy(&logs, held[i]);
        held[i] = NULL;
    }
    ck_assert_uint_eq(logs._bytes, 0);
}
END_TEST

/* What small logs leave behind serves large ones, and entries, and small logs again. */
START_TEST(pages_that_are_left_make_room_for_all_else)
{
    static struct strategy_log *held[LOGS];
    static void *taken[LOGS];
    size_t small = 0, again = 0, count = 0, own = memory.bytes;

    while ((held[small] = store_logs_create(&logs, 4)) != NULL)
        small++;
    ck_assert_uint_gt(small, 1500); /* 82 bytes each */
    for (size_t i = 0; i < small; i++)
        store_logs_destroy(&logs, held[i]);
    /* Their half, and what was free besides. */
    ck_assert_uint_gt(memory.bytes, MAX_BYTES / 3);
    size_t rest = MAX_BYTES - own;
    ck_assert(store_memory_fits(&memory, rest));
    ck_assert(!store_memory_fits(&memory, rest + 1));
    store_memory_charge(&memory, rest);
    ck_assert_uint_eq(memory.bytes, MAX_BYTES);
    ck_assert_ptr_null(store_memory_take_page(&memory));
    ck_assert_ptr_null(store_logs_create(&logs, 4));
    store_memory_discharge(&memory, rest);
    while ((taken[count] = store_memory_take_page(&memory)) != NULL)
        memset(taken[count++], 255, STORE_PAGE_BYTES);
    ck_assert_uint_eq(count, rest / STORE_PAGE_BYTES);
    ck_assert_uint_le(atomic_load(&pages._used), MAX_BYTES); /* the same pages */
    for (size_t i = 0; i < count; i++)
        store_memory_return_page(&memory, taken[i]);
    while ((held[again] = store_logs_create(&logs, 4)) != NULL)
        fill(held[again++], 1);
    ck_assert_uint_eq(again, small);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("store_logs");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, logs_of_all_sizes_lie_apart_and_within_half_of_the_bytes);
    tcase_add_test(tc, pages_that_are_left_make_room_for_all_else);
    return run_suite("store_logs", tc);
}
