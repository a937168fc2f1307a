#include "cache/key_maker.h"

static void expect_same(const char *a, const char *b)
{
    struct cache_key x = key_of(a), y = key_of(b);
    ck_assert_msg(cache_key_eq(&x, &y), "differ: %s and %s", a, b);
}

static void expect_other(const char *a, const char *b)
{
    struct cache_key x = key_of(a), y = key_of(b);
    ck_assert_msg(!cache_key_eq(&x, &y), "the same: %s and %s", a, b);
}

static void expect_result(const char *body, enum cache_key_result result)
{
    struct cache_key key;
    enum cache_key_result got = make(span_of(body), &key);
    ck_assert_msg(got == result, "%s: %s", body, cache_key_result_name(got));
}

START_TEST(order_and_white_space_do_not_count)
{
    expect_same("{}", " \r\n\t{ } ");
    expect_same("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}");
    expect_same("{\"a\":1,\"b\":2}", "\n{ \"b\" : 2 ,\t\"a\" :1 } ");
    expect_same("{\"a\":{\"x\":1,\"yy\":[{\"p\":1,\"q\":[]}]},\"b\":{}}",
                "{\"b\":{ },\"a\":{\"yy\":[ {\"q\":[ ],\"p\":1} ],\"x\":1}}");
    expect_same("{\"a\":[1,2,\"x y\",true,null,[3,4]]}", "{\"a\": [ 1 , 2 ,\"x y\", true,null , [3 ,4 ] ] }");
    expect_same("{\"m\":[{\"a\":1,\"b\":{\"c\":1,\"d\":2}},{\"a\":2,\"bb\":\" \"}]}",
                "{\"m\":[{\"b\":{\"d\":2,\"c\":1},\"a\":1},{\"bb\":\" \" ,\"a\":2 }]}");
    expect_same("{\"a\":[\"x\",1,2,\"y\",3]}", "{\"a\":[\"x\", 1,2 ,\"y\",3]}");
}
END_TEST

START_TEST(any_other_change_counts)
{
    /* Every pair must differ; those that are near one another stand together. */
    static const char *const bodies[] = {
        "{}",
        "{\"a\":1}",
        "{\"a\":1.0}",
        "{\"a\":1e0}",
        "{\"a\":-1}",
        "{\"a\":\"1\"}",
        "{\"a\":[1]}",
        "{\"a\":[]}",
        "{\"a\":{}}",
        "{\"a\":[{}]}",
        "{\"a\":[[]]}",
        "{\"a\":[[],[]]}",
        "{\"a\":[{},{}]}",
        "{\"a\":null}",
        "{\"a\":true}",
        "{\"a\":false}",
        "{\"a\":\"\"}",
        "{\"b\":1}",
        "{\"\":1}",
        "{\"a\":\"a\"}",
        "{\"a\":\"\\u0061\"}",
        "{\"a\":\"A\"}",
        "{\"a\":\" a\"}",
        "{\"a\":\"a \"}",
        "{\"a\":\"\\n\"}",
        "{\"a\":\"n\"}",
        "{\"a\":\"\\\\n\"}",
        "{\"a\":12}",
        "{\"a\":[1,2]}",
        "{\"a\":[12]}",
        "{\"a\":[2,1]}",
        "{\"a\":[1,[2]]}",
        "{\"a\":[[1],2]}",
        "{\"a\":[\"1,2\"]}",
        "{\"a\":[\"1\",\"2\"]}",
        "{\"a\":1,\"b\":2}",
        "{\"a\":2,\"b\":1}",
        "{\"a\":{\"b\":2}}",
        "{\"a\":{\"b\":2},\"c\":3}",
        "{\"a\":{\"b\":2,\"c\":3}}",
        "{\"a\":[{\"b\":2},{\"c\":3}]}",
        "{\"a\":[{\"b\":2,\"c\":3}]}",
        "{\"a\":[{\"c\":3},{\"b\":2}]}",
        "{\"stream\":true}",
        "{\"stream\":false}",
        "{\"a\":{\"user\":1}}",
        "{\"a\":{\"user\":2}}",
        "{\"a\":{\"metadata\":1}}",
        "{\"a\":[{\"user\":1}]}",
        "{\"users\":1}",
        "{\"User\":1}",
        "{\"meta\":1}",
    };
    struct cache_key keys[COUNT(bodies)];
    for (size_t i = 0; i < COUNT(bodies); i++) {
        keys[i] = key_of(bodies[i]);
        for (size_t j = 0; j < i; j++)
            ck_assert_msg(!cache_key_eq(&keys[i], &keys[j]), "%s and %s", bodies[i], bodies[j]);
    }
}
END_TEST

START_TEST(names_are_unescaped_values_are_not)
{
    expect_same("{\"\\u0061b\":1}", "{\"ab\":1}");
    expect_same("{\"x\":{\"\\u0062\":1,\"a\":2}}", "{\"x\":{\"a\":2,\"b\":1}}");
    expect_same("{\"\\ud83d\\ude00\":1}", "{\"\360\237\230\200\":1}");
    expect_same("{\"a\\\"b\":1}", "{\"a\\u0022b\":1}");
    expect_other("{\"a\":\"\\u0061\"}", "{\"a\":\"a\"}");
    expect_other("{\"a\\\\\":1}", "{\"a\":1}");
    expect_other("{\"a\\\":1,\\\"b\":2}", "{\"a\":1,\"b\":2}");
    expect_same("{\"x\":{\"a\\\":1,\\\"b\":2}}", "{\"x\":{\"\\u0061\\u0022:1,\\u0022b\":2}}");
    expect_same("{\"\\u0075ser\":\"x\",\"a\":1}", "{\"a\":1}");
    expect_same("{\"a\":\"\\\\\\\"}, \"}", "{ \"a\" : \"\\\\\\\"}, \" }");
}
END_TEST

START_TEST(who_asks_is_left_out_at_the_top_only)
{
    expect_same("{\"a\":1,\"user\":\"x\",\"metadata\":{\"k\":[1,{\"z\":2}]},\"safety_identifier\":\"s\"}", "{\"a\":1}");
    expect_same("{\"user\":\"x\"}", "{}");
    expect_other("{\"m\":[{\"user\":\"x\"}]}", "{\"m\":[{\"user\":\"y\"}]}");
    expect_other("{\"m\":{\"metadata\":1}}", "{\"m\":{}}");
}
END_TEST

START_TEST(odd_bodies_pass_by)
{
    static const char *const invalid[] = {
        "",
        " ",
        "[]",
        "1",
        "\"x\"",
        "null",
        "{",
        "}",
        "{}}",
        "{} {}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{\"a\" 1}",
        "{\"a\":1 2}",
        "{\"a\":[1 2]}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1}",
        "{\"a\":{\"b\":1]}",
        "{a:1}",
        "{\"a\":\"x}",
        "{\"a\":\"x\\\"}",
        "{\"a\":'x'}",
        "{\"\\x\":1}",
        "{\"\\ud800\":1}",
        "{\"a\":[1,2",
        "{\"a\":[1 ,, 2]}",
        "{\"a\":1\"b\":2}",
        "{\"a\":\"x\"\"y\"}",
        "{\"a\":[\"x\"1]}",
        "{\"a\\",
        "{\"a\":[[]",
        "\357\273\277{}",
    };
    for (size_t i = 0; i < COUNT(invalid); i++)
        expect_result(invalid[i], CACHE_KEY_INVALID);
    struct cache_key key;
    ck_assert_int_eq(make(SPAN("{\"a\":\0}"), &key), CACHE_KEY_INVALID);
    static const char *const duplicate[] = {
        "{\"a\":1,\"a\":1}",
        "{\"a\":1,\"b\":2,\"\\u0061\":3}",
        "{\"x\":[{\"y\":{\"a\":1,\"a\":2}}]}",
        "{\"user\":1,\"user\":2}",
        "{\"\":1,\"\":2}",
    };
    for (size_t i = 0; i < COUNT(duplicate); i++)
        expect_result(duplicate[i], CACHE_KEY_DUPLICATE);
    expect_result(
        "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1,\"l\":1,\"m\":1,"
        "\"n\":1,\"o\":1,\"p\":1,\"q\":1,\"r\":1,\"c\":1}",
        CACHE_KEY_DUPLICATE);
    ck_assert_str_eq(cache_key_result_name(CACHE_KEY_DUPLICATE), "duplicate");
}
END_TEST

static void nested(struct strbuf *out, unsigned depth, const char *open, const char *close)
{
    strbuf_reset(out);
    strbuf_puts(out, "{\"a\":");
    for (unsigned i = 1; i < depth; i++)
        strbuf_puts(out, open);
    strbuf_puts(out, "1");
    for (unsigned i = 1; i < depth; i++)
        strbuf_puts(out, close);
    strbuf_putc(out, '}');
}

START_TEST(bounds_hold)
{
    struct strbuf body;
    struct cache_key key;
    strbuf_init(&body, 1 << 24);
    nested(&body, CACHE_KEY_MAX_DEPTH, "[", "]");
    ck_assert_int_eq(make(strbuf_span(&body), &key), CACHE_KEY_MADE);
    nested(&body, CACHE_KEY_MAX_DEPTH + 1, "[", "]");
    ck_assert_int_eq(make(strbuf_span(&body), &key), CACHE_KEY_DEEP);
    nested(&body, CACHE_KEY_MAX_DEPTH + 1, "{\"a\":", "}");
    ck_assert_int_eq(make(strbuf_span(&body), &key), CACHE_KEY_DEEP);
    nested(&body, 1000000, "[", "]");
    ck_assert_int_eq(make(strbuf_span(&body), &key), CACHE_KEY_DEEP);
    for (unsigned count = CACHE_KEY_MAX_PARTS; count <= CACHE_KEY_MAX_PARTS + 1; count++) {
        strbuf_reset(&body);
        for (unsigned i = 0; i < count; i++)
            strbuf_printf(&body, "%s\"%u\":1", i == 0 ? "{" : ",", i * 7919 % (CACHE_KEY_MAX_PARTS + 1));
        strbuf_putc(&body, '}');
        ck_assert_int_eq(make(strbuf_span(&body), &key),
                         count <= CACHE_KEY_MAX_PARTS ? CACHE_KEY_MADE : CACHE_KEY_COMPLEX);
    }
    /* A prompt of a million tokens is one run, spaced or not. */
    struct cache_key spaced;
    for (int blanks = 0; blanks < 2; blanks++) {
        strbuf_reset(&body);
        for (unsigned i = 0; i < 1000000; i++)
            strbuf_printf(&body, "%s%u", i == 0 ? "{\"input\":[" : blanks ? ", " : ",", i * 31 % 100000);
        strbuf_puts(&body, "]}");
        ck_assert_int_eq(make(strbuf_span(&body), blanks ? &spaced : &key), CACHE_KEY_MADE);
    }
    ck_assert(cache_key_eq(&key, &spaced));
    strbuf_dispose(&body);
}
END_TEST

START_TEST(everything_in_a_question_counts)
{
    struct cache_header headers[] = {
        {SPAN("anthropic-beta"), SPAN("x")}, {SPAN("openai-organization"), SPAN("o")}, {SPAN("accept"), SPAN("y")}};
    struct cache_header turned[] = {headers[2], headers[1], headers[0]};
    struct cache_header other[] = {headers[0], {SPAN("openai-organization"), SPAN("p")}, headers[2]};
    struct cache_header lines[] = {{SPAN("openai-beta"), SPAN("a")}, {SPAN("openai-beta"), SPAN("b")}};
    struct cache_header swapped[] = {lines[1], lines[0]};
    struct cache_header joined[] = {{SPAN("openai-beta"), SPAN("a, b")}};
    struct cache_question base = question_of(SPAN("{\"a\":1}"));
    struct cache_question different[16];
    size_t count = 0;
    for (; count < COUNT(different); count++)
        different[count] = base;
    different[1].scope = CACHE_SCOPE_CREDENTIAL;
    different[2].scope = CACHE_SCOPE_SHARED;
    different[3].scope_name = SPAN("bob");
    different[4].method = SPAN("PUT");
    different[5].path = SPAN("/v1/completions");
    different[6].query = SPAN("x=1");
    different[7].model = SPAN("llama2");
    different[8].body = SPAN("{\"a\":2}");
    different[9].headers = headers, different[9].header_count = 3;
    different[10].headers = other, different[10].header_count = 3;
    different[11].headers = lines, different[11].header_count = 2;
    different[12].headers = swapped, different[12].header_count = 2;
    different[13].headers = joined, different[13].header_count = 1;
    /* Where one field ends and the next begins counts too. */
    different[14].path = SPAN("/v1/chat/completionsx=1");
    different[15].query = SPAN("x=1llama"), different[15].model = SPAN("");
    struct cache_key keys[COUNT(different)], key;
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(cache_key_make(keyer, &different[i], &keys[i], NULL), CACHE_KEY_MADE);
        for (size_t j = 0; j < i; j++)
            ck_assert_msg(!cache_key_eq(&keys[i], &keys[j]), "%zu and %zu", i, j);
    }
    base.headers = turned, base.header_count = 3;
    ck_assert_int_eq(cache_key_make(keyer, &base, &key, NULL), CACHE_KEY_MADE);
    ck_assert(cache_key_eq(&key, &keys[9]));
    base.headers = &headers[2], base.header_count = 1;
    cache_key_make(keyer, &base, &key, NULL);
    ck_assert(cache_key_eq(&key, &keys[0]));

    struct cache_header many[CACHE_KEY_MAX_HEADERS + 1];
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = lines[0];
    base.headers = many, base.header_count = COUNT(many);
    ck_assert_int_eq(cache_key_make(keyer, &base, &key, NULL), CACHE_KEY_COMPLEX);
    base.header_count--;
    ck_assert_int_eq(cache_key_make(keyer, &base, &key, NULL), CACHE_KEY_MADE);
}
END_TEST

START_TEST(facts_are_found)
{
    static const struct {
        const char *body;
        bool deterministic, stateless;
    } cases[] = {
        {"{}", false, false},
        {"{\"temperature\":0}", true, false},
        {"{\"temperature\":0.0}", true, false},
        {"{\"temperature\": -0.00e5 }", true, false},
        {"{\"temperature\":0.1}", false, false},
        {"{\"temperature\":0.01}", false, false},
        {"{\"temperature\":1}", false, false},
        {"{\"temperature\":10}", false, false},
        {"{\"temperature\":null}", false, false},
        {"{\"temperature\":\"0\"}", false, false},
        {"{\"temperature\":[0]}", false, false},
        {"{\"temperature\":{}}", false, false},
        {"{\"x\":{\"temperature\":0,\"seed\":1}}", false, false},
        {"{\"seed\":7}", true, false},
        {"{\"seed\":0}", true, false},
        {"{\"seed\":null}", false, false},
        {"{\"temperature\":1,\"seed\":7}", true, false},
        {"{\"store\":false}", false, true},
        {"{\"store\":true}", false, false},
        {"{\"store\":null}", false, false},
        {"{\"store\":false,\"previous_response_id\":null,\"conversation\":null,\"background\":null}", false, true},
        {"{\"store\":false,\"background\":false}", false, true},
        {"{\"store\":false,\"background\":true}", false, false},
        {"{\"store\":false,\"previous_response_id\":\"r\"}", false, false},
        {"{\"store\":false,\"conversation\":{\"id\":\"c\"}}", false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        key_of(cases[i].body);
        ck_assert_msg(facts.deterministic == cases[i].deterministic && facts.stateless == cases[i].stateless, "%s",
                      cases[i].body);
    }
}
END_TEST

/* `prepare` makes the keyer. */
static TCase *cases(const char *name, void (*prepare)(void))
{
    TCase *tests = tcase_create(name);
    tcase_add_checked_fixture(tests, prepare, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, order_and_white_space_do_not_count);
    tcase_add_test(tests, any_other_change_counts);
    tcase_add_test(tests, names_are_unescaped_values_are_not);
    tcase_add_test(tests, who_asks_is_left_out_at_the_top_only);
    tcase_add_test(tests, odd_bodies_pass_by);
    tcase_add_test(tests, bounds_hold);
    tcase_add_test(tests, everything_in_a_question_counts);
    tcase_add_test(tests, facts_are_found);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("cache key");
    suite_add_tcase(suite, cases("without a secret", setup));
    suite_add_tcase(suite, cases("with a secret", setup_secret));
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
