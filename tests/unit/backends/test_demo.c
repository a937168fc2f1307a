#include "backends/demo_reply.h"
#include "backends/exchange_kind.h"
#include "base/clock.h"
#include "run_suite.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* What a reader of an exchange saw. */
struct reader {
    struct stream_subscriber subscriber;
    struct strbuf body;
    struct exchange_head head;
    char content_type[64];
    unsigned heads, calls;
    unsigned leave_after; /* unsubscribe in this call of on_data; 0: never */
    bool refuse;          /* do not subscribe at all */
    bool leave_in_head;
    bool lazy; /* take nothing */
    bool over;
    enum stream_state state;
    struct usage usage;
};

static void on_data(struct stream_subscriber *subscriber)
{
    struct reader *reader = H2O_STRUCT_FROM_MEMBER(struct reader, subscriber, subscriber);
    struct stream *stream = subscriber->_stream;
    reader->calls++;
    if (reader->calls == reader->leave_after) {
        reader->over = true;
        stream_unsubscribe(subscriber);
        return;
    }
    struct slice slice;
    while (!reader->lazy && stream_peek(subscriber, &slice, 1) != 0) {
        strbuf_add(&reader->body, slice.bytes);
        stream_consume(subscriber, slice.bytes.len);
    }
    if (stream_state(stream) != STREAM_OPEN) {
        reader->over = true;
        reader->state = stream_state(stream);
        reader->usage = stream_facts(stream)->usage;
        stream_unsubscribe(subscriber);
    } else if (reader->lazy) {
        stream_wait(subscriber);
    } else {
        stream_ready(subscriber);
    }
}

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream)
{
    struct reader *reader = ctx;
    reader->heads++;
    reader->head = *head;
    ck_assert_uint_ge(head->header_count, 1);
    snprintf(reader->content_type, sizeof(reader->content_type), "%.*s", (int)head->headers[0].value.len,
             head->headers[0].value.base);
    if (reader->refuse)
        return;
    reader->subscriber.on_data = on_data;
    ck_assert(stream_subscribe(stream, &reader->subscriber, 0));
    if (reader->leave_in_head)
        stream_unsubscribe(&reader->subscriber);
}

static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent)
{
    (void)ctx;
    (void)why;
    (void)sent;
    ck_abort_msg("the demo model never fails: %s", message);
}

static const struct exchange_callbacks callbacks = {.on_head = on_head, .on_fail = on_fail};
static struct deadlines deadlines;
static struct backend_settings settings;
static struct reader reader;

static void setup(void)
{
    deadlines_init(&deadlines);
    settings = (struct backend_settings){.demo = {.tokens = 1000}};
    reader = (struct reader){0};
    strbuf_init(&reader.body, 1 << 20);
}

static void teardown(void)
{
    strbuf_dispose(&reader.body);
    deadlines_dispose(&deadlines);
}

static void reset(void)
{
    teardown();
    setup();
}

static struct exchange *start(enum dialect_id dialect, bool stream, const char *body)
{
    /* as a spliced body comes: in three parts */
    size_t len = strlen(body), third = len / 3;
    struct exchange_request request = {
        .method = SPAN("POST"),
        .path = SPAN("/v1/x"),
        .body = {{body, third}, {body + third, third}, {body + 2 * third, len - 2 * third}},
        .has_body = true,
        .dialect = dialect,
        .wants_stream = stream,
        .model = SPAN("tiny"),
    };
    return demo_start(&settings, &deadlines, &request, &callbacks, &reader);
}

/* Runs what is due; false if nothing is armed any more. */
static bool step(void)
{
    if (deadlines_wait_ms(&deadlines, clock_us(), 1 << 20) == 1 << 20)
        return false;
    deadlines_run(&deadlines, clock_us());
    return true;
}

static const char *run(enum dialect_id dialect, bool stream, const char *body)
{
    reset();
    start(dialect, stream, body);
    ck_assert_uint_eq(reader.heads, 0);
    while (step())
        ;
    ck_assert_uint_eq(reader.heads, 1);
    ck_assert(reader.over);
    ck_assert_int_eq(reader.state, STREAM_ENDED);
    return strbuf_cstr(&reader.body);
}

#define CHAT                                                                                                           \
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"                               \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello there\"}]}]%s}"

static const char *chat(const char *more)
{
    static char body[1024];
    snprintf(body, sizeof(body), CHAT, more);
    return body;
}

/* Head, body and usage of the four kinds of exchange. */
START_TEST(whole)
{
    static const struct {
        enum dialect_id dialect;
        bool stream;
        const char *body, *type, *has;
        int status;
    } cases[] = {
        {DIALECT_CHAT, true, NULL, "text/event-stream; charset=utf-8", "data: [DONE]", 200},
        {DIALECT_CHAT, false, NULL, "application/json", "\"total_tokens\":21", 200},
        {DIALECT_MESSAGES, true, NULL, "text/event-stream; charset=utf-8", "event: message_stop", 200},
        {DIALECT_EMBEDDINGS, false, "{\"input\":\"x\"}", "application/json", "\"embedding\"", 200},
        {DIALECT_CHAT, true, "{", "application/json", "\"error\"", 400},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *asked =
            cases[i].body != NULL ? cases[i].body : chat(",\"stream_options\":{\"include_usage\":true}");
        const char *text = run(cases[i].dialect, cases[i].stream, asked);
        bool sse = cases[i].stream && cases[i].status == 200;
        ck_assert_int_eq(reader.head.status, cases[i].status);
        ck_assert_int_eq(reader.head.sse, sse);
        ck_assert_str_eq(reader.content_type, cases[i].type);
        ck_assert_ptr_nonnull(strstr(text, cases[i].has));
        ck_assert_uint_eq(reader.head.content_length, sse ? UINT64_MAX : strlen(text));
        ck_assert_uint_eq(reader.calls, sse ? 18 : 2);
        if (cases[i].dialect != DIALECT_EMBEDDINGS && cases[i].status == 200) {
            ck_assert(reader.usage.known);
            ck_assert_uint_eq(reader.usage.prompt, 4);
            ck_assert_uint_eq(reader.usage.completion, 17);
        }
    }
}
END_TEST

static int get(const char *method, const char *path)
{
    reset();
    struct exchange_request request = {.method = span_of(method), .path = span_of(path)};
    demo_start(&settings, &deadlines, &request, &callbacks, &reader);
    while (step())
        ;
    json_t *json = json_loads(strbuf_cstr(&reader.body), 0, NULL);
    ck_assert_ptr_nonnull(json);
    ck_assert((json_object_get(json, "error") != NULL) == (reader.head.status != 200));
    json_decref(json);
    return reader.head.status;
}

START_TEST(models)
{
    ck_assert_int_eq(get("GET", "/v1/models"), 200);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&reader.body), "\"id\":\"demo\""));
    ck_assert_int_eq(get("GET", "/models"), 200);
    ck_assert_int_eq(get("GET", "/v1/models/demo"), 200);
    ck_assert_int_eq(get("GET", "/v1/models/other"), 404);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&reader.body), "model_not_found"));
    ck_assert_int_eq(get("POST", "/v1/models"), 404);
    ck_assert_int_eq(get("GET", "/v1/modelsx"), 404);
    ck_assert_int_eq(get("GET", "/v1/files"), 404);
    ck_assert_int_eq(get("GET", ""), 404);
}
END_TEST

/* The head comes when the first token is due, and the tokens one by one. */
START_TEST(pacing)
{
    settings.demo.delay_us = 20000;
    settings.demo.pace_us = 2000;
    uint64_t begin = clock_us(), head_us = 0;
    start(DIALECT_CHAT, true, chat(",\"max_tokens\":5"));
    while (!reader.over) {
        deadlines_run(&deadlines, clock_us());
        if (head_us == 0 && reader.heads != 0) {
            head_us = clock_us() - begin;
            ck_assert_uint_eq(reader.calls, 1);
        }
    }
    ck_assert_uint_ge(head_us, 20000);
    ck_assert_uint_ge(clock_us() - begin, 20000 + 4 * 2000);
    ck_assert_uint_eq(reader.calls, 6); /* five tokens and the end */
}
END_TEST

START_TEST(cancel_before_head)
{
    settings.demo.delay_us = 1000000000;
    struct exchange *exchange = start(DIALECT_CHAT, true, chat(""));
    deadlines_run(&deadlines, clock_us());
    ck_assert_uint_eq(reader.heads, 0);
    exchange->cancel(exchange);
    ck_assert(!step());
}
END_TEST

START_TEST(cancel_in_head)
{
    for (int kind = 0; kind < 4; kind++) {
        reset();
        reader.refuse = kind / 2 == 0;
        reader.leave_in_head = kind / 2 == 1;
        start(DIALECT_CHAT, kind % 2, chat(""));
        while (step())
            ;
        ck_assert_uint_eq(reader.heads, 1);
        ck_assert_uint_eq(reader.calls, 0);
    }
}
END_TEST

/* Leaving from within on_data, at every token. */
START_TEST(cancel_in_data)
{
    for (unsigned i = 1; i <= 19; i++) {
        reset();
        reader.leave_after = i;
        start(DIALECT_CHAT, true, chat(""));
        unsigned steps = 0;
        while (step())
            steps++;
        ck_assert_uint_eq(steps, i < 17 ? i : 17);
        ck_assert(reader.over);
    }
}
END_TEST

/* Leaving between two tokens, at every step. */
START_TEST(cancel_between)
{
    for (unsigned i = 1; i < 17; i++) {
        reset();
        start(DIALECT_MESSAGES, true, chat(""));
        for (unsigned k = 0; k < i; k++)
            ck_assert(step());
        ck_assert(!reader.over);
        stream_unsubscribe(&reader.subscriber);
        ck_assert(!step());
        ck_assert_uint_eq(reader.calls, i);
    }
}
END_TEST

/* A reader that takes nothing stops the model; one that takes it all gets the rest. */
START_TEST(back_pressure)
{
    char *body = malloc(20000);
    int at = sprintf(body, "{\"prompt\":\"");
    for (int i = 0; i < 4000; i++)
        at += sprintf(body + at, "w ");
    sprintf(body + at, "\"}");
    settings.demo.tokens = 100000;
    reader.lazy = true;
    start(DIALECT_COMPLETIONS, true, body);
    while (step())
        ;
    ck_assert(!reader.over);
    uint64_t unread = stream_unread(&reader.subscriber);
    ck_assert_uint_ge(unread, 65536);
    ck_assert_uint_le(unread, 65536 + 4096);
    reader.lazy = false;
    stream_ready(&reader.subscriber);
    while (!reader.over)
        ck_assert(step());
    ck_assert_int_eq(reader.state, STREAM_ENDED);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&reader.body), "[DONE]"));

    /* and one that leaves while the model waits */
    reset();
    settings.demo.tokens = 100000;
    reader.lazy = true;
    start(DIALECT_COMPLETIONS, true, body);
    while (step())
        ;
    stream_unsubscribe(&reader.subscriber);
    ck_assert(!step());
    free(body);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("demo");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, whole);
    tcase_add_test(tcase, models);
    tcase_add_test(tcase, pacing);
    tcase_add_test(tcase, cancel_before_head);
    tcase_add_test(tcase, cancel_in_head);
    tcase_add_test(tcase, cancel_in_data);
    tcase_add_test(tcase, cancel_between);
    tcase_add_test(tcase, back_pressure);
    return run_suite("demo", tcase);
}
