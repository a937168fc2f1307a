#include "run_suite.h"
#include "stream/dialect.h"
#include <stdio.h>
#include <stdlib.h>

/* What the last event of a text meant. */
struct outcome {
    const struct dialect *dialect;
    struct usage usage;
    unsigned flags;
    size_t events;
    bool cut;
};

static void on_event(void *ctx, const struct sse_event *event)
{
    struct outcome *outcome = ctx;

    outcome->flags = dialect_event(outcome->dialect, event, &outcome->usage);
    outcome->cut = event->cut;
    ++outcome->events;
}

/* Runs a stream through scanner and dialect, in pieces of `step` bytes. */
static struct outcome run(enum dialect_id id, const char *text, size_t step, size_t window)
{
    struct outcome outcome = {.dialect = dialect_get(id)};
    struct sse_scanner scanner;
    size_t len = strlen(text);

    sse_scanner_init(&scanner, window);
    for (size_t i = 0; i < len; i += step) {
        size_t n = len - i < step ? len - i : step;
        char *exact = malloc(n);
        memcpy(exact, text + i, n);
        sse_scan(&scanner, (struct span){exact, n}, on_event, &outcome);
        free(exact);
    }
    sse_scanner_dispose(&scanner);
    return outcome;
}

static unsigned flags_of(enum dialect_id id, const char *text)
{
    struct outcome whole = run(id, text, strlen(text), 0), ones = run(id, text, 1, 0);

    ck_assert_uint_ge(whole.events, 1);
    ck_assert_uint_eq(whole.flags, ones.flags);
    ck_assert_mem_eq(&whole.usage, &ones.usage, sizeof(whole.usage));
    return whole.flags;
}

static void expect_usage(const struct usage *usage, uint64_t prompt, uint64_t completion, uint64_t cached)
{
    ck_assert(usage->known);
    ck_assert_uint_eq(usage->prompt, prompt);
    ck_assert_uint_eq(usage->completion, completion);
    ck_assert_uint_eq(usage->cached, cached);
}

START_TEST(terminal_events)
{
    static const struct {
        enum dialect_id id;
        const char *text;
        unsigned flags;
    } cases[] = {
        {DIALECT_CHAT, "data: [DONE]\n\n", EVENT_TERMINAL},
        {DIALECT_CHAT, "data:[DONE]\n\n", EVENT_TERMINAL},
        {DIALECT_CHAT, "data:  [DONE] \t\r\n\r\n", EVENT_TERMINAL},
        {DIALECT_COMPLETIONS, "data: [DONE]\n\n", EVENT_TERMINAL},
        {DIALECT_CHAT, "data: [done]\n\n", 0},
        {DIALECT_CHAT, "data: [DONE]x\n\n", 0},
        {DIALECT_CHAT, "data: {\"content\":\"[DONE]\"}\n\n", 0},
        {DIALECT_CHAT, ": [DONE]\n\n", 0},
        {DIALECT_CHAT, "data: {\"choices\":[]}\n\n", 0},
        {DIALECT_CHAT, "data: \n\n", 0},
        {DIALECT_CHAT, "event: message_stop\ndata: {}\n\n", 0},
        {DIALECT_NONE, "data: [DONE]\n\n", 0},
        {DIALECT_NONE, "data: {\"error\":{}}\n\n", 0},
        {DIALECT_EMBEDDINGS, "data: [DONE]\n\n", 0},
        {DIALECT_RESPONSES, "event: response.completed\ndata: {}\n\n", EVENT_TERMINAL},
        {DIALECT_RESPONSES, "event: response.incomplete\ndata: {}\n\n", EVENT_TERMINAL},
        {DIALECT_RESPONSES, "event: response.failed\ndata: {}\n\n", EVENT_TERMINAL | EVENT_ERROR},
        {DIALECT_RESPONSES, "event: error\ndata: {}\n\n", EVENT_TERMINAL | EVENT_ERROR},
        {DIALECT_RESPONSES, "data: {\"type\":\"response.completed\",\"x\":1}\n\n", EVENT_TERMINAL},
        {DIALECT_RESPONSES, "data: {\"x\":{\"type\":\"a\"}, \"type\" : \"error\"}\n\n", EVENT_TERMINAL | EVENT_ERROR},
        {DIALECT_RESPONSES, "data: {\"x\":{\"type\":\"response.completed\"}}\n\n", 0},
        {DIALECT_RESPONSES, "event: response.created\ndata: {\"type\":\"response.created\"}\n\n", 0},
        {DIALECT_RESPONSES, "event: response.completed\n\n", 0},
        {DIALECT_RESPONSES, "data: [DONE]\n\n", 0},
        {DIALECT_MESSAGES, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", EVENT_TERMINAL},
        {DIALECT_MESSAGES, "data: {\"type\":\"message_stop\"}\n\n", EVENT_TERMINAL},
        {DIALECT_MESSAGES, "event: error\ndata: {\"type\":\"error\"}\n\n", EVENT_TERMINAL | EVENT_ERROR},
        {DIALECT_MESSAGES, "event: ping\ndata: {\"type\":\"ping\"}\n\n", 0},
        {DIALECT_MESSAGES, "data: {\"type\":5}\n\n", 0},
        {DIALECT_MESSAGES, "data: {\"type\":\n\n", 0},
    };

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i)
        ck_assert_msg(flags_of(cases[i].id, cases[i].text) == cases[i].flags, "case %zu: %s", i, cases[i].text);
    for (int id = DIALECT_NONE; id <= DIALECT_EMBEDDINGS; ++id) {
        bool expected = id != DIALECT_NONE && id != DIALECT_EMBEDDINGS;
        ck_assert(dialect_has_terminal(dialect_get((enum dialect_id)id)) == expected);
    }
    ck_assert_ptr_nonnull(dialect_get((enum dialect_id)99));
}
END_TEST

START_TEST(error_events)
{
    static const struct {
        const char *text;
        unsigned flags;
    } cases[] = {
        {"data: {\"error\":{\"message\":\"x\"}}\n\n", EVENT_ERROR},
        {"data:  { \"error\" : \"Unauthorized\" }\n\n", EVENT_ERROR},
        {"data: {\ndata:  \"error\": {}}\n\n", 0}, /* field names in between: nobody sends that */
        {"data: {\"error\":null,\"choices\":[]}\n\n", 0},
        {"data: {\"error\": null}\n\n", 0},
        {"data: {\"error\":\n\n", 0},
        {"data: {\"id\":1,\"error\":{}}\n\n", 0},
        {"data: {\"choices\":[{\"error\":{}}]}\n\n", 0},
        {"data: {\"object\":\"error\",\"message\":\"x\"}\n\n", EVENT_ERROR},
        {"data: {\"object\":\"chat.completion.chunk\"}\n\n", 0},
        {"event: error\ndata: {}\n\n", EVENT_ERROR},
        {"event: error\n\n", 0},
        {"data: \"error\"\n\n", 0},
        {"data: {\"error\\\n\n", 0},
        {"data: {\"\n\n", 0},
        {"data: {\n\n", 0},
    };

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i) {
        ck_assert_msg(flags_of(DIALECT_CHAT, cases[i].text) == cases[i].flags, "case %zu: %s", i, cases[i].text);
        ck_assert_uint_eq(flags_of(DIALECT_COMPLETIONS, cases[i].text), cases[i].flags);
    }
    ck_assert_uint_eq(flags_of(DIALECT_RESPONSES, cases[0].text), EVENT_ERROR);
}
END_TEST

START_TEST(chat_usage)
{
    struct outcome outcome;

    outcome = run(DIALECT_CHAT,
                  "data: {\"id\":\"a\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,"
                  "\"total_tokens\":29,\"prompt_tokens_details\":{\"audio_tokens\":1,\"cached_tokens\":7},"
                  "\"completion_tokens_details\":{\"cached_tokens\":99}},\"service_tier\":\"default\"}\n\n",
                  4096, 0);
    ck_assert_uint_eq(outcome.flags, EVENT_USAGE | EVENT_EXTRA);
    expect_usage(&outcome.usage, 19, 10, 7);

    /* Usage in every chunk: the last value stands, null changes nothing, nor do zero-length or strange ones. */
    outcome = run(DIALECT_CHAT,
                  "data: {\"usage\" : {\"prompt_tokens\" : 5, \"completion_tokens\":1}}\n\n"
                  "data: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"prompt_tokens_details\":null}}\n\n"
                  "data: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: {\"usage\":\"{\"}\n\n"
                  "data: {\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":\"3\"}}\n\ndata: [DONE]\n\n",
                  4096, 0);
    ck_assert_uint_eq(outcome.events, 7);
    ck_assert_uint_eq(outcome.flags, EVENT_TERMINAL);
    expect_usage(&outcome.usage, 5, 2, 0);

    /* Text that talks of usage is not usage; nor is a property of that name without its members. */
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: {\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":1}\"}\n\n"), 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: {\"a\":\"usage\",\"b\":{\"prompt_tokens\":1}}\n\n"), 0);
    outcome = run(DIALECT_CHAT,
                  "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4},\"x\":{\"usage\":{\"type\":1}}}\n\n",
                  4096, 0);
    expect_usage(&outcome.usage, 3, 4, 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: {\"usage\":{\"prompt_tokens\":99999999999999999999}}\n\n"), 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: \"usage\"\n\n"), 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: \"usage\":{\n\n"), 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: ggggg\"usage\"ggg\n\n"), 0);
    ck_assert_uint_eq(flags_of(DIALECT_CHAT, "data: {\"usage\":{\"prompt_tokens\":4\n\n"), EVENT_USAGE);
}
END_TEST

START_TEST(responses_usage)
{
    struct outcome outcome;

    outcome = run(DIALECT_RESPONSES,
                  "event: response.created\ndata: {\"response\":{\"usage\":{\"input_tokens\":1}}}\n\n"
                  "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":9,"
                  "\"response\":{\"tools\":[{\"usage\":{\"type\":\"object\"}}],\"usage\":{\"input_tokens\":37,"
                  "\"input_tokens_details\":{\"cached_tokens\":12},\"output_tokens\":11,"
                  "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":48},\"user\":null}}\n\n",
                  4096, 0);
    ck_assert_uint_eq(outcome.flags, EVENT_TERMINAL | EVENT_USAGE);
    expect_usage(&outcome.usage, 37, 11, 12);
    outcome = run(DIALECT_RESPONSES, "event: response.output_text.delta\ndata: {\"usage\":{\"input_tokens\":1}}\n\n",
                  4096, 0);
    ck_assert(!outcome.usage.known);
}
END_TEST

START_TEST(messages_usage)
{
    struct outcome outcome;

    outcome = run(DIALECT_MESSAGES,
                  "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":"
                  "{\"input_tokens\":25,\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":1000,"
                  "\"cache_creation\":{\"ephemeral_5m_input_tokens\":100},\"output_tokens\":1}}}\n\n",
                  4096, 0);
    ck_assert_uint_eq(outcome.flags, EVENT_USAGE);
    expect_usage(&outcome.usage, 1125, 1, 1000);

    outcome = run(DIALECT_MESSAGES,
                  "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,"
                  "\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":1000,\"output_tokens\":1}}}\n\n"
                  "event: message_delta\ndata: {\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n",
                  4096, 0);
    expect_usage(&outcome.usage, 1125, 15, 1000);

    outcome = run(DIALECT_MESSAGES,
                  "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,"
                  "\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":null,\"output_tokens\":1}}}\n\n"
                  "data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":30,\"cache_read_input_tokens\":5,"
                  "\"output_tokens\":16}}\n\nevent: content_block_delta\ndata: {\"usage\":{\"output_tokens\":99}}\n\n",
                  4096, 0);
    expect_usage(&outcome.usage, 135, 16, 5);
    ck_assert_uint_eq(outcome.flags, 0);
}
END_TEST

/* Events so large that the scanner cuts them: ending, error and usage are still seen. */
START_TEST(cut_events)
{
    char *text = malloc(200000), *fill = malloc(100001);
    struct outcome outcome;

    memset(fill, 'g', 100000);
    fill[100000] = '\0';
    sprintf(text,
            "event: response.completed\ndata: {\"response\":{\"output\":\"%s\","
            "\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n",
            fill);
    outcome = run(DIALECT_RESPONSES, text, 1000, 1024);
    ck_assert(outcome.cut);
    ck_assert_uint_eq(outcome.flags, EVENT_TERMINAL | EVENT_USAGE);
    expect_usage(&outcome.usage, 3, 4, 0);

    sprintf(text, "data: {\"type\":\"response.failed\",\"response\":\"%s\"}\n\n", fill);
    outcome = run(DIALECT_RESPONSES, text, 1000, 1024);
    ck_assert_uint_eq(outcome.flags, EVENT_TERMINAL | EVENT_ERROR);

    sprintf(text, "data: {\"error\":{\"message\":\"%s\"}}\n\n", fill);
    outcome = run(DIALECT_CHAT, text, 1000, 1024);
    ck_assert(outcome.cut);
    ck_assert_uint_eq(outcome.flags, EVENT_ERROR);

    sprintf(text, "data: {\"choices\":\"%s\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n", fill);
    outcome = run(DIALECT_CHAT, text, 1000, 1024);
    ck_assert_uint_eq(outcome.flags, EVENT_USAGE);
    expect_usage(&outcome.usage, 1, 2, 0);

    /* The end of something else is not the terminal event. */
    sprintf(text, "data: %s\n: %s\ndata: [DONE]\n\n", fill, fill + 50000);
    outcome = run(DIALECT_CHAT, text, 1000, 1024);
    ck_assert(outcome.cut);
    ck_assert_uint_eq(outcome.flags, 0);
    free(fill);
    free(text);
}
END_TEST

static struct usage json_usage(enum dialect_id id, struct span tail)
{
    struct usage usage = {0};

    dialect_json_usage(dialect_get(id), tail, &usage);
    return usage;
}

START_TEST(usage_of_json_answers)
{
    struct usage usage;

    usage = json_usage(DIALECT_CHAT, SPAN("lo \\\"usage\\\"\"}}], \"usage\": {\n  \"prompt_tokens\": 9,\n  "
                                          "\"completion_tokens\": 12,\n  \"prompt_tokens_details\": "
                                          "{ \"cached_tokens\": 2 }\n}, \"system_fingerprint\": null}\n"));
    expect_usage(&usage, 9, 12, 2);
    usage = json_usage(DIALECT_EMBEDDINGS, SPAN("0.1]}],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}"));
    expect_usage(&usage, 8, 0, 0);
    usage = json_usage(DIALECT_RESPONSES, SPAN("\"usage\":{\"input_tokens\":8,\"output_tokens\":9},\"metadata\":{}}"));
    expect_usage(&usage, 8, 9, 0);
    usage = json_usage(DIALECT_MESSAGES, SPAN("\"usage\":{\"input_tokens\":8,\"cache_read_input_tokens\":4,"
                                              "\"cache_creation_input_tokens\":2,\"output_tokens\":9}}"));
    expect_usage(&usage, 14, 9, 4);
    ck_assert(!json_usage(DIALECT_NONE, SPAN("\"usage\":{\"prompt_tokens\":8}}")).known);
    ck_assert(!json_usage(DIALECT_CHAT, SPAN("{\"usage\":null}")).known);
    ck_assert(!json_usage(DIALECT_CHAT, SPAN_NONE).known);

    /* Every prefix of an answer, in memory of just that size. */
    struct span text = SPAN("{\"a\":[{\"b\\\"\":\"c\"}],\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":1},"
                            "\"prompt_tokens\":[1,{}],\"completion_tokens\":2}}");
    for (size_t i = 0; i <= text.len; ++i) {
        char *exact = malloc(i + 1);
        memcpy(exact, text.base, i);
        struct sse_event event = {.data = {exact, i}, .has_data = true};
        json_usage(DIALECT_CHAT, (struct span){exact, i});
        for (int id = DIALECT_NONE; id <= DIALECT_EMBEDDINGS; ++id)
            dialect_event(dialect_get((enum dialect_id)id), &event, &usage);
        free(exact);
    }
}
END_TEST

static void expect_body(enum dialect_id id, const struct dialect_error *error, const char *expected)
{
    struct strbuf out;

    strbuf_init(&out, 65536);
    dialect_error_body(dialect_get(id), error, &out);
    ck_assert_str_eq(strbuf_cstr(&out), expected);
    strbuf_dispose(&out);
}

START_TEST(error_bodies)
{
    struct dialect_error error = {.status = 401,
                                  .code = "invalid_api_key",
                                  .message = "Incorrect API key \"x\"\n",
                                  .detail_json = "\"Invalid API key\"",
                                  .request_id = "req_1"};

    expect_body(DIALECT_CHAT, &error,
                "{\"error\":{\"message\":\"Incorrect API key \\\"x\\\"\\n\",\"type\":\"invalid_request_error\","
                "\"param\":null,\"code\":\"invalid_api_key\"},\"detail\":\"Invalid API key\"}");
    expect_body(DIALECT_MESSAGES, &error,
                "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\","
                "\"message\":\"Incorrect API key \\\"x\\\"\\n\"},\"request_id\":\"req_1\"}");
    error = (struct dialect_error){.status = 400, .type = "t", .param = "model", .message = "m"};
    expect_body(DIALECT_RESPONSES, &error,
                "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":\"model\",\"code\":null},\"detail\":\"m\"}");
    expect_body(DIALECT_NONE, &error,
                "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":\"model\",\"code\":null},\"detail\":\"m\"}");
    expect_body(DIALECT_MESSAGES, &error,
                "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"m\"},"
                "\"request_id\":null}");
    error = (struct dialect_error){.status = 500};
    expect_body(
        DIALECT_EMBEDDINGS, &error,
        "{\"error\":{\"message\":\"\",\"type\":\"server_error\",\"param\":null,\"code\":null},\"detail\":\"\"}");
}
END_TEST

START_TEST(error_types)
{
    static const struct {
        int status;
        const char *openai, *anthropic;
    } cases[] = {
        {400, "invalid_request_error", "invalid_request_error"},
        {401, "invalid_request_error", "authentication_error"},
        {402, "invalid_request_error", "billing_error"},
        {403, "permission_error", "permission_error"},
        {404, "invalid_request_error", "not_found_error"},
        {405, "invalid_request_error", "invalid_request_error"},
        {408, "timeout_error", "timeout_error"},
        {409, "invalid_request_error", "conflict_error"},
        {413, "invalid_request_error", "request_too_large"},
        {415, "invalid_request_error", "invalid_request_error"},
        {422, "invalid_request_error", "invalid_request_error"},
        {429, "rate_limit_error", "rate_limit_error"},
        {500, "server_error", "api_error"},
        {502, "server_error", "api_error"},
        {503, "service_unavailable_error", "overloaded_error"},
        {504, "timeout_error", "timeout_error"},
        {529, "service_unavailable_error", "overloaded_error"},
        {0, "server_error", "api_error"},
    };
    char expected[256];

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i) {
        struct dialect_error error = {.status = cases[i].status, .message = "m"};
        snprintf(expected, sizeof(expected),
                 "{\"error\":{\"message\":\"m\",\"type\":\"%s\",\"param\":null,\"code\":null},\"detail\":\"m\"}",
                 cases[i].openai);
        expect_body(DIALECT_CHAT, &error, expected);
        snprintf(expected, sizeof(expected),
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"m\"},\"request_id\":null}",
                 cases[i].anthropic);
        expect_body(DIALECT_MESSAGES, &error, expected);
    }
}
END_TEST

START_TEST(error_events_of_ours)
{
    static const struct {
        enum dialect_id id;
        const char *expected;
        unsigned flags;
    } cases[] = {
        {DIALECT_CHAT,
         "data: {\"error\":{\"message\":\"a\\nb\",\"type\":\"server_error\",\"param\":null,\"code\":\"c\"}}\n\n",
         EVENT_ERROR},
        {DIALECT_COMPLETIONS,
         "data: {\"error\":{\"message\":\"a\\nb\",\"type\":\"server_error\",\"param\":null,\"code\":\"c\"}}\n\n",
         EVENT_ERROR},
        {DIALECT_RESPONSES,
         "event: error\ndata: {\"type\":\"error\",\"code\":\"c\",\"message\":\"a\\nb\",\"param\":null,"
         "\"sequence_number\":42}\n\n",
         EVENT_ERROR | EVENT_TERMINAL},
        {DIALECT_MESSAGES,
         "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"a\\nb\"},"
         "\"request_id\":\"r\"}\n\n",
         EVENT_ERROR | EVENT_TERMINAL},
    };
    const struct dialect_error error = {
        .status = 502, .code = "c", .message = "a\nb", .detail_json = "\"d\"", .request_id = "r"};

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i) {
        struct strbuf out;
        strbuf_init(&out, 65536);
        dialect_error_event(dialect_get(cases[i].id), &error, 42, &out);
        ck_assert_str_eq(strbuf_cstr(&out), cases[i].expected);
        ck_assert_uint_eq(flags_of(cases[i].id, strbuf_cstr(&out)), cases[i].flags);
        strbuf_dispose(&out);
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("dialect");

    tcase_add_test(tcase, terminal_events);
    tcase_add_test(tcase, error_events);
    tcase_add_test(tcase, chat_usage);
    tcase_add_test(tcase, responses_usage);
    tcase_add_test(tcase, messages_usage);
    tcase_add_test(tcase, cut_events);
    tcase_add_test(tcase, usage_of_json_answers);
    tcase_add_test(tcase, error_bodies);
    tcase_add_test(tcase, error_types);
    tcase_add_test(tcase, error_events_of_ours);
    return run_suite("dialect", tcase);
}
