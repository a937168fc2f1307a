#include "gateway/chat_request.h"
#include "run_suite.h"

static const struct chat_defaults nothing = {SPAN_NONE, SPAN_NONE};

static struct chat_request read_text(const char *text)
{
    struct chat_request request;
    chat_request_read(span_of(text), &request);
    return request;
}

static void assert_span(struct span span, const char *text)
{
    ck_assert_msg(span_eq(span, span_of(text)), "%.*s is not %s", (int)span.len, span.base, text);
}

/* The body that a message becomes, with an empty history. */
static void assert_body(const char *text, const struct chat_defaults *defaults, const char *wanted)
{
    struct chat_history history;
    struct strbuf body;
    struct json_value root;
    struct json_error error;
    struct chat_request request = read_text(text);
    ck_assert(request.kind == CHAT_BODY || request.kind == CHAT_MESSAGE);
    chat_history_init(&history, 1000);
    strbuf_init(&body, 4096);
    chat_request_body(&request, defaults, &history, &body);
    ck_assert_str_eq(strbuf_cstr(&body), wanted);
    ck_assert(json_scan(strbuf_span(&body), NULL, 0, NULL, &root, &error));
    strbuf_dispose(&body);
}

START_TEST(what_is_asked_for)
{
    static const struct {
        const char *text;
        enum chat_request_kind kind;
        const char *id, *param;
    } cases[] = {
        {"{\"id\":1,\"messages\":[]}", CHAT_BODY, "1", NULL},
        {" {\"messages\":{}, \"id\" : \"a\\\"b\" } ", CHAT_BODY, "\"a\\\"b\"", NULL},
        {"{\"id\":1,\"message\":\"\"}", CHAT_MESSAGE, "1", NULL},
        {"{\"id\":1,\"message\":\"x\",\"messages\":null,\"cancel\":null}", CHAT_MESSAGE, "1", NULL},
        {"{\"id\":-1.5e3,\"cancel\":true,\"message\":\"x\"}", CHAT_CANCEL, "-1.5e3", NULL},
        {"{\"\\u0069d\":3,\"cancel\":true}", CHAT_CANCEL, "3", NULL},
        {"{\"id\":1,\"cancel\":false,\"message\":\"x\"}", CHAT_MESSAGE, "1", NULL},
        {"{\"id\":1,\"cancel\":\"yes\"}", CHAT_INVALID, "1", "cancel"},
        {"{\"id\":1}", CHAT_INVALID, "1", "message"},
        {"{\"id\":1,\"message\":null}", CHAT_INVALID, "1", "message"},
        {"{\"id\":1,\"message\":[]}", CHAT_INVALID, "1", "message"},
        {"{\"id\":1,\"message\":\"x\",\"messages\":[]}", CHAT_INVALID, "1", "message"},
        {"{\"message\":\"x\"}", CHAT_INVALID, "", "id"},
        {"{\"id\":true,\"message\":\"x\"}", CHAT_INVALID, "", "id"},
        {"{\"id\":{},\"message\":\"x\"}", CHAT_INVALID, "", "id"},
        {"{\"id\":1,\"id\":2,\"message\":\"x\"}", CHAT_INVALID, "2", "id"},
        {"{\"id\":1,\"model\":\"a\",\"model\":\"b\",\"message\":\"x\"}", CHAT_INVALID, "1", "model"},
        {"", CHAT_NO_JSON, "", NULL},
        {"[]", CHAT_NO_JSON, "", NULL},
        {"\"x\"", CHAT_NO_JSON, "", NULL},
        {"{\"id\":1,\"message\":\"x\"} x", CHAT_NO_JSON, "", NULL},
        {"{\"id\":1,\"message\":\"\xff\"}", CHAT_NO_JSON, "", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct chat_request request = read_text(cases[i].text);
        ck_assert_msg(request.kind == cases[i].kind, "%s is %d", cases[i].text, request.kind);
        assert_span(request.id, cases[i].id);
        ck_assert((request.problem != NULL) == (request.kind == CHAT_INVALID || request.kind == CHAT_NO_JSON));
        if (cases[i].param != NULL)
            ck_assert_str_eq(request.param, cases[i].param);
    }
}
END_TEST

START_TEST(long_ids_are_refused)
{
    char text[400] = "{\"cancel\":true,\"id\":\"";
    size_t start = strlen(text);
    memset(text + start, 'x', CHAT_ID_MAX - 2);
    strcpy(text + start + CHAT_ID_MAX - 2, "\"}");
    ck_assert_int_eq(read_text(text).kind, CHAT_CANCEL);
    memset(text + start, 'x', CHAT_ID_MAX - 1);
    strcpy(text + start + CHAT_ID_MAX - 1, "\"}");
    ck_assert_int_eq(read_text(text).kind, CHAT_INVALID);
    ck_assert_uint_eq(read_text(text).id.len, 0);
}
END_TEST

START_TEST(a_body_loses_what_is_weirs_own_and_is_streamed)
{
    static const struct {
        const char *text, *body;
    } cases[] = {
        {"{\"id\":1,\"model\":\"m\",\"messages\":[1]}", "{\"stream\":true,\"model\":\"m\",\"messages\":[1]}"},
        {"{\"model\":\"m\",\"messages\":[1],\"id\":1}", "{\"stream\":true,\"model\":\"m\",\"messages\":[1]}"},
        {"{\"messages\":[1],\"id\":1,\"stream\":false}", "{\"stream\":true,\"messages\":[1]}"},
        {"{\"stream\":true,\"id\":1,\"messages\":[1]}", "{\"stream\":true,\"messages\":[1]}"},
        {"{\"id\" : 1 , \"messages\" : [1] }", "{\"stream\":true, \"messages\" : [1]}"},
        {"{\"messages\":[1]\n,\n\"id\":1\n}", "{\"stream\":true,\"messages\":[1]\n}"},
        {"{\"\\u0069\\u0064\":1,\"messages\":[{\"id\":1}],\"x\":\"\\\"id\\\":1\"}",
         "{\"stream\":true,\"messages\":[{\"id\":1}],\"x\":\"\\\"id\\\":1\"}"},
        {"{\"id\":\"x\",\"cancel\":false,\"messages\":[1],\"message\":null,\"stream_options\":{}}",
         "{\"stream\":true,\"messages\":[1],\"stream_options\":{}}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_body(cases[i].text, &nothing, cases[i].body);
}
END_TEST

START_TEST(defaults_fill_in_what_is_missing)
{
    const struct chat_defaults defaults = {SPAN("m\"1"), SPAN("be\nbrief")};
    assert_body("{\"id\":1,\"messages\":[1]}", &defaults, "{\"stream\":true,\"model\":\"m\\\"1\",\"messages\":[1]}");
    assert_body("{\"id\":1,\"model\":null,\"messages\":[1]}", &defaults,
                "{\"stream\":true,\"model\":\"m\\\"1\",\"messages\":[1]}");
    assert_body("{\"id\":1,\"model\":7,\"messages\":[1]}", &defaults, "{\"stream\":true,\"model\":7,\"messages\":[1]}");
    assert_body("{\"id\":1,\"message\":\"a\\u0041\"}", &defaults,
                "{\"stream\":true,\"model\":\"m\\\"1\",\"messages\":[{\"role\":\"system\",\"content\":\"be\\nbrief\"},"
                "{\"role\":\"user\",\"content\":\"a\\u0041\"}],\"stream_options\":{\"include_usage\":true}}");
    assert_body("{\"id\":1,\"message\":\"a\",\"top_p\":1,\"stream_options\":{\"x\":1}}", &nothing,
                "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_p\":1,"
                "\"stream_options\":{\"x\":1}}");
    assert_body("{\"id\":1,\"message\":\"a\",\"stream_options\":null}", &nothing,
                "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                "\"stream_options\":{\"include_usage\":true}}");
}
END_TEST

START_TEST(chunks_give_their_text_and_tell_of_errors)
{
    struct strbuf text;
    struct span error;
    strbuf_init(&text, 100);
    ck_assert(
        chat_chunk_read(SPAN("{\"choices\":[{\"delta\":{\"content\":\"a\\u00e9\"}},{\"delta\":{\"content\":\"no\"}}]}"),
                        &text, &error));
    ck_assert(chat_chunk_read(SPAN("{\"choices\":[{\"delta\":{\"role\":\"x\"}}]}"), &text, &error));
    ck_assert(chat_chunk_read(SPAN("{\"choices\":[{\"delta\":{\"content\":null}}]}"), &text, &error));
    ck_assert(chat_chunk_read(SPAN("{\"choices\":[]}"), &text, &error));
    ck_assert(chat_chunk_read(SPAN("{\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"error\":null}"), &text, &error));
    ck_assert_uint_eq(error.len, 0);
    ck_assert_str_eq(strbuf_cstr(&text), "a\\u00e9b");
    ck_assert(chat_chunk_read(SPAN("{\"error\":{\"message\":\"x\"}}"), &text, &error));
    assert_span(error, "{\"message\":\"x\"}");
    ck_assert(chat_chunk_read(SPAN("{\"error\":\"bad\"}"), NULL, &error));
    assert_span(error, "\"bad\"");
    ck_assert(chat_chunk_read(SPAN("7"), &text, &error));
    ck_assert(!chat_chunk_read(SPAN("not json"), &text, &error));
    ck_assert(!chat_chunk_read(SPAN("{\"a\":1}\n{\"b\":2}"), &text, &error));
    strbuf_dispose(&text);
}
END_TEST

/* ---- history ---- */

static void assert_history(const struct chat_history *history, const char *wanted)
{
    struct strbuf out;
    strbuf_init(&out, 10000);
    chat_history_write(history, &out);
    ck_assert_str_eq(strbuf_cstr(&out), wanted);
    ck_assert_uint_eq(out.len, chat_history_bytes(history));
    strbuf_dispose(&out);
}

#define TURN(message, answer)                                                                                          \
    "{\"role\":\"user\",\"content\":\"" message "\"},{\"role\":\"assistant\",\"content\":\"" answer "\"},"

START_TEST(the_oldest_turns_go_first)
{
    struct chat_history history;
    chat_history_init(&history, 3 * strlen(TURN("1", "a")));
    assert_history(&history, "");
    chat_history_add(&history, SPAN("\"1\""), SPAN("a"));
    chat_history_add(&history, SPAN("\"2\""), SPAN("b"));
    chat_history_add(&history, SPAN("\"3\""), SPAN("c"));
    assert_history(&history, TURN("1", "a") TURN("2", "b") TURN("3", "c"));
    chat_history_add(&history, SPAN("\"4\""), SPAN("dd"));
    assert_history(&history, TURN("3", "c") TURN("4", "dd"));
    chat_history_add(&history, SPAN("\"5\""), SPAN(""));
    chat_history_dispose(&history);
    assert_history(&history, "");
    chat_history_add(&history, SPAN("\"6\""), SPAN("x"));
    assert_history(&history, TURN("6", "x"));
    char large[500];
    memset(large, 'x', sizeof(large));
    chat_history_add(&history, SPAN("\"7\""), (struct span){large, sizeof(large)});
    assert_history(&history, "");
    chat_history_dispose(&history);
}
END_TEST

START_TEST(turns_are_bounded_in_number)
{
    struct chat_history history;
    chat_history_init(&history, 1 << 20);
    for (int i = 0; i < CHAT_TURNS_MAX + 10; i++)
        chat_history_add(&history, SPAN("\"1\""), SPAN("a"));
    ck_assert_uint_eq(chat_history_bytes(&history), CHAT_TURNS_MAX * strlen(TURN("1", "a")));
    chat_history_dispose(&history);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("chat_request");
    tcase_add_test(tcase, what_is_asked_for);
    tcase_add_test(tcase, long_ids_are_refused);
    tcase_add_test(tcase, a_body_loses_what_is_weirs_own_and_is_streamed);
    tcase_add_test(tcase, defaults_fill_in_what_is_missing);
    tcase_add_test(tcase, chunks_give_their_text_and_tell_of_errors);
    tcase_add_test(tcase, the_oldest_turns_go_first);
    tcase_add_test(tcase, turns_are_bounded_in_number);
    return run_suite("chat_request", tcase);
}
