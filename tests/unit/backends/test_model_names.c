#include "backends/model_names.h"
#include "base/strbuf.h"
#include "run_suite.h"
#include <stdlib.h>

static struct model_names *parse(const char *text)
{
    const char *problem;
    struct model_names *names = model_names_parse(span_of(text), &problem);
    ck_assert((names == NULL) == (problem != NULL));
    return names;
}

START_TEST(names_are_sorted_and_none_stands_twice)
{
    struct model_names *names =
        parse("{\"object\":\"list\",\"data\":[{\"id\":\"b\"},{\"x\":1,\"id\":\"a\\u00e9\"},{\"id\":"
              "\"b\"},{\"id\":\"ab\"},{\"id\":\"\"}]}");
    ck_assert_uint_eq(model_names_count(names), 3);
    ck_assert_str_eq(model_names_at(names, 0), "ab");
    ck_assert_str_eq(model_names_at(names, 1), "a\xc3\xa9");
    ck_assert_str_eq(model_names_at(names, 2), "b");
    ck_assert(model_names_has(names, SPAN("b")) && model_names_has(names, SPAN("ab")));
    ck_assert(!model_names_has(names, SPAN("a")) && !model_names_has(names, SPAN("abc")));
    ck_assert(!model_names_has(names, SPAN_NONE) && !model_names_has(names, SPAN("c")));
    model_names_release(names);
}
END_TEST

START_TEST(what_is_no_list_is_told_apart)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "[]",
                                      "{}",
                                      "{\"data\":{}}",
                                      "{\"data\":[1]}",
                                      "{\"data\":[{}]}",
                                      "{\"data\":[{\"id\":1}]}",
                                      "{\"data\":[]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(parse(bad[i]) == NULL, "%s", bad[i]);
    struct model_names *none = parse("{\"data\":null}"), *empty = parse("{\"data\":[]}");
    ck_assert_uint_eq(model_names_count(none), 0);
    ck_assert(model_names_equal(none, empty) && !model_names_has(none, SPAN("x")));
    model_names_release(none);
    model_names_release(empty);
}
END_TEST

static struct model_names *parse_many(size_t count, size_t padding)
{
    struct strbuf text;
    const char *problem;
    strbuf_init(&text, (size_t)4 * 1024 * 1024);
    strbuf_puts(&text, "{\"data\":[");
    for (size_t i = 0; i < count; i++)
        strbuf_printf(&text, "%s{\"id\":\"model-%zu\"}", i != 0 ? "," : "", i);
    strbuf_puts(&text, "]}");
    for (size_t i = 0; i < padding; i++)
        strbuf_putc(&text, ' ');
    struct model_names *names = model_names_parse(strbuf_span(&text), &problem);
    strbuf_dispose(&text);
    return names;
}

START_TEST(there_is_a_most_of_it)
{
    struct model_names *most = parse_many(MODEL_NAMES_MAX, 0);
    ck_assert_uint_eq(model_names_count(most), MODEL_NAMES_MAX);
    ck_assert(model_names_has(most, SPAN("model-9999")) && !model_names_has(most, SPAN("model-10000")));
    model_names_release(most);
    ck_assert_ptr_null(parse_many(MODEL_NAMES_MAX + 1, 0));
    ck_assert_ptr_null(parse_many(1, MODEL_NAMES_BYTES_MAX));
    char text[400] = "{\"data\":[{\"id\":\"";
    size_t len = strlen(text);
    memset(text + len, 'x', MODEL_NAMES_LEN_MAX + 1);
    strcpy(text + len + MODEL_NAMES_LEN_MAX + 1, "\"},{\"id\":\"a\"}]}");
    struct model_names *names = parse(text);
    ck_assert_uint_eq(model_names_count(names), 1);
    model_names_release(names);
}
END_TEST

START_TEST(equal_lists_are_equal)
{
    struct model_names *a = parse("{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}");
    struct model_names *b = parse("{\"data\":[{\"id\":\"b\"},{\"id\":\"a\"},{\"id\":\"a\"}]}");
    struct model_names *c = parse("{\"data\":[{\"id\":\"a\"},{\"id\":\"c\"}]}");
    ck_assert(model_names_equal(a, b) && !model_names_equal(a, c));
    model_names_release(model_names_retain(a));
    model_names_release(a);
    model_names_release(b);
    model_names_release(c);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("model_names");
    tcase_add_test(tcase, names_are_sorted_and_none_stands_twice);
    tcase_add_test(tcase, what_is_no_list_is_told_apart);
    tcase_add_test(tcase, there_is_a_most_of_it);
    tcase_add_test(tcase, equal_lists_are_equal);
    return run_suite("model_names", tcase);
}
