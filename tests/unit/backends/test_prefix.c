#include "backends/prefix.h"
#include "run_suite.h"
#include <stdlib.h>

#define LONG_PROMPT 100000

static struct prefix_table *table;
static char prompt[1000000];

static void setup(void)
{
    table = prefix_table_create(4096);
    for (size_t i = 0; i < sizeof(prompt); i++)
        prompt[i] = (char)('a' + i * 7 % 26);
}

static void teardown(void)
{
    prefix_table_destroy(table);
}

static struct prefix hash(size_t len)
{
    struct prefix prefix;
    prefix_hash(&prefix, (struct span){prompt, len}, 1);
    return prefix;
}

START_TEST(prompts_share_the_hashes_of_what_they_share)
{
    struct prefix whole = hash(LONG_PROMPT), other;
    ck_assert_uint_eq(whole.count, 16 + 28 + 56 + 4);
    for (size_t at = 0; at < LONG_PROMPT; at += 997) {
        prompt[at] ^= 1;
        other = hash(LONG_PROMPT);
        prompt[at] ^= 1;
        size_t same = 0;
        while (same < whole.count && whole.hashes[same] == other.hashes[same])
            same++;
        /* as many as lie before the byte that differs, and none behind it */
        for (size_t i = same; i < whole.count; i++)
            ck_assert_uint_ne(whole.hashes[i], other.hashes[i]);
        struct prefix before = hash(at);
        ck_assert_uint_eq(same, at < 64 ? 0 : at >= LONG_PROMPT ? whole.count : before.count);
    }
}
END_TEST

START_TEST(lengths)
{
    ck_assert_uint_eq(hash(0).count, 0);
    ck_assert_uint_eq(hash(1).count, 1); /* short ones are told apart too */
    ck_assert_uint_ne(hash(1).hashes[0], hash(2).hashes[0]);
    ck_assert_uint_eq(hash(64).count, 1);
    ck_assert_uint_eq(hash(127).count, 1);
    ck_assert_uint_eq(hash(128).count, 2);
    ck_assert_uint_eq(hash(1024).count, 16);
    ck_assert_uint_eq(hash(sizeof(prompt)).count, PREFIX_BLOCKS_MAX);
    struct prefix one, two;
    prefix_hash(&one, (struct span){prompt, 64}, 1);
    prefix_hash(&two, (struct span){prompt, 64}, 2);
    ck_assert_uint_ne(one.hashes[0], two.hashes[0]);
}
END_TEST

START_TEST(the_longest_known_part_says_who)
{
    struct prefix first = hash(2000), longer = hash(9000);
    size_t known;
    ck_assert_uint_eq(prefix_find(table, &first, 100, &known), PREFIX_NOBODY);
    ck_assert_uint_eq(known, 0);
    prefix_remember(table, &first, 7, 0, 100);
    ck_assert_uint_eq(prefix_find(table, &longer, 101, &known), 7);
    ck_assert_uint_eq(known, first.count);
    prefix_remember(table, &longer, 9, 0, 101);
    ck_assert_uint_eq(prefix_find(table, &longer, 101, &known), 9);
    ck_assert_uint_eq(known, longer.count);
    ck_assert_uint_eq(prefix_find(table, &first, 101, &known), 9);
    prompt[70] ^= 1; /* another second block */
    struct prefix other = hash(2000);
    ck_assert_uint_eq(prefix_find(table, &other, 101, &known), 9);
    ck_assert_uint_eq(known, 1);
}
END_TEST

/* What is asked for again and again stays, however much passes through. */
START_TEST(the_table_is_bounded_and_forgets_the_oldest)
{
    struct prefix kept = hash(1000);
    size_t known, found = 0;
    prefix_remember(table, &kept, 3, 0, 0);
    for (uint32_t round = 1; round < 2000; round++) {
        struct prefix other;
        prefix_hash(&other, (struct span){prompt, 2048}, 100 + round);
        prefix_remember(table, &other, round % 50, 0, round * 8);
        prefix_find(table, &kept, round * 8, &known);
        for (size_t i = 0; i < kept.count; i++) { /* every block in use, as a long conversation has it */
            struct prefix part = kept;
            part.count = i + 1;
            prefix_find(table, &part, round * 8, &known);
        }
        found += known == kept.count;
    }
    ck_assert_uint_gt(found, 1990);
}
END_TEST

START_TEST(ids_up_to_the_last)
{
    struct prefix prefix = hash(64);
    size_t known;
    prefix_remember(table, &prefix, PREFIX_ID_MAX - 1, 0, 0);
    ck_assert_uint_eq(prefix_find(table, &prefix, 0, &known), PREFIX_ID_MAX - 1);
    prefix_remember(table, &prefix, 0, 0, 0);
    ck_assert_uint_eq(prefix_find(table, &prefix, 0, &known), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("prefix");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, prompts_share_the_hashes_of_what_they_share);
    tcase_add_test(tests, lengths);
    tcase_add_test(tests, the_longest_known_part_says_who);
    tcase_add_test(tests, the_table_is_bounded_and_forgets_the_oldest);
    tcase_add_test(tests, ids_up_to_the_last);
    return run_suite("prefix", tests);
}
