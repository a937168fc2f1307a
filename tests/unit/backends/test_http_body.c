#include "backends/http_body.h"
#include "run_suite.h"
#include <stdlib.h>

struct taken {
    char text[64];
    size_t len;
    bool done, excess;
    const char *problem;
};

/* Gives a body `wire` in two reads, cut at `cut`, each in memory of just its length. */
static struct taken take(enum http_framing framing, uint64_t length, struct span wire, size_t cut)
{
    struct http_body body;
    struct taken taken = {.len = 0};
    memset(&body, 0xA5, sizeof(body));
    http_body_begin(&body, framing, length);
    for (int i = 0; i < 2 && !taken.done && taken.problem == NULL; i++) {
        struct span part = i == 0 ? (struct span){wire.base, cut} : span_skip(wire, cut);
        size_t size = part.len;
        if (size == 0)
            continue;
        char *bytes = malloc(size);
        memcpy(bytes, part.base, size);
        taken.problem = http_body_unframe(&body, bytes, &size, &taken.done, &taken.excess);
        ck_assert_uint_le(size, part.len);
        if (taken.problem == NULL) {
            memcpy(taken.text + taken.len, bytes, size);
            taken.len += size;
        }
        free(bytes);
    }
    return taken;
}

START_TEST(a_body_ends_where_its_framing_says_wherever_it_is_cut)
{
    static const struct {
        enum http_framing framing;
        uint64_t length;
        struct span wire, text;
        bool done;
        size_t end; /* of the body on the wire */
    } cases[] = {
        {HTTP_BODY_LENGTH, 5, SPAN("hello"), SPAN("hello"), true, 5},
        {HTTP_BODY_LENGTH, 5, SPAN("helloHTTP/1.1 200"), SPAN("hello"), true, 5},
        {HTTP_BODY_LENGTH, 6, SPAN("hello"), SPAN("hello"), false, 5},
        {HTTP_BODY_CHUNKED, 0, SPAN("5\r\nhello\r\n0\r\n\r\n"), SPAN("hello"), true, 15},
        {HTTP_BODY_CHUNKED, 0, SPAN("2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n"), SPAN("hello"), true, 30},
        {HTTP_BODY_CHUNKED, 0, SPAN("5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200"), SPAN("hello"), true, 15},
        {HTTP_BODY_CHUNKED, 0, SPAN("5\r\nhello\r\n0\r\n"), SPAN("hello"), false, 13},
        {HTTP_BODY_UNTIL_CLOSE, 0, SPAN("5\r\nhello\r\n0\r\n\r\n"), SPAN("5\r\nhello\r\n0\r\n\r\n"), false, 15},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t cut = 0; cut <= cases[i].wire.len; cut++) {
            struct taken taken = take(cases[i].framing, cases[i].length, cases[i].wire, cut);
            /* What comes behind a body that is complete with the first read, nobody has looked at. */
            size_t seen = cut >= cases[i].end ? cut : cases[i].wire.len;
            ck_assert_ptr_null(taken.problem);
            ck_assert_int_eq(taken.done, cases[i].done);
            ck_assert_msg(span_eq((struct span){taken.text, taken.len}, cases[i].text), "case %zu, cut at %zu", i, cut);
            ck_assert_msg(taken.excess == (cases[i].done && seen > cases[i].end), "case %zu, cut at %zu", i, cut);
        }
}
END_TEST

START_TEST(what_is_not_chunked_is_told)
{
    static const struct span wrong[] = {SPAN("hello\r\n"), SPAN("\r\n5\r\nhello\r\n"), SPAN("5\r\nhelloworld\r\n"),
                                        SPAN("11111111111111111\r\n")};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        for (size_t cut = 0; cut <= wrong[i].len; cut++) {
            struct taken taken = take(HTTP_BODY_CHUNKED, 0, wrong[i], cut);
            ck_assert_ptr_nonnull(taken.problem);
            ck_assert(!taken.done);
        }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("http_body");
    tcase_add_test(tests, a_body_ends_where_its_framing_says_wherever_it_is_cut);
    tcase_add_test(tests, what_is_not_chunked_is_told);
    return run_suite("http_body", tests);
}
