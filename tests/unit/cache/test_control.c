#include "cache/control.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOT UINT64_MAX

/* Spans of just their size, so that AddressSanitizer sees a read beyond them. */
static struct span exact_of(const char *text)
{
    size_t len = strlen(text);
    char *copy = malloc(len + (len == 0));
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, text, len);
    return (struct span){copy, len};
}

START_TEST(cache_control)
{
    static const struct {
        const char *value;
        bool no_cache, no_store, only_if_cached;
        uint64_t max_age; /* NOT: none */
    } cases[] = {
        {"", false, false, false, NOT},
        {",,, ,", false, false, false, NOT},
        {"no-cache", true, false, false, NOT},
        {"NO-Cache", true, false, false, NOT},
        {"no-cache, no-store", true, true, false, NOT},
        {"no-store,only-if-cached", false, true, true, NOT},
        {" max-age=60 ", false, false, false, 60},
        {"max-age = 60", false, false, false, 60},
        {"Max-Age=\"60\", x", false, false, false, 60},
        {"max-age=0", false, false, false, 0},
        {"max-age=", false, false, false, 0},
        {"max-age", false, false, false, 0},
        {"max-age=-1", false, false, false, 0},
        {"max-age=1.5", false, false, false, 0},
        {"max-age=abc", false, false, false, 0},
        {"max-age=99999999999999999999999999", false, false, false, (uint64_t)1 << 31},
        {"max-age=60, max-age=30, max-age=90", false, false, false, 30},
        {"s-maxage=5, max-stale=3, min-fresh=1, stale-if-error=9", false, false, false, NOT},
        {"x=\"no-store, max-age=3\", no-cache", true, false, false, NOT},
        {"x=\"a\\\", no-store\", max-age=7", false, false, false, 7},
        {"x=\"never closed, no-store", false, false, false, NOT},
        {"x=\"\\", false, false, false, NOT},
        {"no-cache=\"x-y\"", true, false, false, NOT},
        {"no-cachee, xno-store, only-if-cache", false, false, false, NOT},
        {"=no-store, =", false, false, false, NOT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cache_control control = {.max_age = 0};
        struct span value = exact_of(cases[i].value);
        cache_control_parse(&control, value);
        free((char *)value.base);
        ck_assert_msg(control.no_cache == cases[i].no_cache && control.no_store == cases[i].no_store &&
                          control.only_if_cached == cases[i].only_if_cached,
                      "%s", cases[i].value);
        ck_assert_msg((control.has_max_age ? control.max_age : NOT) == cases[i].max_age, "%s", cases[i].value);
    }
}
END_TEST

START_TEST(lines_are_merged)
{
    struct cache_control control = {.max_age = 0};
    cache_control_parse(&control, SPAN_NONE);
    cache_control_parse(&control, SPAN("max-age=9"));
    cache_control_parse(&control, SPAN("only-if-cached"));
    cache_control_parse(&control, SPAN("max-age=12"));
    ck_assert(control.only_if_cached && control.has_max_age && !control.no_cache && !control.no_store);
    ck_assert_uint_eq(control.max_age, 9);
}
END_TEST

START_TEST(ages)
{
    struct cache_control control = {.max_age = 0};
    ck_assert(cache_control_accepts(&control, 1u << 30));
    cache_control_parse(&control, SPAN("max-age=10"));
    ck_assert(cache_control_accepts(&control, 10));
    ck_assert(!cache_control_accepts(&control, 11));
    control = (struct cache_control){.no_cache = true};
    ck_assert(!cache_control_accepts(&control, 0));
    control = (struct cache_control){.no_store = true};
    ck_assert(!cache_control_accepts(&control, 0));
    control = (struct cache_control){.only_if_cached = true};
    ck_assert(cache_control_accepts(&control, 5));
}
END_TEST

START_TEST(switches)
{
    ck_assert_int_eq(cache_switch_parse(SPAN("on")), CACHE_ON);
    ck_assert_int_eq(cache_switch_parse(SPAN(" ON\t")), CACHE_ON);
    ck_assert_int_eq(cache_switch_parse(SPAN("Off")), CACHE_OFF);
    ck_assert_int_eq(cache_switch_parse(SPAN("")), CACHE_UNSAID);
    ck_assert_int_eq(cache_switch_parse(SPAN_NONE), CACHE_UNSAID);
    ck_assert_int_eq(cache_switch_parse(SPAN("on, off")), CACHE_UNSAID);
    ck_assert_int_eq(cache_switch_parse(SPAN("1")), CACHE_UNSAID);
}
END_TEST

START_TEST(if_none_match)
{
    static const struct {
        const char *value;
        bool matches;
    } cases[] = {
        {"\"abc\"", true},
        {"W/\"abc\"", true},
        {" \"x\" ,\t\"abc\"", true},
        {"\"x\", W/\"abc\", \"y\"", true},
        {"*", true},
        {" * ", true},
        {"\"a,b\",\"abc\"", true},
        {"\"x\\\", \"abc\"", true}, /* a backslash is itself in an entity tag */
        {"", false},
        {"abc", false},
        {"\"ABC\"", false},
        {"\"abc", false},
        {"abc\"", false},
        {"w/\"abc\"", false},
        {"W/ \"abc\"", false},
        {"\"x\" \"abc\"", false},
        {"\"x,\"abc\"\"", false},
        {"\"*\"", false},
        {"\"x\", *", false},
        {"W/", false},
        {"\"\"", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct span value = exact_of(cases[i].value);
        ck_assert_msg(cache_etag_matches(value, SPAN("\"abc\"")) == cases[i].matches, "%s", cases[i].value);
        free((char *)value.base);
    }
    ck_assert(cache_etag_matches(SPAN("\"abc\""), SPAN("W/\"abc\"")));
    ck_assert(!cache_etag_matches(SPAN(","), SPAN_NONE)); /* a stream has no tag */
    ck_assert(!cache_etag_matches(SPAN_NONE, SPAN("\"abc\"")));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("control");
    tcase_add_test(tests, cache_control);
    tcase_add_test(tests, lines_are_merged);
    tcase_add_test(tests, ages);
    tcase_add_test(tests, switches);
    tcase_add_test(tests, if_none_match);
    return run_suite("cache control", tests);
}
