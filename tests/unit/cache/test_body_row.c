#include "cache/body_row.h"
#include "key_maker.h"
#include <stdio.h>

#define BODY_MAX 2000000
#ifdef __SSE2__
#define TIMES 1
#else
#define TIMES 0 /* nothing is read in rows */
#endif

static struct body_rows rows;

/* Reads the row that `text` begins with, in memory of just its size. */
static struct body_row read_row(struct span text, unsigned levels, struct strbuf *copy)
{
    char *exact = malloc(text.len);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, text.base, text.len);
    body_rows_begin(&rows, (struct span){exact, text.len});
    struct body_row row = body_rows_read(&rows, exact, levels);
    strbuf_reset(copy);
    if (row.copy_len != 0)
        strbuf_add(copy, (struct span){rows.copies + row.copy, row.copy_len});
    /* as if the text had stayed where it was */
    row.end = text.base + (row.end - exact);
    row.copied = text.base + (row.copied - exact);
    free(exact);
    return row;
}

/* `read`: what is read of `text`; `copy`: what is written in place of it, or of its end; empty: nothing is. */
static void expect_row(const char *text, const char *read, const char *copy)
{
    struct strbuf got;
    strbuf_init(&got, BODY_MAX);
    struct body_row row = read_row(span_of(text), 64, &got);
    size_t len = strlen(read);
    ck_assert_msg(row.end == text + len, "%s: read %.*s", text, (int)(row.end - text), text);
    ck_assert_msg(row.closed == (text[len] == ']' && len != 0), "%s", text);
    ck_assert_msg(strcmp(strbuf_cstr(&got), copy) == 0, "%s: %s", text, strbuf_cstr(&got));
    strbuf_dispose(&got);
}

static void dispose(void)
{
    body_rows_dispose(&rows);
}

START_TEST(members_are_put_in_order)
{
    static const char *const cases[][3] = {
        {"{}]}", "{}", ""},
        {"{\"a\":1,\"b\":\"x\"},{\"a\":[1,{\"b\":[]}]}]}", "{\"a\":1,\"b\":\"x\"},{\"a\":[1,{\"b\":[]}]}", ""},
        {"{\"b\":1,\"a\":2}]}", "{\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}"},
        {"{},{\"b\":1,\"a\":2},{}]}", "{},{\"b\":1,\"a\":2},{}", "{\"a\":2,\"b\":1},{}"},
        {"{\"b\":1,\"a\":2},{\"aa\":\"\",\"b\":[]}]}", "{\"b\":1,\"a\":2},{\"aa\":\"\",\"b\":[]}",
         "{\"a\":2,\"b\":1},{\"b\":[],\"aa\":\"\"}"},
        /* as many members as the one before, in the same and in another order */
        {"{\"c\":1,\"a\":2,\"b\":3},{\"z\":4,\"x\":5,\"y\":6},{\"b\":7,\"c\":8,\"a\":9}]}",
         "{\"c\":1,\"a\":2,\"b\":3},{\"z\":4,\"x\":5,\"y\":6},{\"b\":7,\"c\":8,\"a\":9}",
         "{\"a\":2,\"b\":3,\"c\":1},{\"x\":5,\"y\":6,\"z\":4},{\"a\":9,\"b\":7,\"c\":8}"},
        /* names that differ in their first bytes and in their last */
        {"{\"text1\":1,\"name2\":2,\"text0\":3,\"nam\":4}]}", "{\"text1\":1,\"name2\":2,\"text0\":3,\"nam\":4}",
         "{\"nam\":4,\"name2\":2,\"text0\":3,\"text1\":1}"},
        {"{\"\377aaa\":1,\"aaaa\":2}]}", "{\"\377aaa\":1,\"aaaa\":2}", "{\"aaaa\":2,\"\377aaa\":1}"},
        /* within others, which then are not as they were */
        {"{\"a\":[{\"type\":1,\"text\":2},3,{\"y\":{},\"x\":null}],\"b\":4},{\"a\":1}]}",
         "{\"a\":[{\"type\":1,\"text\":2},3,{\"y\":{},\"x\":null}],\"b\":4},{\"a\":1}",
         "{\"a\":[{\"text\":2,\"type\":1},3,{\"x\":null,\"y\":{}}],\"b\":4},{\"a\":1}"},
        {"{\"c\":{\"e\":1,\"d\":2},\"b\":\"x\",\"a\":[{\"g\":3,\"f\":4}]}]}",
         "{\"c\":{\"e\":1,\"d\":2},\"b\":\"x\",\"a\":[{\"g\":3,\"f\":4}]}",
         "{\"a\":[{\"f\":4,\"g\":3}],\"b\":\"x\",\"c\":{\"d\":2,\"e\":1}}"},
        {"{\"c\":1,\"b\":{\"e\":1,\"d\":{\"y\":[],\"x\":\"{\"}},\"a\":0}]}",
         "{\"c\":1,\"b\":{\"e\":1,\"d\":{\"y\":[],\"x\":\"{\"}},\"a\":0}",
         "{\"a\":0,\"b\":{\"d\":{\"x\":\"{\",\"y\":[]},\"e\":1},\"c\":1}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        expect_row(cases[i][0], cases[i][1], cases[i][2]);
}
END_TEST

START_TEST(blanks_are_left_out)
{
    expect_row("{\"b\" : 1,\n\"a\": \" x \"\t}\r\n ,{ }  ]}", "{\"b\" : 1,\n\"a\": \" x \"\t}\r\n ,{ }  ",
               "{\"a\":\" x \",\"b\":1},{}");
    expect_row("{\"b\":                                     [ 1 , 2,                    {}] ,\"a\":0}]}",
               "{\"b\":                                     [ 1 , 2,                    {}] ,\"a\":0}",
               "{\"a\":0,\"b\":[1,2,{}]}");
    expect_row("{\"b\":{ \"d\":1 ,\"c\":2},\"a\":{ \"x\":0}},{\"a\":3}, {\"d\":4,\"c\":5}]}",
               "{\"b\":{ \"d\":1 ,\"c\":2},\"a\":{ \"x\":0}},{\"a\":3}, {\"d\":4,\"c\":5}",
               "{\"a\":{\"x\":0},\"b\":{\"c\":2,\"d\":1}},{\"a\":3},{\"c\":5,\"d\":4}");
    struct strbuf text, copy;
    strbuf_init(&text, BODY_MAX);
    strbuf_init(&copy, BODY_MAX);
    for (int objects = 1; objects < 60; objects++) {
        strbuf_reset(&text);
        for (int i = 0; i < objects; i++)
            strbuf_puts(&text, i == 0 ? "{\"a\": 1}" : ",{\"a\": 1}");
        size_t len = text.len, tight = text.len - (size_t)objects;
        strbuf_puts(&text, "]}");
        struct body_row row = read_row(strbuf_span(&text), 64, &copy);
        ck_assert_uint_eq((size_t)(row.end - strbuf_cstr(&text)), len);
        /* A short row in order is not worth it: it is left to others. */
        ck_assert(row.spaced == (row.copy_len == 0));
        ck_assert(row.copy_len == (tight < 256 ? 0 : tight));
    }
    strbuf_dispose(&text);
    strbuf_dispose(&copy);
}
END_TEST

/* What one object has that is not for a row ends the row in front of it, and nothing of it is written. */
START_TEST(what_is_rare_is_left_to_others)
{
    static const char *const others[] = {
        "{\"b\":1,\"a\":2,\"b\":3}",
        "{\"a\":{\"c\":1,\"b\":2},\"a\":3}",
        "{\"b\":1,\"\\u0061\":2}",
        "{\"b\":{\"d\":1,\"c\":2},\"x\\n\":2}",
        "{\"b\":1,\"a\":2",
        "{\"b\":1,\"a\":}",
        "{\"b\":1,\"a\" 2}",
        "{\"b\":1,\"a\":2,}",
        "{\"b\":1,a:2}",
        "{\"b\":1 \"a\":2}",
        "{\"b\":[1,2,],\"a\":2}",
        "{\"b\":[1 2],\"a\":2}",
        "{\"b\":[1,2},\"a\":2}",
        "{\"b\":{\"a\":2}",
        "{\"b\":\"x\",\"a\":\"",
        "{\"b\":[[[[[[[{}]]]]]]],\"a\":2}",
        "12",
        "\"x\"",
        "[{\"b\":1,\"a\":2}]",
    };
    struct strbuf text;
    strbuf_init(&text, BODY_MAX);
    for (size_t i = 0; i < COUNT(others); i++) {
        expect_row(others[i], "", "");
        strbuf_reset(&text);
        strbuf_puts(&text, others[i]);
        strbuf_puts(&text, ",{\"b\":1,\"a\":2}]}");
        expect_row(strbuf_cstr(&text), "", "");
        strbuf_reset(&text);
        strbuf_puts(&text, "{\"b\":1,\"a\":2}, ");
        strbuf_puts(&text, others[i]);
        strbuf_puts(&text, "]}");
        expect_row(strbuf_cstr(&text), "{\"b\":1,\"a\":2},", "{\"a\":2,\"b\":1},");
    }
    /* Behind the text's last bracket nothing is read: what it closes is too much. */
    expect_row("{\"b\":1,\"a\":2}", "", "");
    expect_row("{\"b\":1,\"a\":2} ", "", "");
    expect_row("{\"b\":1,\"a\":2},", "", "");
    expect_row("{\"b\":1,\"a\":2}]", "", "");
    expect_row("{\"b\":[[[[[[{}]]]]]],\"a\":2}]}", "{\"b\":[[[[[[{}]]]]]],\"a\":2}", "{\"a\":2,\"b\":[[[[[[{}]]]]]]}");
    struct strbuf copy;
    strbuf_init(&copy, BODY_MAX);
    for (unsigned levels = 0; levels < 5; levels++) {
        struct body_row row = read_row(SPAN("{\"a\":[{}]}]}"), levels, &copy);
        ck_assert(row.closed == (levels >= 3));
    }
    strbuf_dispose(&copy);
    strbuf_dispose(&text);
}
END_TEST

START_TEST(many_members_may_be_there_in_order_only)
{
    struct strbuf text, copy;
    strbuf_init(&text, BODY_MAX);
    strbuf_init(&copy, BODY_MAX);
    for (int count = 2; count < 40; count++) {
        for (int turned = 0; turned < 2; turned++) {
            strbuf_reset(&text);
            for (int i = 0; i < count; i++)
                strbuf_printf(&text, "%s\"n%02d\":%d", i == 0 ? "{" : ",", turned ? count - i : i, i);
            strbuf_puts(&text, "}]}");
            struct body_row row = read_row(strbuf_span(&text), 64, &copy);
            ck_assert(row.closed == (!turned || count <= BODY_ROW_SORTED));
            ck_assert((row.copy_len != 0) == (turned && count <= BODY_ROW_SORTED));
            for (int i = 0; i < count && row.copy_len != 0; i++) {
                char member[32];
                snprintf(member, sizeof(member), "%c\"n%02d\":%d%c", i == 0 ? '{' : ',', i + 1, count - i - 1,
                         i == count - 1 ? '}' : ',');
                ck_assert_msg(strstr(strbuf_cstr(&copy), member) != NULL, "%s: %s", member, strbuf_cstr(&copy));
            }
        }
    }
    strbuf_dispose(&text);
    strbuf_dispose(&copy);
}
END_TEST

/* A text ends at the quote that is not escaped, wherever blocks end and however near the end is. */
START_TEST(texts_end_where_they_end)
{
    struct strbuf text, copy;
    strbuf_init(&text, BODY_MAX);
    strbuf_init(&copy, BODY_MAX);
    for (size_t len = 0; len < 700; len += len < 450 ? 1 : 7) {
        for (int slashes = 0; slashes < 5; slashes++) {
            for (size_t behind = 0; behind < 200; behind += 199) {
                strbuf_reset(&text);
                strbuf_puts(&text, "{\"b\":\"");
                for (size_t i = 0; i < len; i++)
                    strbuf_putc(&text, len % 3 == 0 && i == len / 2 ? ' ' : 'x');
                for (int i = 0; i < slashes; i++)
                    strbuf_putc(&text, '\\');
                strbuf_puts(&text, slashes % 2 == 0 ? "\"" : "\",\"");
                strbuf_puts(&text, ",\"a\":2},{\"a\":\"");
                for (size_t i = 0; i < behind; i++)
                    strbuf_putc(&text, 'y');
                strbuf_puts(&text, "\"}]}");
                struct body_row row = read_row(strbuf_span(&text), 64, &copy);
                ck_assert_msg(row.closed && row.copy_len == text.len - 2, "%s", strbuf_cstr(&text));
                ck_assert(span_starts(strbuf_span(&copy), SPAN("{\"a\":2,\"b\":\"")));
            }
        }
    }
    strbuf_dispose(&text);
    strbuf_dispose(&copy);
}
END_TEST

/* Two rows of a body have a place each, and a body that is shorter or longer than the one before is no trouble. */
START_TEST(rows_have_their_own_places)
{
    for (int round = 0; round < 3; round++) {
        struct strbuf body, same;
        strbuf_init(&body, BODY_MAX);
        strbuf_init(&same, BODY_MAX);
        strbuf_puts(&body, "{\"m\":[");
        strbuf_puts(&same, "{\"m\":[");
        for (int i = 0; i < (round == 1 ? 2 : 300 * (round + 1)); i++) {
            strbuf_printf(&body, "[{\"b\":%d,\"a\":2}],\"%d\",", i, i);
            strbuf_printf(&same, "[{\"a\":2,\"b\":%d}],\"%d\",", i, i);
        }
        strbuf_puts(&body, "0]}");
        strbuf_puts(&same, "0]}");
        struct cache_key a = key_of(strbuf_cstr(&body)), b = key_of(strbuf_cstr(&same));
        ck_assert(cache_key_eq(&a, &b));
        strbuf_dispose(&body);
        strbuf_dispose(&same);
    }
}
END_TEST

static void add_object(struct strbuf *out, int depth)
{
    static const char *const names[] = {"a", "b", "bb", "role", "content", "\\u0061", "x\\\"", ""};
    static const char *const values[] = {"12",  "\"\"", "\"ab\"", "\"},{\"", "-1.5", "null", "\"say \\\"}\\\\\"",
                                         "[1]", "{}"};
    unsigned next = 0;
    strbuf_putc(out, '{');
    for (int i = rand() % 4; i > 0; i--) {
        /* mostly in order, seldom with escapes or again */
        unsigned name = rand() % 15 == 0 ? (unsigned)rand() % COUNT(names) : (next += 1 + (unsigned)rand() % 2);
        strbuf_printf(out, "\"%s\":", names[name % COUNT(names)]);
        if (depth > 0 && rand() % 12 == 0)
            add_object(out, depth - 1);
        else if (rand() % 9 == 0)
            strbuf_printf(out, "\"%*s\"", rand() % 200, "text\\n");
        else
            strbuf_puts(out, values[(size_t)rand() % (rand() % 8 == 0 ? COUNT(values) : COUNT(values) - 2)]);
        strbuf_puts(out, i != 1 ? "," : "");
    }
    strbuf_putc(out, '}');
}

/* Adds a text with blanks beside its brackets, commas and colons. */
static void add_spaced(struct strbuf *out, struct span text)
{
    bool inside = false;
    int odds = 1 + rand() % 30, most = rand() % 8 == 0 ? 150 : 3;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.base[i];
        bool place = !inside && memchr("{}[],:", c, 6) != NULL;
        for (int n = place && rand() % odds == 0 ? rand() % most : 0; n > 0; n--)
            strbuf_putc(out, " \t\r\n"[rand() % 4]);
        strbuf_putc(out, c);
        if (inside && c == '\\' && i + 1 < text.len)
            strbuf_putc(out, text.base[++i]);
        else if (c == '"')
            inside = !inside;
        for (int n = place && rand() % odds == 0 ? rand() % most : 0; n > 0; n--)
            strbuf_putc(out, " \t\r\n"[rand() % 4]);
    }
}

/* Objects that are read in a row must be what they are when they are read one by one, as they are behind some with
 * escapes in their names, with white space between their tokens and without. */
START_TEST(objects_of_a_row_are_what_they_are_one_by_one)
{
    static const char bytes[] = "\",[]1a{}: \\";
    unsigned results[CACHE_KEY_RESULTS] = {0};
    srand(13);
    for (int round = 0; round < 20000; round++) {
        struct strbuf list, body;
        struct cache_key key, same;
        strbuf_init(&list, BODY_MAX);
        strbuf_init(&body, BODY_MAX);
        for (int i = rand() % 16; i >= 0; i--) {
            add_object(&list, 2);
            strbuf_puts(&list, i != 0 ? "," : "]}");
        }
        if (rand() % 2 == 0)
            list.base[(size_t)rand() % list.len] = bytes[(size_t)rand() % (sizeof(bytes) - 1)];
        enum cache_key_result result = CACHE_KEY_MADE;
        for (int way = 0; way < 4; way++) {
            strbuf_reset(&body);
            strbuf_puts(&body, "{\"input\":[");
            for (int i = 0; i < 4; i++)
                strbuf_puts(&body, way % 2 == 0 ? "{\"a\":1}," : "{\"\\u0061\":1},");
            if (way < 2)
                strbuf_add(&body, strbuf_span(&list));
            else
                add_spaced(&body, strbuf_span(&list));
            enum cache_key_result again = make(strbuf_span(&body), way == 0 ? &key : &same);
            if (way == 0)
                result = again;
            ck_assert_msg(result == again, "%s", strbuf_cstr(&body));
            ck_assert_msg(result != CACHE_KEY_MADE || way == 0 || cache_key_eq(&key, &same), "%s", strbuf_cstr(&body));
        }
        results[result]++;
        strbuf_dispose(&list);
        strbuf_dispose(&body);
    }
    ck_assert_uint_gt(results[CACHE_KEY_MADE], 5000);
    ck_assert_uint_gt(results[CACHE_KEY_INVALID], 2000);
    ck_assert_uint_gt(results[CACHE_KEY_DUPLICATE], 500);
}
END_TEST

/* Makes the key of a few objects, the first of which has a name that begins with `first` and has `len` bytes more. */
static struct cache_key key_of_name(const char *first, size_t len)
{
    struct strbuf body;
    strbuf_init(&body, BODY_MAX);
    strbuf_printf(&body, "{\"input\":[{},{\"%s", first);
    for (size_t i = 0; i < len; i++)
        strbuf_putc(&body, 'x');
    strbuf_puts(&body, "\":1},");
    for (int i = 0; i < 60; i++)
        strbuf_puts(&body, "{\"a\":1},");
    strbuf_puts(&body, "{}]}");
    struct cache_key key = key_of(strbuf_cstr(&body));
    strbuf_dispose(&body);
    return key;
}

START_TEST(a_name_may_begin_with_an_escape_whatever_its_length)
{
    for (size_t len = 0; len < 500; len++) {
        struct cache_key a = key_of_name("a", len), b = key_of_name("\\u0061", len);
        ck_assert_msg(cache_key_eq(&a, &b), "%zu bytes", len);
    }
}
END_TEST

/* Nothing is read behind a text that ends with the comma after an object (the memory it is in is just as large). */
START_TEST(a_row_may_break_off_behind_a_comma)
{
    for (size_t blanks = 100; blanks < 300; blanks++) {
        struct strbuf body;
        struct cache_key key;
        strbuf_init(&body, BODY_MAX);
        strbuf_puts(&body, "{\"a\":[{");
        for (size_t i = 0; i < blanks; i++)
            strbuf_putc(&body, ' ');
        strbuf_puts(&body, "},");
        ck_assert_int_eq(make((struct span){body.base, body.len}, &key), CACHE_KEY_INVALID);
        strbuf_dispose(&body);
    }
}
END_TEST

/* As many members may be put in order as where there are no rows. */
START_TEST(members_that_are_put_in_order_have_a_maximum)
{
    for (unsigned more = 0; more < 2; more++) {
        struct strbuf body;
        struct cache_key key;
        strbuf_init(&body, BODY_MAX);
        strbuf_puts(&body, "{\"m\":[");
        for (unsigned i = 0; i < CACHE_KEY_MAX_PARTS / 4; i++) /* and some that are not, which do not count */
            strbuf_puts(&body, "{\"b\":1,\"a\":2},{\"a\":1,\"b\":2},{\"b\":1,\"a\":2},");
        strbuf_puts(&body, more ? "{\"b\":1,\"a\":2}]}" : "{\"a\":1,\"b\":2}]}");
        ck_assert_int_eq(make(strbuf_span(&body), &key), more ? CACHE_KEY_COMPLEX : CACHE_KEY_MADE);
        strbuf_dispose(&body);
    }
}
END_TEST

/* Wherever a body is cut off there is no key, and nothing is read behind it. */
START_TEST(a_row_may_break_off_anywhere)
{
    static const char body[] =
        "{\"m\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a \\\\\\\"}\"},{\"b\": [1, {}], "
        "\"a\":null} ]},"
        "{\"content\" : \"some words that are longer than a block of sixty-four bytes, or even two of them, as there "
        "are many\", \"role\": \"user\"}]}";
    struct cache_key key;
    for (size_t len = 2; len < sizeof(body) - 1; len++) {
        struct strbuf cut;
        strbuf_init(&cut, BODY_MAX);
        strbuf_add(&cut, (struct span){body, len});
        ck_assert_int_eq(make(strbuf_span(&cut), &key), CACHE_KEY_INVALID);
        strbuf_puts(&cut, "}");
        ck_assert_int_eq(make(strbuf_span(&cut), &key), len == sizeof(body) - 2 ? CACHE_KEY_MADE : CACHE_KEY_INVALID);
        strbuf_dispose(&cut);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("body row");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_checked_fixture(tests, NULL, dispose);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, members_are_put_in_order, 0, TIMES);
    tcase_add_loop_test(tests, blanks_are_left_out, 0, TIMES);
    tcase_add_loop_test(tests, what_is_rare_is_left_to_others, 0, TIMES);
    tcase_add_loop_test(tests, many_members_may_be_there_in_order_only, 0, TIMES);
    tcase_add_loop_test(tests, texts_end_where_they_end, 0, TIMES);
    tcase_add_loop_test(tests, members_that_are_put_in_order_have_a_maximum, 0, TIMES);
    tcase_add_test(tests, rows_have_their_own_places);
    tcase_add_test(tests, objects_of_a_row_are_what_they_are_one_by_one);
    tcase_add_test(tests, a_name_may_begin_with_an_escape_whatever_its_length);
    tcase_add_test(tests, a_row_may_break_off_behind_a_comma);
    tcase_add_test(tests, a_row_may_break_off_anywhere);
    return run_suite("cache body row", tests);
}
