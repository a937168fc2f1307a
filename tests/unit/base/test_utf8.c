#include "base/strbuf.h"
#include "base/utf8.h"
#include "run_suite.h"

static bool whole(struct span text)
{
    struct utf8_check check = {0};
    return utf8_feed(&check, text) && utf8_complete(&check);
}

static bool split_at(struct span text, size_t n)
{
    struct utf8_check check = {0};
    return utf8_feed(&check, (struct span){text.base, n}) && utf8_feed(&check, SPAN_NONE) &&
           utf8_feed(&check, span_skip(text, n)) && utf8_complete(&check);
}

static bool by_bytes(struct span text)
{
    struct utf8_check check = {0};
    for (size_t i = 0; i < text.len; i++)
        if (!utf8_feed(&check, (struct span){text.base + i, 1}))
            return false;
    return utf8_complete(&check);
}

/* The rule as strbuf_utf8_len has it. */
static bool reference(struct span text)
{
    while (text.len != 0) {
        size_t n = strbuf_utf8_len(text);
        if (n == 0)
            return false;
        text = span_skip(text, n);
    }
    return true;
}

static void same_in_all_ways(struct span text)
{
    bool good = reference(text);
    ck_assert(whole(text) == good);
    ck_assert(by_bytes(text) == good);
    for (size_t n = 0; n <= text.len; n++)
        ck_assert(split_at(text, n) == good);
}

START_TEST(good_and_bad_texts)
{
    static const struct span texts[] = {
        SPAN(""),
        SPAN("plain text, longer than eight bytes"),
        SPAN("k\xc3\xb6nnen \xe2\x82\xac \xf0\x9f\x98\x80 end"),
        SPAN("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"),
        SPAN("\xc0\xaf"),
        SPAN("\xc1\xbf"),
        SPAN("\xe0\x9f\xbf"),
        SPAN("\xed\xa0\x80"),
        SPAN("\xf0\x8f\xbf\xbf"),
        SPAN("\xf4\x90\x80\x80"),
        SPAN("\xf5\x80\x80\x80"),
        SPAN("\x80"),
        SPAN("1234567\xe2\x82"),
        SPAN("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"),
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        same_in_all_ways(texts[i]);
        ck_assert(reference(texts[i]) == (i < 4));
    }
}
END_TEST

START_TEST(every_pair_and_many_random_texts_are_as_the_rule_says)
{
    uint64_t seed = 7;
    for (unsigned pair = 0; pair < 65536; pair++) {
        char bytes[2] = {(char)(pair >> 8), (char)pair};
        struct span text = {bytes, 2};
        ck_assert(whole(text) == reference(text));
    }
    static const unsigned char likely[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf,
                                           0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    for (int round = 0; round < 200000; round++) {
        char bytes[12];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * 6364136223846793005 + 1442695040888963407;
            bytes[i] = (char)likely[(seed >> 33) % sizeof(likely)];
        }
        struct span text = {bytes, (seed >> 40) % sizeof(bytes)};
        ck_assert(whole(text) == reference(text));
        ck_assert(by_bytes(text) == reference(text));
    }
}
END_TEST

START_TEST(a_cut_leaves_whole_characters)
{
    struct span text = SPAN("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z"); /* of 1, 2, 3, 4 and 1 bytes */
    static const size_t lens[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
    for (size_t max = 0; max < sizeof(lens) / sizeof(lens[0]); max++) {
        struct span cut = utf8_cut(text, max);
        ck_assert_ptr_eq(cut.base, text.base);
        ck_assert_uint_eq(cut.len, lens[max]);
    }
    ck_assert_uint_eq(utf8_cut(SPAN_NONE, 5).len, 0);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("utf8");
    tcase_add_test(tcase, good_and_bad_texts);
    tcase_add_test(tcase, every_pair_and_many_random_texts_are_as_the_rule_says);
    tcase_add_test(tcase, a_cut_leaves_whole_characters);
    return run_suite("utf8", tcase);
}
