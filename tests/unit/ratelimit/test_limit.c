#include "ratelimit/limit.h"
#include "run_suite.h"
#include <stdlib.h>

/* Parses a copy of the exact size, so that reading beyond the end is seen. */
static bool parse(struct span text, struct limit *limits, size_t max, size_t *count, struct limit_error *error)
{
    char *exact = malloc(text.len + 1);
    memcpy(exact, text.base, text.len);
    memset(error, 'x', sizeof(*error));
    *count = 99;
    bool good = limit_parse((struct span){exact, text.len}, limits, max, count, error);
    free(exact);
    return good;
}

/* ---- what is accepted, as it prints ---- */

static const struct {
    const char *text, *printed;
} accepted[] = {
    {"5/minute", "5 per 1 minute"},
    {"5/minutes", "5 per 1 minute"},
    {"5 / minute", "5 per 1 minute"},
    {"5 per minute", "5 per 1 minute"},
    {"5perminute", "5 per 1 minute"},
    {"5per2minutes", "5 per 2 minute"},
    {"5 PER Minute", "5 per 1 minute"},
    {"5/2minutes", "5 per 2 minute"},
    {"5/ 2 minutes", "5 per 2 minute"},
    {"100 per 2 hours; 10/second", "100 per 2 hour, 10 per 1 second"},
    {"1/second,2/minute;3/hour|4/day", "1 per 1 second, 2 per 1 minute, 3 per 1 hour, 4 per 1 day"},
    {"1/month, 2 / year", "1 per 1 month, 2 per 1 year"},
    {"5/minute:;3/hour", "5 per 1 minute, 3 per 1 hour"},
    {"5/minute :, 3/hour", "5 per 1 minute, 3 per 1 hour"},
    {"5/minute;\n3/hour\n", "5 per 1 minute, 3 per 1 hour"},
    {"05/007minute", "5 per 7 minute"},
    {"5/0 minute", "5 per 1 minute"},
    {"5/000minute", "5 per 1 minute"},
    {"0/second", "0 per 1 second"},
    {"5/minute\n", "5 per 1 minute"},
    {" \t\n\v\f\r5/minute ", "5 per 1 minute"},
    {"5\n/\n2\nminute", "5 per 2 minute"},
    {"100000 tokens/minute", "100000 tokens per 1 minute"},
    {"100000 tokens per 2 hours", "100000 tokens per 2 hour"},
    {"1 token/second", "1 tokens per 1 second"},
    {"7TokensPerDay", "7 tokens per 1 day"},
    {"5 requests/minute; 900tokens / 3 days", "5 per 1 minute, 900 tokens per 3 day"},
    {"1 request per minute", "1 per 1 minute"},
    {"1000000000000000/year", "1000000000000000 per 1 year"},
    {"5/100 years", "5 per 100 year"},
    {"5/00000000000000000000000000000000000001 second", "5 per 1 second"},
};

START_TEST(is_accepted)
{
    struct limit limits[LIMIT_LIST_MAX];
    struct limit_error error;
    char memory[512];
    struct strbuf printed;
    size_t count;

    strbuf_init_fixed(&printed, memory, sizeof(memory));
    ck_assert_msg(parse(span_of(accepted[_i].text), limits, LIMIT_LIST_MAX, &count, &error), "%s: %s",
                  accepted[_i].text, error.message);
    for (size_t i = 0; i < count; i++) {
        if (i != 0)
            strbuf_puts(&printed, ", ");
        limit_print(&limits[i], &printed);
    }
    ck_assert_str_eq(strbuf_cstr(&printed), accepted[_i].printed);
    /* What is printed means the same. */
    size_t again;
    struct limit second[LIMIT_LIST_MAX];
    ck_assert(parse(strbuf_span(&printed), second, LIMIT_LIST_MAX, &again, &error));
    ck_assert_uint_eq(again, count);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(second[i].amount, limits[i].amount);
        ck_assert_uint_eq(second[i].window_us, limits[i].window_us);
        ck_assert_int_eq(second[i].unit, limits[i].unit);
    }
}
END_TEST

START_TEST(windows)
{
    static const struct {
        const char *text;
        uint64_t seconds, multiple;
        enum limit_granularity granularity;
    } cases[] = {
        {"1/second", 1, 1, LIMIT_SECOND},         {"1/3 seconds", 3, 3, LIMIT_SECOND},
        {"1/minute", 60, 1, LIMIT_MINUTE},        {"1/hour", 3600, 1, LIMIT_HOUR},
        {"1/2hours", 7200, 2, LIMIT_HOUR},        {"1/day", 86400, 1, LIMIT_DAY},
        {"1/month", 2592000, 1, LIMIT_MONTH},     {"1/year", 31104000, 1, LIMIT_YEAR},
        {"1/7 months", 18144000, 7, LIMIT_MONTH}, {"1/100 years", 3110400000, 100, LIMIT_YEAR},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct limit limit;
        struct limit_error error;
        size_t count;
        ck_assert(parse(span_of(cases[i].text), &limit, 1, &count, &error));
        ck_assert_uint_eq(limit.window_us, cases[i].seconds * 1000000);
        ck_assert_uint_eq(limit.multiple, cases[i].multiple);
        ck_assert_int_eq(limit.granularity, cases[i].granularity);
    }
}
END_TEST

/* ---- what is refused, where, and what the message names ---- */

static const struct {
    const char *text;
    size_t offset;
    const char *found, *expected;
} refused[] = {
    {"", 0, "the end of the text", "5/minute"},
    {"   ", 3, "the end of the text", "5/minute"},
    {"5", 1, "the end of the text", "\"per\""},
    {"5/", 2, "the end of the text", "second, minute, hour, day, month or year"},
    {"5/2", 3, "the end of the text", "second, minute, hour, day, month or year"},
    {"5 per", 5, "the end of the text", "second, minute"},
    {"5/minute;", 9, "the end of the text", "5/minute"},
    {"5/minute, ", 10, "the end of the text", "5/minute"},
    {"5/minute:", 8, "\":\"", "between limits"},
    {"5/minute:3/hour", 8, "\":3/hour\"", "between limits"},
    {"5/minute;;3/hour", 9, "\";\"", "5/minute"},
    {"5/minute;:3/hour", 9, "\":3/hour\"", "5/minute"},
    {"5/minute::;3/hour", 8, "\"::\"", "between limits"},
    {";5/minute", 0, "\";\"", "5/minute"},
    {"-5/minute", 0, "\"-5/minute\"", "5/minute"},
    {"+5/minute", 0, "\"+5/minute\"", "5/minute"},
    {"1.5/minute", 1, "\".5/minute\"", "\"per\""},
    {"1e3/minute", 1, "\"e3/minute\"", "\"per\""},
    {"5/1.5minute", 3, "\".5minute\"", "second, minute"},
    {"5/-1minute", 2, "\"-1minute\"", "second, minute"},
    {"5/1/minute", 3, "\"/minute\"", "second, minute"},
    {"5/minute/2", 8, "\"/2\"", "between limits"},
    {"5/minute\n3/hour", 9, "\"3/hour\"", "between limits"},
    {"5/minute 3/hour", 9, "\"3/hour\"", "between limits"},
    {"5/week", 2, "\"week\"", "second, minute"},
    {"5/s", 2, "\"s\"", "second, minute"},
    {"5/sec", 2, "\"sec\"", "second, minute"},
    {"5/min", 2, "\"min\"", "second, minute"},
    {"5/h", 2, "\"h\"", "second, minute"},
    {"5/minutess", 2, "\"minutess\"", "second, minute"},
    {"5/minut", 2, "\"minut\"", "second, minute"},
    {"5/fortnight; 3/hour", 2, "\"fortnight\"", "second, minute"},
    {"3/hour; 5/fortnight", 10, "\"fortnight\"", "second, minute"},
    {"minute", 0, "\"minute\"", "5/minute"},
    {"unlimited", 0, "\"unlimited\"", "5/minute"},
    {"5 every minute", 2, "\"every\"", "\"per\""},
    {"5 tokens minute", 9, "\"minute\"", "\"per\""},
    {"5 tokenss/minute", 8, "\"s/minute\"", "\"per\""},
    {"5 hits/minute", 2, "\"hits/minute\"", "\"per\""},
    {"tokens/minute", 0, "\"tokens/minute\"", "5/minute"},
    {"5/tokens/minute", 2, "\"tokens\"", "second, minute"},
    {"1000000000000001/minute", 0, "too large", "10^15"},
    {"99999999999999999999999999/minute", 0, "too large", "10^15"},
    {"5/101 years", 2, "too long: \"101 years\"", "100 years"},
    {"5/99999999999999999999 seconds", 2, "too long: \"99999999999999999999 seconds\"", "100 years"},
    {"5/3110400001 seconds", 2, "too long", "100 years"},
    {"5/99999999999999999999 weeks", 23, "\"weeks\"", "second, minute"},
    {"\x1b[31m5/minute", 0, "\"\\u001b[31m5/minute\"", "5/minute"},
    {"5/min\xc3\xbcte", 2, "\"min\"", "second, minute"},
    {"\xff/minute", 0, "\xef\xbf\xbd", "5/minute"},
};

START_TEST(is_refused)
{
    struct limit limits[LIMIT_LIST_MAX];
    struct limit_error error;
    size_t count;

    ck_assert_msg(!parse(span_of(refused[_i].text), limits, LIMIT_LIST_MAX, &count, &error), "%s", refused[_i].text);
    ck_assert_uint_eq(count, 0);
    ck_assert_msg(error.offset == refused[_i].offset, "%s: offset %zu", refused[_i].text, error.offset);
    ck_assert_msg(strstr(error.message, refused[_i].found) != NULL, "%s: %s", refused[_i].text, error.message);
    const char *expected = strstr(error.message, ", expected ");
    ck_assert_msg(expected != NULL && strstr(expected, refused[_i].expected) != NULL, "%s: %s", refused[_i].text,
                  error.message);
}
END_TEST

START_TEST(lists_have_a_maximum)
{
    struct limit limits[3];
    struct limit_error error;
    size_t count;
    ck_assert(parse(SPAN("1/day;2/day;3/day"), limits, 3, &count, &error));
    ck_assert_uint_eq(count, 3);
    ck_assert(!parse(SPAN("1/day;2/day;3/day; 4/day"), limits, 3, &count, &error));
    ck_assert_uint_eq(count, 0);
    ck_assert_ptr_nonnull(strstr(error.message, "at most 3"));
}
END_TEST

START_TEST(nul_bytes_and_no_bytes)
{
    struct limit limits[3];
    struct limit_error error;
    size_t count;
    ck_assert(!parse(SPAN("5/minute\0"), limits, 3, &count, &error));
    ck_assert(!parse(SPAN("5\0/minute"), limits, 3, &count, &error));
    ck_assert_uint_eq(error.offset, 1);
    ck_assert(!limit_parse(SPAN_NONE, limits, 3, &count, &error));
}
END_TEST

/* Whatever comes: no crash, an error within the text, or limits within their bounds. */
START_TEST(any_text_is_safe)
{
    static const char *const pieces[] = {"5",       "0",      "/",
                                         " per ",   "per",    " ",
                                         "minute",  "HOURS",  "tokens",
                                         "request", ";",      ",",
                                         "|",       ":",      "\n",
                                         "999",     "second", "-",
                                         "\x80",    "\xff",   "9999999999999999",
                                         "years",   "s",      "\x1b",
                                         "\"",      "\\",     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
    unsigned seed = 7, good = 0;
    for (int round = 0; round < 200000; round++) {
        char text[512] = "";
        struct limit limits[4];
        struct limit_error error;
        size_t count;
        for (unsigned n = (unsigned)rand_r(&seed) % 10; n != 0; n--)
            strcat(text, pieces[(unsigned)rand_r(&seed) % (sizeof(pieces) / sizeof(pieces[0]))]);
        if (parse(span_of(text), limits, 4, &count, &error)) {
            good++;
            ck_assert(count >= 1 && count <= 4);
            for (size_t i = 0; i < count; i++) {
                ck_assert_uint_le(limits[i].amount, LIMIT_AMOUNT_MAX);
                ck_assert(limits[i].window_us >= 1000000 && limits[i].multiple >= 1);
            }
        } else {
            ck_assert_uint_eq(count, 0);
            ck_assert_uint_le(error.offset, strlen(text));
            ck_assert_ptr_nonnull(strstr(error.message, ", expected "));
            ck_assert_ptr_null(strpbrk(error.message, "\n\x1b"));
            ck_assert_uint_lt(strlen(error.message), LIMIT_ERROR_MAX - 1); /* never cut */
        }
    }
    ck_assert_uint_gt(good, 50);
}
END_TEST

START_TEST(names)
{
    static const struct {
        const char *name;
        enum limit_strategy strategy;
    } good[] = {
        {"fixed_window", LIMIT_FIXED_WINDOW},
        {"fixed-window", LIMIT_FIXED_WINDOW},
        {"moving_window", LIMIT_MOVING_WINDOW},
        {"moving-window", LIMIT_MOVING_WINDOW},
        {"sliding_window_counter", LIMIT_SLIDING_WINDOW_COUNTER},
        {"sliding-window-counter", LIMIT_SLIDING_WINDOW_COUNTER},
    };
    static const char *const bad[] = {"",
                                      "fixed",
                                      "Fixed_Window",
                                      "fixed window",
                                      "fixed_windows",
                                      "fixed-window-elastic-expiry",
                                      "sliding",
                                      "moving",
                                      "fixed_windo",
                                      "-",
                                      "moving_windox",
                                      "sliding_window"};
    enum limit_strategy strategy;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert(limit_strategy_parse(span_of(good[i].name), &strategy));
        ck_assert_int_eq(strategy, good[i].strategy);
        ck_assert(limit_strategy_parse(span_of(limit_strategy_name(strategy)), &strategy));
        ck_assert_int_eq(strategy, good[i].strategy);
        ck_assert_ptr_nonnull(strstr(LIMIT_STRATEGY_EXPECTED, limit_strategy_name(strategy)));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!limit_strategy_parse(span_of(bad[i]), &strategy), "%s", bad[i]);
    ck_assert_str_eq(limit_granularity_name(LIMIT_SECOND), "second");
    ck_assert_str_eq(limit_granularity_name(LIMIT_YEAR), "year");
    ck_assert_str_eq(limit_unit_name(LIMIT_TOKENS), "tokens");
    ck_assert_str_eq(limit_unit_name(LIMIT_REQUESTS), "requests");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("limit");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, is_accepted, 0, (int)(sizeof(accepted) / sizeof(accepted[0])));
    tcase_add_test(tc, windows);
    tcase_add_loop_test(tc, is_refused, 0, (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(tc, lists_have_a_maximum);
    tcase_add_test(tc, nul_bytes_and_no_bytes);
    tcase_add_test(tc, any_text_is_safe);
    tcase_add_test(tc, names);
    return run_suite("limit", tc);
}
