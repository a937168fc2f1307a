#include "cache/blanks.h"
#include "run_suite.h"
#include <stdlib.h>
#include <string.h>

/* Compares what is kept of a text of this size, in pieces of at most `piece` bytes, with what one byte after the other
 * gives, in memory of exactly that size. */
static void expect_kept(const struct blanks *blanks, const char *text, size_t len, size_t piece)
{
    unsigned char *wanted = malloc(len + 1);
    size_t count = 0, kept_count = 0;
    bool inside = false;
    for (size_t i = 0; i < len; i++) {
        if (inside || memchr(" \t\r\n", text[i], 4) == NULL)
            wanted[count++] = (unsigned char)text[i];
        size_t slashes = 0;
        while (slashes < i && text[i - 1 - slashes] == '\\')
            slashes++;
        inside ^= text[i] == '"' && slashes % 2 == 0;
    }
    struct blanks_state state = {0};
    for (size_t at = 0; at < len; at += piece) {
        size_t n = piece < len - at ? piece : len - at;
        unsigned char *kept = malloc(n);
        char *exact = malloc(n);
        memcpy(exact, text + at, n);
        size_t more = blanks_drop(blanks, &state, kept, exact, n);
        ck_assert_uint_le(kept_count + more, count);
        ck_assert_mem_eq(kept, wanted + kept_count, more);
        kept_count += more;
        free(kept);
        free(exact);
    }
    ck_assert_uint_eq(kept_count, count);
    ck_assert_uint_eq(state.inside, inside ? UINT64_MAX : 0);
    free(wanted);
}

START_TEST(what_is_no_blank_stays_in_order)
{
    static const char bytes[] = "a  \t\r\n,0\\\\\"\"\x7f\x01\xa0\xff\x0b";
    struct blanks quick, plain;
    char text[400];
    blanks_init(&quick);
    plain = quick;
    plain._shuffles = false; /* as on a processor that cannot */
    srand(7);
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)rand() % sizeof(text), kinds = 1 + (size_t)rand() % (sizeof(bytes) - 1);
        int odds = 1 + rand() % 20; /* strings are long or short */
        for (size_t i = 0; i < len; i++) {
            text[i] = bytes[(size_t)rand() % kinds];
            if (text[i] == '"' && rand() % odds != 0)
                text[i] = ' ';
        }
        size_t piece = 1 + (size_t)rand() % sizeof(text);
        expect_kept(&quick, text, len, piece);
        expect_kept(&plain, text, len, piece);
    }
}
END_TEST

START_TEST(every_pattern_of_eight)
{
    struct blanks blanks;
    char text[64];
    blanks_init(&blanks);
    for (unsigned mask = 0; mask < 256; mask++) {
        for (int i = 0; i < 64; i++)
            text[i] = (mask >> i % 8 & 1) != 0 ? ' ' : (char)('#' + i);
        expect_kept(&blanks, text, 64, 64);
    }
}
END_TEST

/* An escaped quote ends no string, wherever blocks end. */
START_TEST(escapes_at_any_place)
{
    struct blanks blanks;
    char text[256];
    blanks_init(&blanks);
    for (size_t place = 1; place < 200; place++) {
        memset(text, 'a', sizeof(text));
        text[0] = '"';
        text[place] = '\\';
        text[place + 1] = '"';
        text[place + 2] = ' ';
        for (size_t piece = 64; piece <= 256; piece *= 2)
            expect_kept(&blanks, text, sizeof(text), piece);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("blanks");
    tcase_add_test(tests, what_is_no_blank_stays_in_order);
    tcase_add_test(tests, every_pattern_of_eight);
    tcase_add_test(tests, escapes_at_any_place);
    return run_suite("blanks", tests);
}
