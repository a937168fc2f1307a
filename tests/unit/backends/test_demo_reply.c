#include "backends/demo_reply.h"
#include "run_suite.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char TEXT[] =
    "You said: hello there. This answer comes from weir's built-in demo model, one word at a time.";

static struct demo_settings manners;
static struct demo_request request;
static struct strbuf body;

static void setup(void)
{
    manners = (struct demo_settings){.tokens = 1000};
    request = (struct demo_request){.status = 0};
    strbuf_init(&body, 1 << 20);
}

static void teardown(void)
{
    demo_request_dispose(&request);
    strbuf_dispose(&body);
}

/* The whole answer. */
static const char *run_path(enum dialect_id dialect, bool stream, const char *path, const char *asked)
{
    /* the question comes as a spliced body does, in three parts that go away at once */
    size_t len = strlen(asked), third = len / 3;
    char *parts[3] = {strndup(asked, third), strndup(asked + third, third), strdup(asked + 2 * third)};
    struct exchange_request from = {
        .method = SPAN("POST"),
        .path = span_of(path),
        .body = {span_of(parts[0]), span_of(parts[1]), span_of(parts[2])},
        .has_body = true,
        .dialect = dialect,
        .wants_stream = stream,
        .model = SPAN("tiny"),
    };
    struct demo_reply reply;
    demo_request_dispose(&request);
    demo_request_read(&request, &manners, &from);
    for (int i = 0; i < 3; i++)
        free(parts[i]);
    demo_reply_init(&reply, &request);
    strbuf_reset(&body);
    while (demo_reply_next(&reply, &body))
        ;
    ck_assert(!body.overflow);
    return strbuf_cstr(&body);
}

static const char *run(enum dialect_id dialect, bool stream, const char *asked)
{
    return run_path(dialect, stream, "/v1/x", asked);
}

static json_t *run_json(enum dialect_id dialect, const char *asked)
{
    const char *text = run(dialect, false, asked);
    json_t *json = json_loads(text, JSON_ALLOW_NUL, NULL);
    ck_assert_msg(json != NULL, "not JSON: %s", text);
    return json;
}

/* The events of a streamed answer, in order. */
struct events {
    char *text;
    char *name[256];
    json_t *data[256]; /* NULL for [DONE] */
    size_t count;
};

static void run_events(struct events *events, enum dialect_id dialect, const char *asked)
{
    *events = (struct events){.text = strdup(run(dialect, true, asked))};
    for (char *at = events->text, *end; *at != '\0'; at = end + 2) {
        end = strstr(at, "\n\n");
        ck_assert_ptr_nonnull(end);
        *end = '\0';
        ck_assert_uint_lt(events->count, 256);
        events->name[events->count] = NULL;
        if (strncmp(at, "event: ", 7) == 0) {
            char *line = strchr(at, '\n');
            ck_assert_ptr_nonnull(line);
            *line = '\0';
            events->name[events->count] = at + 7;
            at = line + 1;
        }
        ck_assert_int_eq(strncmp(at, "data: ", 6), 0);
        ck_assert_ptr_null(strchr(at, '\n'));
        json_t *data = json_loads(at + 6, JSON_ALLOW_NUL, NULL);
        ck_assert_msg(data != NULL || strcmp(at, "data: [DONE]") == 0, "not JSON: %s", at);
        events->data[events->count++] = data;
    }
}

static void events_free(struct events *events)
{
    for (size_t i = 0; i < events->count; i++)
        json_decref(events->data[i]);
    free(events->text);
}

static const char *string_at(json_t *json, const char *path)
{
    char copy[128], *save = NULL;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *name = strtok_r(copy, ".", &save); name != NULL; name = strtok_r(NULL, ".", &save))
        json =
            name[0] >= '0' && name[0] <= '9' ? json_array_get(json, (size_t)atoi(name)) : json_object_get(json, name);
    return json_is_string(json) ? json_string_value(json) : NULL;
}

static json_int_t number_at(json_t *json, const char *outer, const char *inner)
{
    json_t *value = json_object_get(json_object_get(json, outer), inner);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

#define CHAT                                                                                                           \
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"                               \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello there\"}]}]%s}"

static const char *chat(const char *more)
{
    static char text[1024];
    snprintf(text, sizeof(text), CHAT, more);
    return text;
}

START_TEST(chat_plain)
{
    json_t *json = run_json(DIALECT_CHAT, chat(""));
    ck_assert_int_eq(request.status, 200);
    ck_assert_str_eq(string_at(json, "object"), "chat.completion");
    ck_assert_str_eq(string_at(json, "model"), "tiny");
    ck_assert_int_eq(strncmp(string_at(json, "id"), "chatcmpl-", 9), 0);
    ck_assert_str_eq(string_at(json, "choices.0.message.content"), TEXT);
    ck_assert_str_eq(string_at(json, "choices.0.finish_reason"), "stop");
    ck_assert_int_eq(number_at(json, "usage", "prompt_tokens"), 4);
    ck_assert_int_eq(number_at(json, "usage", "completion_tokens"), 17);
    ck_assert_int_eq(number_at(json, "usage", "total_tokens"), 21);
    json_decref(json);
}
END_TEST

static void check_chat_stream(bool usage)
{
    struct events events;
    run_events(&events, DIALECT_CHAT, chat(usage ? ",\"stream_options\":{\"include_usage\":true}" : ""));
    size_t last = events.count - 1, finish = last - 1 - usage;
    struct strbuf text;
    strbuf_init(&text, 4096);
    ck_assert_uint_eq(events.count, 1 + 17 + 1 + (size_t)usage + 1);
    ck_assert_ptr_null(events.data[last]);
    ck_assert_str_eq(string_at(events.data[0], "choices.0.delta.role"), "assistant");
    for (size_t i = 0; i < last; i++) {
        json_t *chunk = events.data[i];
        ck_assert_ptr_null(events.name[i]);
        ck_assert_str_eq(string_at(chunk, "object"), "chat.completion.chunk");
        ck_assert_str_eq(string_at(chunk, "id"), string_at(events.data[0], "id"));
        ck_assert_int_eq(json_integer_value(json_object_get(chunk, "created")), 1700000000);
        json_t *said = json_object_get(chunk, "usage");
        ck_assert(i == finish + 1 ? json_is_object(said) : usage ? json_is_null(said) : said == NULL);
        const char *reason = string_at(chunk, "choices.0.finish_reason");
        ck_assert(i == finish ? reason != NULL && strcmp(reason, "stop") == 0 : reason == NULL);
        const char *content = string_at(chunk, "choices.0.delta.content");
        ck_assert(i >= finish ? content == NULL : content != NULL);
        strbuf_puts(&text, content != NULL ? content : "");
    }
    ck_assert_str_eq(strbuf_cstr(&text), TEXT);
    if (usage) {
        ck_assert_uint_eq(json_array_size(json_object_get(events.data[last - 1], "choices")), 0);
        ck_assert_int_eq(number_at(events.data[last - 1], "usage", "completion_tokens"), 17);
    }
    strbuf_dispose(&text);
    events_free(&events);
}

START_TEST(chat_stream)
{
    check_chat_stream(false);
    check_chat_stream(true);
}
END_TEST

START_TEST(token_limits)
{
    static const char *const limits[] = {",\"max_tokens\":3", ",\"max_completion_tokens\":3,\"max_tokens\":9",
                                         ",\"max_tokens\":3.7,\"max_completion_tokens\":null"};
    for (size_t i = 0; i < 3; i++) {
        json_t *json = run_json(DIALECT_CHAT, chat(limits[i]));
        ck_assert_str_eq(string_at(json, "choices.0.message.content"), "You said: hello");
        ck_assert_str_eq(string_at(json, "choices.0.finish_reason"), "length");
        ck_assert_int_eq(number_at(json, "usage", "completion_tokens"), 3);
        json_decref(json);
    }
    json_t *json = run_json(DIALECT_CHAT, chat(",\"max_tokens\":17"));
    ck_assert_str_eq(string_at(json, "choices.0.finish_reason"), "stop");
    json_decref(json);
    json = run_json(DIALECT_RESPONSES, "{\"input\":\"hello\",\"max_output_tokens\":2}");
    ck_assert_str_eq(string_at(json, "output.0.content.0.text"), "You said:");
    ck_assert_str_eq(string_at(json, "status"), "incomplete");
    ck_assert_str_eq(string_at(json, "incomplete_details.reason"), "max_output_tokens");
    json_decref(json);
    json = run_json(DIALECT_MESSAGES, chat(",\"max_tokens\":1"));
    ck_assert_str_eq(string_at(json, "stop_reason"), "max_tokens");
    json_decref(json);
}
END_TEST

START_TEST(settings_limit)
{
    for (int stream = 0; stream < 2; stream++) {
        manners.tokens = 1;
        ck_assert_ptr_nonnull(strstr(run(DIALECT_CHAT, stream, chat("")), "\"length\""));
        ck_assert_uint_eq(request.tokens, 1);
        manners.tokens = 0;
        ck_assert_ptr_nonnull(strstr(run(DIALECT_COMPLETIONS, stream, "{\"prompt\":\"x\"}"), "\"length\""));
        ck_assert_uint_eq(request.tokens, 0);
    }
}
END_TEST

START_TEST(completions)
{
    json_t *json = run_json(DIALECT_COMPLETIONS, "{\"prompt\":[\"hello\",\"there\"]}");
    ck_assert_str_eq(string_at(json, "choices.0.text"), TEXT);
    ck_assert_int_eq(number_at(json, "usage", "prompt_tokens"), 2);
    json_decref(json);
    struct events events;
    run_events(&events, DIALECT_COMPLETIONS,
               "{\"prompt\":\"hello there\",\"stream_options\":{\"include_usage\":true}}");
    ck_assert_uint_eq(events.count, 17 + 3);
    ck_assert_str_eq(string_at(events.data[0], "choices.0.text"), "You");
    ck_assert_str_eq(string_at(events.data[1], "choices.0.text"), " said:");
    ck_assert_str_eq(string_at(events.data[17], "choices.0.finish_reason"), "stop");
    ck_assert_int_eq(number_at(events.data[18], "usage", "total_tokens"), 19);
    ck_assert_ptr_null(events.data[19]);
    events_free(&events);
}
END_TEST

START_TEST(responses)
{
    static const char asked[] = "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":"
                                "\"hello there\"}]}],\"instructions\":\"be brief\"}";
    static const char *const order[] = {"response.created", "response.in_progress", "response.output_item.added",
                                        "response.content_part.added"};
    static const char *const ending[] = {"response.output_text.done", "response.content_part.done",
                                         "response.output_item.done", "response.completed"};
    json_t *json = run_json(DIALECT_RESPONSES, asked);
    ck_assert_str_eq(string_at(json, "object"), "response");
    ck_assert_str_eq(string_at(json, "status"), "completed");
    ck_assert_str_eq(string_at(json, "output.0.content.0.text"), TEXT);
    ck_assert_int_eq(number_at(json, "usage", "input_tokens"), 4);
    struct events events;
    run_events(&events, DIALECT_RESPONSES, asked);
    ck_assert_uint_eq(events.count, 4 + 17 + 4);
    for (size_t i = 0; i < events.count; i++) {
        const char *name = i < 4 ? order[i] : i < 21 ? "response.output_text.delta" : ending[i - 21];
        ck_assert_str_eq(events.name[i], name);
        ck_assert_str_eq(string_at(events.data[i], "type"), name);
        ck_assert_uint_eq((size_t)json_integer_value(json_object_get(events.data[i], "sequence_number")), i);
    }
    /* the last event holds what the plain answer is */
    ck_assert(json_equal(json_object_get(events.data[24], "response"), json));
    ck_assert_str_eq(string_at(events.data[21], "text"), TEXT);
    events_free(&events);
    json_decref(json);
    run_events(&events, DIALECT_RESPONSES, "{\"input\":\"hello\",\"max_output_tokens\":1}");
    ck_assert_str_eq(events.name[events.count - 1], "response.incomplete");
    events_free(&events);
}
END_TEST

START_TEST(messages)
{
    json_t *json = run_json(DIALECT_MESSAGES, chat(",\"system\":\"one two\",\"max_tokens\":99"));
    ck_assert_str_eq(string_at(json, "type"), "message");
    ck_assert_str_eq(string_at(json, "content.0.text"), TEXT);
    ck_assert_str_eq(string_at(json, "stop_reason"), "end_turn");
    ck_assert_int_eq(number_at(json, "usage", "input_tokens"), 6);
    json_decref(json);
    struct events events;
    run_events(&events, DIALECT_MESSAGES, chat(""));
    ck_assert_uint_eq(events.count, 3 + 17 + 3);
    for (size_t i = 0; i < events.count; i++) {
        static const char *const first[] = {"message_start", "content_block_start", "ping"};
        static const char *const last[] = {"content_block_stop", "message_delta", "message_stop"};
        const char *name = i < 3 ? first[i] : i < 20 ? "content_block_delta" : last[i - 20];
        ck_assert_str_eq(events.name[i], name);
        ck_assert_str_eq(string_at(events.data[i], "type"), name);
    }
    ck_assert_str_eq(string_at(events.data[4], "delta.text"), " said:");
    ck_assert_str_eq(string_at(events.data[21], "delta.stop_reason"), "end_turn");
    ck_assert_int_eq(number_at(events.data[21], "usage", "output_tokens"), 17);
    events_free(&events);
}
END_TEST

START_TEST(count_tokens)
{
    const char *asked = "{\"messages\":[{\"role\":\"user\",\"content\":\"a b c\"}]}";
    ck_assert_str_eq(run_path(DIALECT_MESSAGES, false, "/v1/messages/count_tokens", asked), "{\"input_tokens\":3}");
}
END_TEST

START_TEST(embeddings)
{
    json_t *json = run_json(DIALECT_EMBEDDINGS, "{\"input\":[\"a b\",\"c\",\"a b\"]}");
    json_t *data = json_object_get(json, "data");
    ck_assert_uint_eq(json_array_size(data), 3);
    json_t *one = json_object_get(json_array_get(data, 0), "embedding");
    ck_assert_uint_eq(json_array_size(one), 8);
    ck_assert(json_equal(one, json_object_get(json_array_get(data, 2), "embedding")));
    ck_assert(!json_equal(one, json_object_get(json_array_get(data, 1), "embedding")));
    ck_assert_int_eq(number_at(json, "usage", "prompt_tokens"), 5);
    double sum = 0;
    float floats[8];
    for (size_t i = 0; i < 8; i++) {
        double value = json_number_value(json_array_get(one, i));
        floats[i] = (float)value;
        sum += value * value;
    }
    ck_assert(sum > 0.999 && sum < 1.001);
    /* base64 is the same numbers */
    json_t *coded = run_json(DIALECT_EMBEDDINGS, "{\"input\":\"a b\",\"encoding_format\":\"base64\"}");
    const char *text = string_at(coded, "data.0.embedding");
    ck_assert_uint_eq(strlen(text), 44);
    h2o_mem_pool_t pool;
    h2o_mem_init_pool(&pool);
    char url[45]; /* h2o knows the URL alphabet only, without padding */
    for (size_t i = 0; i < 45; i++)
        url[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    h2o_iovec_t bytes = h2o_decode_base64url(&pool, url, 43);
    ck_assert_uint_eq(bytes.len, 32);
    ck_assert_mem_eq(bytes.base, floats, 32);
    h2o_mem_clear_pool(&pool);
    json_decref(coded);
    json_decref(json);
    json = run_json(DIALECT_EMBEDDINGS, "{\"input\":[1,2,3],\"dimensions\":8}");
    ck_assert_uint_eq(json_array_size(json_object_get(json, "data")), 1);
    json_decref(json);
}
END_TEST

START_TEST(refused)
{
    static const struct {
        enum dialect_id dialect;
        const char *body, *param;
    } bad[] = {
        {DIALECT_CHAT, "", NULL},
        {DIALECT_CHAT, "{", NULL},
        {DIALECT_CHAT, "[]", NULL},
        {DIALECT_CHAT, "{\"messages\":[{\"content\":\"\\ud800\"}]}", NULL},
        {DIALECT_CHAT, "{\"messages\":[{\"content\":\"\xff\"}]}", NULL},
        {DIALECT_CHAT, "{}", "messages"},
        {DIALECT_CHAT, "{\"messages\":[]}", "messages"},
        {DIALECT_CHAT, "{\"messages\":[{}],\"max_tokens\":0}", "max_tokens"},
        {DIALECT_CHAT, "{\"messages\":[{}],\"max_tokens\":\"9\"}", "max_tokens"},
        {DIALECT_CHAT, "{\"messages\":[{}],\"n\":2}", "n"},
        {DIALECT_COMPLETIONS, "{}", "prompt"},
        {DIALECT_RESPONSES, "{\"input\":7}", "input"},
        {DIALECT_EMBEDDINGS, "{\"input\":[]}", "input"},
        {DIALECT_EMBEDDINGS, "{\"input\":\"x\",\"dimensions\":9}", "dimensions"},
        {DIALECT_EMBEDDINGS, "{\"input\":\"x\",\"encoding_format\":\"hex\"}", "encoding_format"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        json_t *json = json_loads(run(bad[i].dialect, true, bad[i].body), 0, NULL);
        ck_assert_int_eq(request.status, 400);
        const char *param = string_at(json, "error.param");
        ck_assert_msg(bad[i].param == NULL ? param == NULL : param != NULL && strcmp(param, bad[i].param) == 0,
                      "body %s", bad[i].body);
        json_decref(json);
    }
}
END_TEST

/* Odd but valid: answered, and the bytes stay JSON. */
START_TEST(odd_messages)
{
    static const char *const odd[] = {
        "{\"messages\":[{}]}",
        "{\"messages\":[1,null,\"x\",[[\"y\"]]]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u0000\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\" \\n \"}],\"seed\":123456789012345678901234567890}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\\"\\\\ \\ud83d\\ude00 \\u2028\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]}",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        json_t *json = run_json(DIALECT_CHAT, odd[i]);
        ck_assert_int_eq(request.status, 200);
        json_decref(json);
        struct events events;
        run_events(&events, DIALECT_RESPONSES, "{\"input\":\"\\\"\\\\ \\ud83d\\ude00 \\n\\u0000\\u2028\"}");
        events_free(&events);
    }
}
END_TEST

START_TEST(long_messages)
{
    /* cut inside a character; nothing may be left of it */
    size_t len = 3 * DEMO_ECHO_MAX;
    char *asked = malloc(len + 100);
    int at = snprintf(asked, 100, "{\"input\":\"a");
    for (size_t i = 0; i < len / 3; i++)
        at += sprintf(asked + at, "\xe2\x82\xac");
    sprintf(asked + at, "\"}");
    json_t *json = run_json(DIALECT_RESPONSES, asked);
    const char *text = string_at(json, "output.0.content.0.text");
    ck_assert_uint_le(strlen(text), DEMO_ECHO_MAX + 256);
    ck_assert_ptr_nonnull(strstr(text, "\xe2\x82\xac…"));
    ck_assert_ptr_null(strstr(text, "\xef\xbf\xbd"));
    json_decref(json);
    free(asked);

    /* beyond what is read at all */
    len = DEMO_BODY_MAX + 10;
    asked = malloc(len + 1);
    memset(asked, 'x', len);
    asked[len] = '\0';
    json = run_json(DIALECT_CHAT, asked);
    ck_assert_int_eq(request.status, 200);
    ck_assert_ptr_nonnull(strstr(string_at(json, "choices.0.message.content"), "more than the demo model reads"));
    json_decref(json);
    run(DIALECT_EMBEDDINGS, false, asked);
    ck_assert_int_eq(request.status, 413);
    free(asked);
}
END_TEST

START_TEST(deterministic)
{
    static const enum dialect_id dialects[] = {DIALECT_CHAT, DIALECT_MESSAGES};
    for (int i = 0; i < 4; i++) {
        char *first = strdup(run(dialects[i / 2], i % 2, chat("")));
        ck_assert_str_eq(run(dialects[i / 2], i % 2, chat("")), first);
        /* another body, another id */
        ck_assert_str_ne(run(dialects[i / 2], i % 2, chat(",\"user\":\"u\"")), first);
        free(first);
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("demo_reply");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, chat_plain);
    tcase_add_test(tcase, chat_stream);
    tcase_add_test(tcase, token_limits);
    tcase_add_test(tcase, settings_limit);
    tcase_add_test(tcase, completions);
    tcase_add_test(tcase, responses);
    tcase_add_test(tcase, messages);
    tcase_add_test(tcase, count_tokens);
    tcase_add_test(tcase, embeddings);
    tcase_add_test(tcase, refused);
    tcase_add_test(tcase, odd_messages);
    tcase_add_test(tcase, long_messages);
    tcase_add_test(tcase, deterministic);
    return run_suite("demo_reply", tcase);
}
