#include "base/json_scan.h"
#include "gateway/chat_query.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

#define HEAD(model) "{\"model\":\"" model "\",\"messages\":["
#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define TAIL "],\"stream\":true,\"stream_options\":{\"include_usage\":true}"

static const struct chat_defaults defaults = {{"base", 4}, {"", 0}};

static void expect_body_with(const struct chat_defaults *fallback, const char *query, const char *expected)
{
    struct strbuf body;
    struct chat_problem problem;
    bool good = chat_query_read(span_of(query), fallback, &body, &problem);
    ck_assert_msg(good, "%s: %s", query, strbuf_cstr(&problem.detail));
    ck_assert_str_eq(strbuf_cstr(&body), expected);
    struct json_error error;
    ck_assert(!body.overflow && json_scan(strbuf_span(&body), NULL, 0, NULL, NULL, &error));
    strbuf_dispose(&body);
    strbuf_dispose(&problem.detail);
}

static void expect_body(const char *query, const char *expected)
{
    expect_body_with(&defaults, query, expected);
}

static void expect_problem_with(const struct chat_defaults *fallback, struct span query, const char *param,
                                const char *detail)
{
    struct strbuf body;
    struct chat_problem problem;
    ck_assert_msg(!chat_query_read(query, fallback, &body, &problem), "%.*s", (int)query.len, query.base);
    ck_assert_str_eq(problem.param, param);
    ck_assert_str_eq(strbuf_cstr(&problem.detail), detail);
    ck_assert_ptr_nonnull(strstr(problem.message, param));
    struct json_error error;
    ck_assert(!problem.detail.overflow && json_scan(strbuf_span(&problem.detail), NULL, 0, NULL, NULL, &error));
    strbuf_dispose(&body);
    strbuf_dispose(&problem.detail);
}

static void expect_problem(const char *query, const char *param, const char *detail)
{
    expect_problem_with(&defaults, span_of(query), param, detail);
}

START_TEST(a_query_becomes_a_request)
{
    static const struct chat_defaults both = {{"base", 4}, {"Be \"kind\".", 10}};
    expect_body("message=Hi+there%21", HEAD("base") USER("Hi there!") TAIL "}");
    expect_body("message=%22%0a%5c&model=a%2Fb", HEAD("a/b") USER("\\\"\\n\\\\") TAIL "}");
    expect_body("message=gr%C3%BCn&_=17&api_key=secret", HEAD("base") USER("grün") TAIL "}");
    expect_body("message=x&model=", HEAD("base") USER("x") TAIL "}");
    expect_body("message=a&message=b", HEAD("base") USER("b") TAIL "}");
    expect_body("message=%00", HEAD("base") USER("\\u0000") TAIL "}");
    expect_body("system=S&message=x", HEAD("base") "{\"role\":\"system\",\"content\":\"S\"}," USER("x") TAIL "}");
    expect_body_with(&both, "message=x",
                     HEAD("base") "{\"role\":\"system\",\"content\":\"Be \\\"kind\\\".\"}," USER("x") TAIL "}");
    expect_body_with(&both, "message=x&system=", HEAD("base") USER("x") TAIL "}");
    expect_body("message=x&temperature=0.70&top_p=.5&max_tokens=%2B07&seed=-0",
                HEAD("base") USER("x") TAIL ",\"temperature\":0.7,\"top_p\":0.5,\"max_tokens\":7,\"seed\":0}");
    expect_body("message=x&temperature=2&seed=9007199254740991&temperature=1e-5",
                HEAD("base") USER("x") TAIL ",\"temperature\":1e-05,\"seed\":9007199254740991}");
}
END_TEST

START_TEST(what_is_wrong_is_told_as_fastapi_does)
{
    static const struct chat_defaults none = {{NULL, 0}, {NULL, 0}};
#define MISSING(param)                                                                                                 \
    "{\"type\":\"missing\",\"loc\":[\"query\",\"" param "\"],\"msg\":\"Field required\",\"input\":null}"
    expect_problem("", "message", "[" MISSING("message") "]");
    expect_problem("messag=x", "message", "[" MISSING("message") "]");
    expect_problem_with(&none, SPAN("temperature=1"), "message", "[" MISSING("message") "," MISSING("model") "]");
    expect_problem_with(&none, SPAN("message=x&model="), "model", "[" MISSING("model") "]");
    expect_problem("message=", "message",
                   "[{\"type\":\"string_too_short\",\"loc\":[\"query\",\"message\"],\"msg\":\"String should have at "
                   "least 1 character\",\"input\":\"\",\"ctx\":{\"min_length\":1}}]");
    expect_problem("message=a%ff", "message",
                   "[{\"type\":\"string_unicode\",\"loc\":[\"query\",\"message\"],\"msg\":\"Input should be a valid "
                   "string, unable to parse raw data as a unicode string\",\"input\":\"a\xef\xbf\xbd\"}]");
    expect_problem("message=x&temperature=2.01", "temperature",
                   "[{\"type\":\"less_than_equal\",\"loc\":[\"query\",\"temperature\"],\"msg\":\"Input should be less "
                   "than or equal to 2\",\"input\":\"2.01\",\"ctx\":{\"le\":2.0}}]");
    expect_problem("message=x&max_tokens=0", "max_tokens",
                   "[{\"type\":\"greater_than_equal\",\"loc\":[\"query\",\"max_tokens\"],\"msg\":\"Input should be "
                   "greater than or equal to 1\",\"input\":\"0\",\"ctx\":{\"ge\":1}}]");
    expect_problem(
        "message=x&temperature=1e999", "temperature",
        "[{\"type\":\"finite_number\",\"loc\":[\"query\",\"temperature\"],\"msg\":\"Input should be a finite "
        "number\",\"input\":\"1e999\"}]");
    static const char *const no_number[] = {"",   "hot", "nan", "inf", "0x1",  "1+",   "1,5",   "+",
                                            "1e", "e",   ".",   "--1", "1%00", "1_0%", "%31%20"};
    for (size_t i = 0; i < sizeof(no_number) / sizeof(no_number[0]); i++) {
        char query[100];
        struct strbuf body;
        struct chat_problem problem;
        snprintf(query, sizeof(query), "message=x&temperature=%s", no_number[i]);
        ck_assert_msg(!chat_query_read(span_of(query), &defaults, &body, &problem), "%s", query);
        ck_assert_msg(strstr(strbuf_cstr(&problem.detail), "float_parsing") != NULL, "%s", query);
        strbuf_dispose(&body);
        strbuf_dispose(&problem.detail);
    }
    static const char *const no_int[] = {"", "1.0", "1e3", "2.5", "true", "0x10"};
    for (size_t i = 0; i < sizeof(no_int) / sizeof(no_int[0]); i++) {
        char query[100];
        struct strbuf body;
        struct chat_problem problem;
        snprintf(query, sizeof(query), "message=x&seed=%s", no_int[i]);
        ck_assert_msg(!chat_query_read(span_of(query), &defaults, &body, &problem), "%s", query);
        ck_assert_msg(strstr(strbuf_cstr(&problem.detail), "int_parsing") != NULL, "%s", query);
        strbuf_dispose(&body);
        strbuf_dispose(&problem.detail);
    }
}
END_TEST

/* A parameter of `n` times `unit`. */
static bool fits(const char *param, const char *unit, size_t n, const char **type)
{
    static struct strbuf query;
    struct strbuf body;
    struct chat_problem problem;
    strbuf_init(&query, 4000000);
    strbuf_puts(&query, strcmp(param, "message") != 0 ? "message=x&" : "");
    strbuf_printf(&query, "%s=", param);
    for (size_t i = 0; i < n; i++)
        strbuf_puts(&query, unit);
    bool good = chat_query_read(strbuf_span(&query), &defaults, &body, &problem);
    struct json_error error;
    struct span json = strbuf_span(good ? &body : &problem.detail);
    ck_assert(!body.overflow && !problem.detail.overflow && json_scan(json, NULL, 0, NULL, NULL, &error));
    ck_assert(good || json.len < 2000);
    *type = good ? "good" : strstr(strbuf_cstr(&problem.detail), "\"string_too_long\"") != NULL ? "too_long" : "other";
    strbuf_dispose(&query);
    strbuf_dispose(&body);
    strbuf_dispose(&problem.detail);
    return good;
}

START_TEST(texts_are_bounded)
{
    const char *type;
    ck_assert(fits("message", "m", CHAT_MESSAGE_MAX, &type));
    ck_assert(!fits("message", "m", CHAT_MESSAGE_MAX + 1, &type));
    ck_assert_str_eq(type, "too_long");
    ck_assert(fits("message", "%E2%82%AC", CHAT_MESSAGE_MAX, &type)); /* characters, not bytes */
    ck_assert(!fits("message", "%E2%82%AC", CHAT_MESSAGE_MAX + 1, &type));
    ck_assert(fits("message", "%01", CHAT_MESSAGE_MAX, &type)); /* each becomes six bytes */
    ck_assert(fits("system", "\x7f", CHAT_MESSAGE_MAX, &type));
    ck_assert(!fits("system", "s", CHAT_MESSAGE_MAX + 1, &type));
    ck_assert(fits("model", "m", CHAT_MODEL_MAX, &type));
    ck_assert(!fits("model", "m", CHAT_MODEL_MAX + 1, &type));
    ck_assert(!fits("model", "%E2%82%AC", CHAT_MODEL_MAX / 3 + 1, &type));
    ck_assert_str_eq(type, "too_long");
    ck_assert(!fits("message", "%E2%82", 100, &type)); /* the echo is cut where it would be cut in two */
    ck_assert(!fits("temperature", "1", 100000, &type));
    ck_assert(!fits("seed", "9", 60, &type));
}
END_TEST

START_TEST(all_at_once_stays_within_bounds)
{
    char query[9000] = "";
    static const char *const params[] = {"message", "model", "system", "temperature", "top_p", "max_tokens", "seed"};
    for (size_t i = 0; i < 7; i++) {
        strcat(query, i != 0 ? "&" : "");
        strcat(query, params[i]);
        strcat(query, "=%ff");
        for (size_t j = 0; j < 300; j++)
            strcat(query, "%01");
    }
    struct strbuf body;
    struct chat_problem problem;
    ck_assert(!chat_query_read(span_of(query), &defaults, &body, &problem));
    struct json_value list;
    struct json_error error;
    ck_assert(!problem.detail.overflow && json_scan(strbuf_span(&problem.detail), NULL, 0, NULL, &list, &error));
    ck_assert_uint_eq(list.count, 7);
    strbuf_dispose(&body);
    strbuf_dispose(&problem.detail);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("chat_query");
    tcase_add_test(tests, a_query_becomes_a_request);
    tcase_add_test(tests, what_is_wrong_is_told_as_fastapi_does);
    tcase_add_test(tests, texts_are_bounded);
    tcase_add_test(tests, all_at_once_stays_within_bounds);
    return run_suite("chat_query", tests);
}
