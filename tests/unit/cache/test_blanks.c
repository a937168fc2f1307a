#include "cache/blanks.h"
#include "run_suite.h"
#include <stdlib.h>
#include <string.h>

/* Compares what is kept of a text of this size with what one byte after the other gives, in memory of exactly that
 * size. */
static void expect_kept(const struct blanks *blanks, const char *text, size_t len)
{
    unsigned char *kept = malloc(len + 1), *wanted = malloc(len + 1);
    char *exact = malloc(len + 1);
    size_t count = 0;
    memcpy(exact, text, len);
    exact = realloc(exact, len != 0 ? len : 1);
    kept = realloc(kept, len != 0 ? len : 1);
    for (size_t i = 0; i < len; i++)
        if (memchr(" \t\r\n", text[i], 4) == NULL)
            wanted[count++] = (unsigned char)text[i];
    ck_assert_uint_eq(blanks_drop(blanks, kept, exact, len), count);
    ck_assert_mem_eq(kept, wanted, count);
    free(kept);
    free(wanted);
    free(exact);
}

START_TEST(what_is_no_blank_stays_in_order)
{
    static const char bytes[] = " \t\r\n,0a\"\x7f\x01\xa0\xff\x0b";
    struct blanks quick, plain;
    char text[100];
    blanks_init(&quick);
    plain = quick;
    plain._shuffles = false; /* as on a processor that cannot */
    srand(7);
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)rand() % sizeof(text), kinds = 1 + (size_t)rand() % (sizeof(bytes) - 1);
        for (size_t i = 0; i < len; i++)
            text[i] = bytes[(size_t)rand() % kinds];
        expect_kept(&quick, text, len);
        expect_kept(&plain, text, len);
    }
}
END_TEST

START_TEST(every_pattern_of_eight)
{
    struct blanks blanks;
    char text[8];
    blanks_init(&blanks);
    for (unsigned mask = 0; mask < 256; mask++) {
        for (int i = 0; i < 8; i++)
            text[i] = (mask >> i & 1) != 0 ? ' ' : (char)('a' + i);
        expect_kept(&blanks, text, 8);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("blanks");
    tcase_add_test(tests, what_is_no_blank_stays_in_order);
    tcase_add_test(tests, every_pattern_of_eight);
    return run_suite("blanks", tests);
}
