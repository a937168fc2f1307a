#include "gateway/splice.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Reads a body and has it spliced, with another model or none; the text that a backend gets. */
static char *spliced(const char *text, const char *model, bool *asks)
{
    static const struct span names[] = {SPAN("model"), SPAN("stream_options")};
    static char out[4096];
    struct json_value values[2], root;
    struct json_error error;
    struct splice splices[SPLICES_MAX];
    struct span pieces[EXCHANGE_BODY_PIECES] = {SPAN_NONE};
    size_t count = 0, len = 0;
    struct span body = span_of(text);
    ck_assert_msg(json_scan(body, names, 2, values, &root, &error), "%s", text);
    if (model != NULL)
        splices[count++] = (struct splice){values[0].raw, span_of(model)};
    *asks = splice_usage(&root, &values[1], &splices[count]);
    count += *asks;
    splice_body(body, splices, count, pieces);
    for (size_t i = 0; i < EXCHANGE_BODY_PIECES; i++) {
        if (pieces[i].len != 0)
            memcpy(out + len, pieces[i].base, pieces[i].len);
        len += pieces[i].len;
    }
    out[len] = '\0';
    ck_assert_msg(json_scan((struct span){out, len}, names, 2, values, &root, &error), "%s", out);
    return out;
}

START_TEST(usage_is_asked_for)
{
    static const struct {
        const char *body, *sent;
    } cases[] = {
        {"{\"a\":1}", "{\"stream_options\":{\"include_usage\":true},\"a\":1}"},
        {" \n{ \"a\":1 } ", " \n{\"stream_options\":{\"include_usage\":true}, \"a\":1 } "},
        {"{\"stream_options\":null}", "{\"stream_options\":{\"include_usage\":true}}"},
        {"{\"stream_options\" : { } ,\"a\":1}", "{\"stream_options\" : {\"include_usage\":true } ,\"a\":1}"},
        {"{\"stream_options\":{\"x\":{\"include_usage\":true}}}",
         "{\"stream_options\":{\"include_usage\":true,\"x\":{\"include_usage\":true}}}"},
        {"{\"stream_options\":{\"include_usage\":false,\"x\":1}}",
         "{\"stream_options\":{\"include_usage\":true,\"x\":1}}"},
        {"{\"stream_options\":{\"x\":1,\"include_usage\": null }}",
         "{\"stream_options\":{\"x\":1,\"include_usage\": true }}"},
        {"{\"stream_options\":{\"include\\u005fusage\":false}}", "{\"stream_options\":{\"include\\u005fusage\":true}}"},
        {"{\"x\":{\"stream_options\":{\"include_usage\":true}}}",
         "{\"stream_options\":{\"include_usage\":true},\"x\":{\"stream_options\":{\"include_usage\":true}}}"},
    };
    bool asks;
    for (size_t i = 0; i < COUNT(cases); i++) {
        ck_assert_str_eq(spliced(cases[i].body, NULL, &asks), cases[i].sent);
        ck_assert(asks);
    }
}
END_TEST

START_TEST(what_asks_already_or_makes_no_sense_stays)
{
    static const char *const bodies[] = {
        "{\"stream_options\":{\"include_usage\":true}}",
        "{\"stream_options\":{\"include_usage\":\"true\"}}",
        "{\"stream_options\":{\"include_usage\":1}}",
        "{\"stream_options\":{\"include_usage\":true,\"include_usage\":false}}",
        "{\"stream_options\":{\"include_usage\":false,\"include_usage\":null}}",
        "{\"stream_options\":{},\"stream_options\":{}}",
        "{\"stream_options\":{\"include_usage\":true},\"stream_options\":null}",
        "{\"stream_options\":[]}",
        "{\"stream_options\":\"\"}",
        "{\"stream_options\":0}",
        "{\"stream_options\":false}",
        "{}",
        "[]",
    };
    bool asks;
    for (size_t i = 0; i < COUNT(bodies); i++) {
        ck_assert_str_eq(spliced(bodies[i], NULL, &asks), bodies[i]);
        ck_assert_msg(!asks, "%s", bodies[i]);
    }
}
END_TEST

START_TEST(with_another_model_in_any_order)
{
    bool asks;
    ck_assert_str_eq(spliced("{\"model\":\"a\",\"stream_options\":null,\"x\":1}", "\"other\"", &asks),
                     "{\"model\":\"other\",\"stream_options\":{\"include_usage\":true},\"x\":1}");
    ck_assert_str_eq(spliced("{\"stream_options\":{\"include_usage\":false},\"model\":\"a\"}", "\"other\"", &asks),
                     "{\"stream_options\":{\"include_usage\":true},\"model\":\"other\"}");
    ck_assert_str_eq(spliced("{\"model\":\"a\"}", "\"other\"", &asks),
                     "{\"stream_options\":{\"include_usage\":true},\"model\":\"other\"}");
    ck_assert_str_eq(spliced("{\"model\":\"a\",\"stream_options\":7}", "\"other\"", &asks),
                     "{\"model\":\"other\",\"stream_options\":7}");
    ck_assert(!asks);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("splice");
    tcase_add_test(tests, usage_is_asked_for);
    tcase_add_test(tests, what_asks_already_or_makes_no_sense_stays);
    tcase_add_test(tests, with_another_model_in_any_order);
    return run_suite("splice", tests);
}
