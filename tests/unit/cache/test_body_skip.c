#include "cache/body_skip.h"
#include "key_maker.h"

#define BODY_MAX 1000000

/* The end of a string, one byte after the other. */
static const char *plain_end(const char *p, const char *end)
{
    for (; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p : NULL;
}

START_TEST(a_string_ends_at_the_quote_that_is_not_escaped)
{
    static const char bytes[] = "\\\\a\"b";
    srand(7);
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)rand() % 300, kinds = 1 + (size_t)rand() % (sizeof(bytes) - 1);
        int odds = 1 + rand() % 100;
        char *text = malloc(len + (len == 0));
        for (size_t i = 0; i < len; i++) {
            text[i] = bytes[(size_t)rand() % kinds];
            if (text[i] == '"' && rand() % odds != 0)
                text[i] = '\\';
        }
        ck_assert_ptr_eq(body_skip_escapes(text, text + len), plain_end(text, text + len));
        free(text);
    }
}
END_TEST

static void add_values(struct strbuf *out, int depth)
{
    static const char *const values[] = {"12", "\"\"", "\"ab\"", "\"],[\"", "-1.5", "[]", "\"a{}:\"", "7"};
    for (int i = rand() % 12; i >= 0; i--) {
        if (depth > 0 && rand() % 3 == 0) {
            strbuf_putc(out, '[');
            add_values(out, depth - 1);
            strbuf_putc(out, ']');
        } else {
            strbuf_puts(out, values[(size_t)rand() % COUNT(values)]);
        }
        if (i != 0)
            strbuf_putc(out, ',');
    }
}

/* What is skipped at once must be what is good when it is read value by value, as it is behind an escape. */
START_TEST(a_list_that_is_skipped_is_a_good_one)
{
    static const char bytes[] = "\",[]1a{}: \\";
    unsigned made = 0, invalid = 0;
    srand(11);
    for (int round = 0; round < 20000; round++) {
        struct strbuf list, quick, slow;
        struct cache_key key;
        strbuf_init(&list, BODY_MAX);
        strbuf_init(&quick, BODY_MAX);
        strbuf_init(&slow, BODY_MAX);
        add_values(&list, 4);
        if (rand() % 2 == 0)
            list.base[(size_t)rand() % list.len] = bytes[(size_t)rand() % (sizeof(bytes) - 1)];
        strbuf_puts(&quick, "{\"input\":[1,");
        strbuf_puts(&slow, "{\"input\":[\"\\n\",");
        strbuf_add(&quick, (struct span){list.base, list.len});
        strbuf_add(&slow, (struct span){list.base, list.len});
        strbuf_puts(&quick, "]}");
        strbuf_puts(&slow, "]}");
        enum cache_key_result result = make((struct span){quick.base, quick.len}, &key);
        ck_assert_msg(result == make((struct span){slow.base, slow.len}, &key), "%.*s", (int)quick.len, quick.base);
        made += result == CACHE_KEY_MADE;
        invalid += result == CACHE_KEY_INVALID;
        strbuf_dispose(&list);
        strbuf_dispose(&quick);
        strbuf_dispose(&slow);
    }
    ck_assert_uint_gt(made, 5000);
    ck_assert_uint_gt(invalid, 2000);
}
END_TEST

/* Brackets have their maximum within a list too. */
START_TEST(a_list_is_not_too_deep)
{
    for (unsigned levels = CACHE_KEY_MAX_DEPTH - 2; levels <= CACHE_KEY_MAX_DEPTH + 1; levels++) {
        struct strbuf body;
        struct cache_key key;
        strbuf_init(&body, BODY_MAX);
        strbuf_puts(&body, "{\"input\":[\"a\"");
        /* One level is the object's, one the outer array's. */
        for (int i = 0; i < 40; i++)
            strbuf_puts(&body, ",[1]");
        strbuf_putc(&body, ',');
        for (unsigned i = 2; i < levels; i++)
            strbuf_putc(&body, '[');
        for (unsigned i = 2; i < levels; i++)
            strbuf_putc(&body, ']');
        for (int i = 0; i < 40; i++)
            strbuf_puts(&body, ",[1]");
        strbuf_puts(&body, "]}");
        ck_assert_int_eq(make((struct span){body.base, body.len}, &key),
                         levels <= CACHE_KEY_MAX_DEPTH ? CACHE_KEY_MADE : CACHE_KEY_DEEP);
        strbuf_dispose(&body);
    }
}
END_TEST

/* A bracket too many ends the outermost array, even if there is one to open another. */
START_TEST(a_list_does_not_end_in_its_middle)
{
    for (int place = 0; place <= 80; place++) {
        struct strbuf body;
        struct cache_key key;
        strbuf_init(&body, BODY_MAX);
        strbuf_puts(&body, "{\"input\":[1,");
        for (int i = 0; i < 80; i++)
            strbuf_puts(&body, i == place ? "[1]],[[1]," : i % 3 == 0 ? "[[1],2]," : "[],");
        strbuf_puts(&body, "1]}");
        ck_assert_int_eq(make((struct span){body.base, body.len}, &key),
                         place < 80 ? CACHE_KEY_INVALID : CACHE_KEY_MADE);
        strbuf_dispose(&body);
    }
}
END_TEST

START_TEST(a_list_that_is_skipped_has_the_key_of_one_that_is_not)
{
    struct strbuf tight, spaced;
    strbuf_init(&tight, BODY_MAX);
    strbuf_init(&spaced, BODY_MAX);
    for (int i = 0; i < 100; i++) {
        strbuf_puts(&tight, i == 0 ? "{\"input\":[" : ",");
        strbuf_puts(&spaced, i == 0 ? "{\"input\":[ " : " , ");
        strbuf_puts(&tight, i % 3 != 0 ? "\"a b\"" : "[[1],[]]");
        strbuf_puts(&spaced, i % 3 != 0 ? "\"a b\"" : "[ [ 1], [] ]");
    }
    strbuf_puts(&tight, "]}");
    strbuf_puts(&spaced, "]}");
    struct cache_key a = key_of(strbuf_cstr(&tight)), b = key_of(strbuf_cstr(&spaced));
    ck_assert(cache_key_eq(&a, &b));
    strbuf_dispose(&tight);
    strbuf_dispose(&spaced);
}
END_TEST

/* Makes the key of a list of a few numbers with blanks between them, a text of `len` bytes with a blank at `place`, and
 * `more` numbers without blanks. */
static struct cache_key key_of_text(size_t len, size_t place, size_t more)
{
    struct strbuf body;
    strbuf_init(&body, BODY_MAX);
    strbuf_puts(&body, "{\"input\": [1, 2,\"");
    for (size_t i = 0; i < len; i++)
        strbuf_putc(&body, i == place ? ' ' : 'a');
    strbuf_putc(&body, '"');
    for (size_t i = 0; i < more; i++)
        strbuf_puts(&body, ",34567");
    strbuf_puts(&body, "]}");
    struct cache_key key = key_of(strbuf_cstr(&body));
    strbuf_dispose(&body);
    return key;
}

/* Wherever blocks, runs and the digest's pieces end, blanks within a text count, though those between the numbers
 * before it do not. */
START_TEST(blanks_in_a_text_that_is_skipped_count)
{
    for (size_t len = 2; len < 4200; len += len == 600 ? 3300 : 1) {
        for (size_t more = 0; more < 40; more += 13) {
            struct cache_key a = key_of_text(len, 0, more), b = key_of_text(len, len - 1, more);
            ck_assert_msg(!cache_key_eq(&a, &b), "%zu bytes, %zu numbers", len, more);
        }
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("body skip");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_string_ends_at_the_quote_that_is_not_escaped);
    tcase_add_test(tests, a_list_that_is_skipped_is_a_good_one);
    tcase_add_test(tests, a_list_is_not_too_deep);
    tcase_add_test(tests, a_list_does_not_end_in_its_middle);
    tcase_add_test(tests, a_list_that_is_skipped_has_the_key_of_one_that_is_not);
    tcase_add_test(tests, blanks_in_a_text_that_is_skipped_count);
    return run_suite("cache body skip", tests);
}
