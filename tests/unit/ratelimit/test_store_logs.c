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
    store_pages_init(&pages, MAX_BYTES, 0);
    store_memory_init(&memory, &pages, MAX_BYTES);
    store_logs_init(&logs, &memory);
}

static void tear_down(void)
{
    store_memory_dispose(&memory);
    store_pages_dispose(&pages);
}

struct room {
    uint64_t *slots;
    size_t bytes;
};

static bool take(struct room *room, size_t bytes)
{
    room->slots = store_logs_create(&logs, &bytes);
    room->bytes = bytes;
    return room->slots != NULL;
}

static void give_back(struct room *room)
{
    store_logs_destroy(&logs, room->slots, room->bytes);
    room->slots = NULL;
}

/* Writes all of it, so that one that lies over another is found out. */
static void fill(struct room *room, uint64_t mark)
{
    for (size_t i = 0; i < room->bytes / sizeof(mark); i++)
        room->slots[i] = mark;
}

static void check(struct room *room, uint64_t mark)
{
    for (size_t i = 0; i < room->bytes / sizeof(mark); i++)
        ck_assert_uint_eq(room->slots[i], mark);
}

START_TEST(logs_of_all_sizes_lie_apart_and_within_half_of_the_bytes)
{
    static struct room held[LOGS];
    size_t count = 0, refused = 0;

    srand(7);
    for (int step = 0; step < 40000; step++) {
        size_t at = (size_t)rand() % LOGS;
        size_t bytes = (size_t)STRATEGY_LOG_BYTES_MIN << rand() % (step % 8 + 1);
        if (held[at].slots != NULL) {
            check(&held[at], at + 1);
            give_back(&held[at]);
            count--;
        } else if (take(&held[at], bytes)) {
            ck_assert_uint_ge(held[at].bytes, bytes);
            ck_assert_uint_eq((uintptr_t)held[at].slots % STRATEGY_LOG_BYTES_MIN, 0);
            fill(&held[at], at + 1);
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
        if (held[i].slots == NULL)
            continue;
        check(&held[i], i + 1);
        give_back(&held[i]);
    }
    ck_assert_uint_eq(logs._bytes, 0);
}
END_TEST

/* What small logs leave behind serves large ones, and entries, and small logs again. */
START_TEST(pages_that_are_left_make_room_for_all_else)
{
    static struct room held[LOGS];
    static void *taken[LOGS];
    size_t small = 0, again = 0, count = 0, own = memory.bytes;

    while (take(&held[small], 64))
        small++;
    ck_assert_uint_gt(small, 1900); /* 65 bytes each */
    for (size_t i = 0; i < small; i++)
        give_back(&held[i]);
    /* Their half, and what was free besides. */
    ck_assert_uint_gt(memory.bytes, MAX_BYTES / 3);
    size_t rest = MAX_BYTES - own;
    ck_assert(store_memory_fits(&memory, rest));
    ck_assert(!store_memory_fits(&memory, rest + 1));
    store_memory_charge(&memory, rest);
    ck_assert_uint_eq(memory.bytes, MAX_BYTES);
    ck_assert_ptr_null(store_memory_take_page(&memory));
    ck_assert(!take(&held[0], 64));
    store_memory_discharge(&memory, rest);
    while ((taken[count] = store_memory_take_page(&memory)) != NULL)
        memset(taken[count++], 255, STORE_PAGE_BYTES);
    ck_assert_uint_eq(count, rest / STORE_PAGE_BYTES);
    ck_assert_uint_le(atomic_load(&pages._used), MAX_BYTES); /* the same pages */
    for (size_t i = 0; i < count; i++)
        store_memory_return_page(&memory, taken[i]);
    while (take(&held[again], 64))
        fill(&held[again++], 1);
    ck_assert_uint_eq(again, small);
}
END_TEST

/* One of 512 bytes has taken the last page: what is left of it is for whoever comes, so that one that asks for little
 * is not refused sooner than one that asks for much. */
START_TEST(a_small_log_takes_a_larger_place_when_its_own_are_used_up)
{
    static struct room held[LOGS];
    size_t count = 0;

    ck_assert(take(&held[count++], 512));
    while (take(&held[count], 64) && held[count].bytes == 64)
        count++;
    ck_assert_uint_eq(held[count].bytes, 512);
    for (size_t i = 0; i <= count; i++)
        fill(&held[i], i);
    for (size_t i = 0; i <= count; i++) {
        check(&held[i], i);
        give_back(&held[i]);
    }
    ck_assert_uint_eq(logs._bytes, 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("store_logs");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, logs_of_all_sizes_lie_apart_and_within_half_of_the_bytes);
    tcase_add_test(tc, pages_that_are_left_make_room_for_all_else);
    tcase_add_test(tc, a_small_log_takes_a_larger_place_when_its_own_are_used_up);
    return run_suite("store_logs", tc);
}
