#include "base/recycle.h"
#include "run_suite.h"
#include <string.h>

#define SIZE 64
#define MANY (2 * RECYCLE_MAX + 3)

static struct recycle kept;
static char *objects[MANY];

static void take_all(void)
{
    for (size_t i = 0; i < MANY; i++)
        memset(objects[i] = recycle_take(&kept, SIZE), (int)(i % 100), SIZE);
    for (size_t i = 0; i < MANY; i++) /* nobody has been given another's */
        for (size_t at = 0; at < SIZE; at++)
            ck_assert_int_eq(objects[i][at], (int)(i % 100));
}

START_TEST(no_more_than_the_maximum_is_kept)
{
    for (int round = 0; round < 3; round++) {
        take_all();
        ck_assert_uint_eq(kept._count, 0);
        for (size_t i = 0; i < MANY; i++)
            recycle_give(&kept, objects[i]);
        ck_assert_uint_eq(kept._count, RECYCLE_MAX);
    }
}
END_TEST

START_TEST(the_last_comes_first)
{
    char *first = recycle_take(&kept, SIZE), *second = recycle_take(&kept, SIZE);
    recycle_give(&kept, first);
    recycle_give(&kept, second);
    if (RECYCLE_MAX == 0) /* with sanitizers, which would tell of a use */
        return;
    ck_assert_ptr_eq(recycle_take(&kept, SIZE), second);
    ck_assert_ptr_eq(recycle_take(&kept, SIZE), first);
    recycle_give(&kept, first);
    recycle_give(&kept, second);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("recycle");

    tcase_add_test(tests, no_more_than_the_maximum_is_kept);
    tcase_add_test(tests, the_last_comes_first);
    return run_suite("recycle", tests);
}
