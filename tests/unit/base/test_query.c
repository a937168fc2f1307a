#include "base/query.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

static const char *value_of(const char *query, const char *name)
{
    static struct strbuf out;
    static char memory[64];
    strbuf_init_fixed(&out, memory, sizeof(memory));
    return query_value(span_of(query), span_of(name), &out) ? strbuf_cstr(&out) : NULL;
}

START_TEST(parameters_are_found_and_decoded)
{
    ck_assert_str_eq(value_of("a=1", "a"), "1");
    ck_assert_str_eq(value_of("x=y&a=1&a=2", "a"), "1");
    ck_assert_str_eq(value_of("a=b=c", "a"), "b=c");
    ck_assert_str_eq(value_of("a=one+two%20three%2b%2B", "a"), "one two three++");
    ck_assert_str_eq(value_of("a=%c3%A9", "a"), "\xc3\xa9");
    ck_assert_str_eq(value_of("%61pi%5Fkey=k", "api_key"), "k");
    ck_assert_str_eq(value_of("a=", "a"), "");
    ck_assert_str_eq(value_of("a", "a"), "");
    ck_assert_str_eq(value_of("a&b=1", "a"), "");
    ck_assert_str_eq(value_of("&&a=1&", "a"), "1");
}
END_TEST

START_TEST(what_is_not_there_is_not_found)
{
    ck_assert_ptr_null(value_of("", "a"));
    ck_assert_ptr_null(value_of("ab=1", "a"));
    ck_assert_ptr_null(value_of("a=1", "ab"));
    ck_assert_ptr_null(value_of("=1", "a"));
    ck_assert_ptr_null(value_of("b=a=1", "a"));
}
END_TEST

START_TEST(broken_escapes_stand_for_themselves)
{
    ck_assert_str_eq(value_of("a=%", "a"), "%");
    ck_assert_str_eq(value_of("a=%4", "a"), "%4");
    ck_assert_str_eq(value_of("a=%zz%g1%1g", "a"), "%zz%g1%1g");
    ck_assert_str_eq(value_of("a=%&b=41", "a"), "%"); /* the escape ends with its parameter */
}
END_TEST

/* Decodes from memory of the exact size into memory of the exact size. */
static void expect_decoded(struct span raw, struct span expected)
{
    char *in = malloc(raw.len), *out = malloc(raw.len);
    memcpy(in, raw.base, raw.len);
    size_t n = query_decode((struct span){in, raw.len}, out);
    ck_assert_msg(n == expected.len && memcmp(out, expected.base, n) == 0, "%.*s: %.*s", (int)raw.len, raw.base, (int)n,
                  out);
    free(in);
    free(out);
}

START_TEST(values_are_decoded_as_forms_write_them)
{
    expect_decoded(SPAN("plain"), SPAN("plain"));
    expect_decoded(SPAN("a+b%20c"), SPAN("a b c"));
    expect_decoded(SPAN("%2B%2b%25"), SPAN("++%"));
    expect_decoded(SPAN("gr%C3%BCn"), SPAN("grün"));
    expect_decoded(SPAN("%00%ff"), SPAN("\0\xff"));
    expect_decoded(SPAN("%26%3D"), SPAN("&="));
    expect_decoded(SPAN("100%"), SPAN("100%"));
    expect_decoded(SPAN("%4"), SPAN("%4"));
    expect_decoded(SPAN("%4g%g4%%41"), SPAN("%4g%g4%A"));
    expect_decoded(SPAN("%%%"), SPAN("%%%"));
    expect_decoded(SPAN("%2525"), SPAN("%25"));
}
END_TEST

START_TEST(pairs_are_told_apart)
{
    struct span rest = SPAN("&&a=1&b&=x&c=d=e&&f="), name, value;
    static const char *const pairs[][2] = {{"a", "1"}, {"b", ""}, {"", "x"}, {"c", "d=e"}, {"f", ""}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        ck_assert(query_next(&rest, &name, &value));
        ck_assert(span_eq(name, span_of(pairs[i][0])) && span_eq(value, span_of(pairs[i][1])));
    }
    ck_assert(!query_next(&rest, &name, &value) && !query_next(&rest, &name, &value));
}
END_TEST

START_TEST(a_parameter_is_found_by_its_decoded_name)
{
    struct span value = SPAN_NONE, query = SPAN("x=0&m%65ssage=one&message=two&messag=no&messages=no&Message=no");
    ck_assert(query_last(query, SPAN("message"), &value) && span_eq(value, SPAN("two"))); /* the last, as FastAPI */
    ck_assert(query_last(SPAN("m%65ssage=one"), SPAN("message"), &value) && span_eq(value, SPAN("one")));
    ck_assert(query_last(SPAN("message"), SPAN("message"), &value) && value.len == 0);
    ck_assert(!query_last(query, SPAN("y"), &value));
    ck_assert(!query_last(SPAN_NONE, SPAN("y"), &value));
    char name[500];
    memset(name, 'm', sizeof(name));
    ck_assert(!query_last((struct span){name, sizeof(name)}, SPAN("m"), &value));
}
END_TEST

START_TEST(a_key_is_the_first_of_its_name)
{
    struct strbuf out;
    strbuf_init(&out, 100);
    ck_assert(query_value(SPAN("x=1&api%5Fkey=a%2Bb&api_key=two"), SPAN("api_key"), &out));
    ck_assert_str_eq(strbuf_cstr(&out), "a+b");
    ck_assert(!query_value(SPAN("api_ke=1&api_keys=2&=api_key"), SPAN("api_key"), &out) && out.len == 3);
    strbuf_dispose(&out);
}
END_TEST

START_TEST(what_is_encoded_is_decoded_again)
{
    char all[256], back[768];
    struct strbuf out;
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    strbuf_init(&out, 1000);
    query_encode((struct span){all, sizeof(all)}, &out);
    ck_assert_uint_eq(out.len, 66 + 190 * 3);
    ck_assert_uint_eq(query_decode(strbuf_span(&out), back), 256);
    ck_assert_mem_eq(all, back, 256);
    ck_assert_ptr_null(strpbrk(strbuf_cstr(&out), " &=+#?"));
    strbuf_dispose(&out);
}
END_TEST

START_TEST(utf8_is_checked_and_counted)
{
    size_t n = 99;
    ck_assert(query_is_utf8(SPAN_NONE, &n) && n == 0);
    ck_assert(query_is_utf8(SPAN("aü€😀"), &n) && n == 4);
    ck_assert(query_is_utf8(SPAN("\0"), NULL));
    static const struct span bad[] = {SPAN("\xff"),         SPAN("a\xc3"),     SPAN("\xc0\x80"),
                                      SPAN("\xed\xa0\x80"), SPAN("\xe2\x82"),  SPAN("\xf4\x90\x80\x80"),
                                      SPAN("ok\x80"),       SPAN("\xc3\x28ok")};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!query_is_utf8(bad[i], NULL), "%zu", i);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("query");
    tcase_add_test(tests, parameters_are_found_and_decoded);
    tcase_add_test(tests, what_is_not_there_is_not_found);
    tcase_add_test(tests, broken_escapes_stand_for_themselves);
    tcase_add_test(tests, values_are_decoded_as_forms_write_them);
    tcase_add_test(tests, pairs_are_told_apart);
    tcase_add_test(tests, a_parameter_is_found_by_its_decoded_name);
    tcase_add_test(tests, a_key_is_the_first_of_its_name);
    tcase_add_test(tests, what_is_encoded_is_decoded_again);
    tcase_add_test(tests, utf8_is_checked_and_counted);
    return run_suite("query", tests);
}
