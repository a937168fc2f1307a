#include "base/http_text.h"
#include "run_suite.h"

START_TEST(what_may_stand_in_a_line)
{
    ck_assert(http_text_is_clean(SPAN("")));
    ck_assert(http_text_is_clean(SPAN_NONE)); /* for UndefinedBehaviorSanitizer */
    ck_assert(http_text_is_clean(SPAN("a b\tc \xc3\xa4")));
    for (int c = 0; c < 0x20; c++) {
        char text[] = {'a', (char)c, 'b'};
        ck_assert_int_eq(http_text_is_clean((struct span){text, 3}), c == '\t');
    }
    ck_assert(!http_text_is_clean(SPAN("a\x7f")));
    /* One byte of each kind at each place of texts of each length. */
    for (int c = 0; c < 256; c++)
        for (size_t len = 1; len < 52; len++)
            for (size_t at = 0; at < len; at++) {
                char text[52];
                memset(text, 'x', sizeof(text));
                text[at] = (char)c;
                ck_assert_int_eq(http_text_is_clean((struct span){text, len}), (c >= 0x20 || c == '\t') && c != 0x7f);
            }
}
END_TEST

START_TEST(tokens)
{
    ck_assert(http_text_is_token(SPAN("x-request-id")));
    ck_assert(http_text_is_token(SPAN("!#$%&'*+-.^_`|~09AZaz")));
    ck_assert(!http_text_is_token(SPAN("")));
    for (const char *c = " :\"(),/;<=>?@[\\]{}\t\x7f\x80"; *c != '\0'; c++)
        ck_assert(!http_text_is_token((struct span){c, 1}));
    ck_assert(!http_text_is_token((struct span){"", 1}));
}
END_TEST

START_TEST(lists)
{
    ck_assert(http_text_list_has(SPAN("Keep-Alive , close"), SPAN("close")));
    ck_assert(http_text_list_has(SPAN("CLOSE"), SPAN("close")));
    ck_assert(http_text_list_has(SPAN(",,\tclose ,"), SPAN("close")));
    ck_assert(!http_text_list_has(SPAN("closed, xclose, clo se"), SPAN("close")));
    ck_assert(!http_text_list_has(SPAN_NONE, SPAN("close")));
}
END_TEST

START_TEST(headers)
{
    struct strbuf head;
    strbuf_init(&head, 64);
    http_text_add_header(&head, SPAN("Host"), SPAN("a:1"));
    http_text_add_header(&head, SPAN("X-None"), SPAN_NONE);
    ck_assert(span_eq(strbuf_span(&head), SPAN("Host: a:1\r\nX-None: \r\n")));
    strbuf_dispose(&head);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("http_text");
    tcase_add_test(tcase, what_may_stand_in_a_line);
    tcase_add_test(tcase, tokens);
    tcase_add_test(tcase, lists);
    tcase_add_test(tcase, headers);
    return run_suite("http_text", tcase);
}
