#include "base/strbuf.h"
#include "gateway/models_list.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WEIR(id) "{\"id\":\"" id "\",\"object\":\"model\",\"created\":0,\"owned_by\":\"weir\"}"

static unsigned asked;

static bool all(void *ctx, struct span id)
{
    (void)id;
    ck_assert_ptr_eq(ctx, &asked);
    asked++;
    return true;
}

/* Accepts what begins with "gpt". */
static bool gpt(void *ctx, struct span id)
{
    ck_assert_ptr_eq(ctx, &asked);
    return span_starts(id, SPAN("gpt"));
}

/* Merges from memory of its exact size, so that AddressSanitizer sees a read beyond it. */
static void merge(struct models_list *list, struct span answer, bool (*wanted)(void *ctx, struct span id))
{
    char *exact = malloc(answer.len);
    if (answer.len != 0)
        memcpy(exact, answer.base, answer.len);
    models_list_merge(list, (struct span){exact, answer.len}, wanted, &asked);
    free(exact);
}

static void expect(struct models_list *list, const char *data)
{
    struct strbuf expected;
    strbuf_init(&expected, 1 << 20);
    strbuf_printf(&expected, "{\"object\":\"list\",\"data\":[%s]}", data);
    char *text = models_list_finish(list);
    ck_assert_str_eq(text, strbuf_cstr(&expected));
    free(text);
    strbuf_dispose(&expected);
}

START_TEST(names_make_a_list)
{
    expect(models_list_create(), "");
    struct models_list *list = models_list_create();
    models_list_add(list, "b");
    models_list_add(list, "a\"\\");
    models_list_add(list, "b");
    models_list_add(list, "\xff not UTF-8"); /* cannot be told in JSON */
    models_list_add(list, "");
    expect(list, WEIR("b") "," WEIR("a\\\"\\\\") "," WEIR(""));
}
END_TEST

START_TEST(the_first_to_name_an_id_wins)
{
    struct models_list *list = models_list_create();
    models_list_add(list, "mine");
    merge(list, SPAN("{\"data\":[{\"id\":\"mine\",\"x\":1},{\"id\":\"one\",\"x\":1},{\"id\":\"one\",\"x\":2}]}"), all);
    merge(list, SPAN("{\"data\":[{\"x\":3,\"id\":\"o\\u006ee\"},{\"id\":\"two\",\"x\":[1,{\"y\":null}],\"z\":1.5}]}"),
          all);
    models_list_add(list, "two");
    expect(list, WEIR("mine") ",{\"id\":\"one\",\"x\":1},{\"id\":\"two\",\"x\":[1,{\"y\":null}],\"z\":1.5}");
}
END_TEST

START_TEST(only_wanted_ones_come_in)
{
    struct models_list *list = models_list_create();
    merge(list, SPAN("{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4\"},{\"id\":\"llama\"},{\"id\":\"gpt\"}]}"), gpt);
    expect(list, "{\"id\":\"gpt-4\"},{\"id\":\"gpt\"}");
}
END_TEST

START_TEST(what_is_no_answer_adds_nothing)
{
    static const char *const garbage[] = {
        "",
        " ",
        "null",
        "[]",
        "5",
        "\"data\"",
        "{}",
        "{",
        "{\"data\":null}",
        "{\"data\":{\"id\":\"a\"}}",
        "{\"data\":\"a\"}",
        "{\"data\":[]}",
        "{\"data\":[null,1,\"a\",[],{},{\"id\":null},{\"id\":5},{\"id\":[\"a\"]},{\"name\":\"a\"}]}",
        "{\"data\":[{\"id\":\"a\"}]",
        "{\"data\":[{\"id\":\"a\"}]}x",
        "{\"data\":[{\"id\":\"a\xff\"}]}",
        "{\"data\":[{\"id\":\"a\\u0000b\"}]}",
        "{\"data\":[{\"id\":\"\\ud800\"}]}",
        "{\"data\":[{\"id\":\"a\",\"x\":1e999}]}",
        "{\"data\":[{\"id\":\"a\",\"x\":99999999999999999999}]}",
        "{\"models\":[{\"id\":\"a\"}]}",
        "<html>502 Bad Gateway</html>",
        "[{\"id\":\"a\"}]",
    };
    asked = 0;
    struct models_list *list = models_list_create();
    for (size_t i = 0; i < COUNT(garbage); i++)
        merge(list, span_of(garbage[i]), all);
    merge(list, SPAN("{\"data\":[{\"id\":\"a\"}]}\0"), all);
    merge(list, (struct span){"\0\0\0", 3}, all);
    ck_assert_uint_eq(asked, 0);
    merge(list, SPAN("{\"data\":[1,{\"id\":\"good\"},2]}"), all); /* one that is wrong takes no other with it */
    ck_assert_uint_eq(asked, 1);
    expect(list, "{\"id\":\"good\"}");
}
END_TEST

/* Nested as deep as a parser may let through, and deeper. */
START_TEST(deep_entries_do_no_harm)
{
    for (size_t depth = 2000; depth <= 100000; depth = depth < 2100 ? depth + 1 : depth * 5) {
        struct strbuf answer;
        strbuf_init(&answer, 1 << 20);
        strbuf_puts(&answer, "{\"data\":[{\"id\":\"a\",\"x\":");
        for (size_t i = 0; i < depth; i++)
            strbuf_putc(&answer, '[');
        for (size_t i = 0; i < depth; i++)
            strbuf_putc(&answer, ']');
        strbuf_puts(&answer, "}]}");
        struct models_list *list = models_list_create();
        merge(list, strbuf_span(&answer), all);
        char *text = models_list_finish(list);
        ck_assert(strstr(text, "{\"object\":\"list\"") == text);
        free(text);
        strbuf_dispose(&answer);
    }
}
END_TEST

START_TEST(survives_any_prefix_and_byte)
{
    static const char answer[] = "{\"data\":[{\"id\":\"a\",\"created\":1},{\"id\":\"b\\u00e9\"}]}";
    for (size_t at = 0; at < sizeof(answer) - 1; at++) {
        struct models_list *list = models_list_create();
        merge(list, (struct span){answer, at}, all);
        for (int byte = 0; byte < 256; byte++) {
            char copy[sizeof(answer)];
            memcpy(copy, answer, sizeof(answer));
            copy[at] = (char)byte;
            merge(list, (struct span){copy, sizeof(answer) - 1}, all);
        }
        free(models_list_finish(list));
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("models_list");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, names_make_a_list);
    tcase_add_test(tests, the_first_to_name_an_id_wins);
    tcase_add_test(tests, only_wanted_ones_come_in);
    tcase_add_test(tests, what_is_no_answer_adds_nothing);
    tcase_add_test(tests, deep_entries_do_no_harm);
    tcase_add_test(tests, survives_any_prefix_and_byte);
    return run_suite("models_list", tests);
}
