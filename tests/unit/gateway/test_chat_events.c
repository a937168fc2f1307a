#include "gateway/chat_events.h"
#include "stream/stream_reader.h"

#define DELTA(n, data) "event: delta\nid: s." n "\ndata: " data "\n\n"
#define DONE "event: done\nid: s.done\ndata: {\"usage\":null}\n\n"

static struct stream *output;

/* A backend's stream with a relay behind it and a reader behind that. */
static struct reader *relay_to(enum manner manner, size_t keep)
{
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true, .keep_bytes = keep});
    struct chat_events *events = chat_events_create(stream, SPAN("s"), &output);
    struct reader *reader = reader_create(manner);
    ck_assert(stream_subscribe(output, &reader->subscriber, 0));
    chat_events_run(events);
    return reader;
}

/* What becomes of a whole stream, in pieces of `step` bytes. */
static struct reader *relayed(const char *in, size_t step)
{
    struct reader *reader = relay_to(TAKE, 0);
    for (size_t i = 0, len = strlen(in); i < len; i += step)
        stream_append(stream, (struct span){in + i, len - i < step ? len - i : step});
    stream_end(stream);
    ck_assert(reader->over);
    return reader;
}

static void expect(const char *in, const char *out, enum stream_state state)
{
    for (size_t step = 1; step <= strlen(in); step += step < 20 ? 1 : strlen(in) - step > 0 ? strlen(in) - step : 1) {
        struct reader *reader = relayed(in, step);
        ck_assert_str_eq(strbuf_cstr(&reader->got), out);
        ck_assert_int_eq(reader->state, state);
        reader_free(reader);
    }
}

START_TEST(chunks_become_deltas_byte_for_byte)
{
    expect("data: {\"a\": 1}\n\ndata:{\"b\":2 }\n\ndata: [DONE]\n\n",
           DELTA("1", "{\"a\": 1}") DELTA("2", "{\"b\":2 }") DONE, STREAM_ENDED);
    expect("\xef\xbb\xbf: hi\r\n\r\ndata: x\r\n\r\n: ping\r\ndata: y\r\n\r\ndata: [DONE]\r\n\r\n",
           DELTA("1", "x") DELTA("2", "y") DONE, STREAM_ENDED);
    expect("id: 7\nevent: done\nretry: 5\ndata: x\n\nid: 8\n\ndata: [DONE]\n\n", DELTA("1", "x") DONE, STREAM_ENDED);
    expect("data\n\ndata: [DONE]\n\n", DELTA("1", "") DONE, STREAM_ENDED);
}
END_TEST

START_TEST(lines_of_data_keep_to_themselves)
{
    expect("data: a\nid: 1\nevent: done\ndata: b\ndata\ndata:c\n: x\ndata:  d\n\ndata: [DONE]\n\n",
           DELTA("1", "a\ndata: b\ndata: \ndata: c\ndata:  d") DONE, STREAM_ENDED);
    expect("data: a\rid: 1\rdata: b\r\rdata: [DONE]\n\n", DELTA("1", "a\ndata: b") DONE, STREAM_ENDED);
    expect("data: a\r\ndata: b\r\n\r\ndata: [DONE]\n\n", DELTA("1", "a\ndata: b") DONE, STREAM_ENDED);
}
END_TEST

#define USAGE "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":3}}"
#define TOLD                                                                                                           \
    "event: done\nid: s.done\ndata: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12,"      \
    "\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\n"

START_TEST(usage_is_told_at_the_end)
{
    expect("data: {\"choices\":[]," USAGE "}\n\ndata: [DONE]\n\n", TOLD, STREAM_ENDED);
    expect("data: {" USAGE ",\"choices\" : [ ] }\n\ndata: [DONE]\n\n", TOLD, STREAM_ENDED);
    expect("data: {\"choices\":[1]," USAGE "}\n\ndata: [DONE]\n\n", DELTA("1", "{\"choices\":[1]," USAGE "}") TOLD,
           STREAM_ENDED);
    expect("data: {" USAGE "}\n\ndata: [DONE]\n\n", DELTA("1", "{" USAGE "}") TOLD, STREAM_ENDED);
    expect("data: {\"choices\":[],\"usage\":null}\n\ndata: [DONE]\n\n",
           DELTA("1", "{\"choices\":[],\"usage\":null}") DONE, STREAM_ENDED);
    struct reader *reader = relayed("data: {\"choices\":[]," USAGE "}\n\ndata: [DONE]\n\n", 10);
    reader_free(reader);
}
END_TEST

START_TEST(errors_are_told_once_and_last)
{
    expect("data: x\n\ndata: {\"error\":{\"message\":\"m\"}}\n\ndata: y\n\ndata: [DONE]\n\n",
           DELTA("1", "x") "event: error\nid: s.error\ndata: {\"error\":{\"message\":\"m\"}}\n\n", STREAM_ENDED);
    expect("event: error\ndata: {\"message\":\"m\"}\n\n", "event: error\nid: s.error\ndata: {\"message\":\"m\"}\n\n",
           STREAM_BROKEN);
}
END_TEST

START_TEST(what_is_cut_off_is_broken)
{
    expect("data: x\n\n", DELTA("1", "x"), STREAM_BROKEN);
    expect("data: x\n\ndata: half", DELTA("1", "x"), STREAM_BROKEN);
    expect("data: x\n\ndata: [DONE]\n", DELTA("1", "x"), STREAM_BROKEN);
    struct reader *reader = relay_to(TAKE, 0);
    text("data: x\n\ndata: ha");
    stream_break(stream, STREAM_RESET, "gone");
    ck_assert(reader->over && reader->state == STREAM_BROKEN && reader->failure == STREAM_RESET);
    expect_got(reader, DELTA("1", "x"));
    reader_free(reader);
}
END_TEST

START_TEST(facts_are_those_of_the_events)
{
    struct reader *reader = relay_to(TAKE, 0);
    text("data: x\n\n: ping\n\ndata: half");
    const struct stream_facts *facts = stream_facts(output);
    ck_assert(facts->events == 1 && !facts->terminal && stream_ends_at_boundary(output));
    text("\n\ndata: {\"choices\":[]," USAGE "}\n\n");
    ck_assert(facts->events == 2 && !facts->usage.known);
    text("data: [DONE]\n\n");
    ck_assert(facts->events == 3 && facts->terminal && !facts->error_event);
    ck_assert(facts->usage.known && facts->usage.prompt == 7 && facts->usage.completion == 5 &&
              facts->usage.cached == 3);
    ck_assert(!reader->over); /* the backend may have more to say of its body's end */
    stream_end(stream);
    ck_assert(reader->over);
    reader_free(reader);
}
END_TEST

START_TEST(a_reader_that_holds_pauses_the_backend)
{
    char event[1000];
    memset(event, 'x', sizeof(event));
    memcpy(event, "data: ", 6);
    memcpy(event + sizeof(event) - 2, "\n\n", 2);
    struct reader *reader = relay_to(HOLD, 0);
    size_t sent = 0;
    while (stream_append(stream, (struct span){event, sizeof(event)}) == STREAM_GO_ON)
        ck_assert_uint_lt(++sent, 300);
    ck_assert_uint_gt(sent, 100); /* both streams fill up */
    ck_assert_uint_lt(stream_unread(&reader->subscriber), 100000);
    ck_assert_uint_eq(resumes, 0);
    reader->manner = TAKE;
    stream_ready(&reader->subscriber);
    ck_assert_uint_eq(resumes, 1);
    ck_assert_uint_eq(stream_facts(output)->events, sent + 1);
    ck_assert_uint_eq(stream_unread(&reader->subscriber), 0);
    text("data: [DONE]\n\n");
    stream_end(stream);
    ck_assert(reader->over && reader->state == STREAM_ENDED);
    reader_free(reader);
}
END_TEST

START_TEST(an_end_waits_for_a_paused_reader)
{
    struct reader *reader = relay_to(HOLD, 0);
    for (size_t i = 0; i < 150; i++) {
        char event[1000];
        memset(event, 'x', sizeof(event));
        memcpy(event, "data: ", 6);
        memcpy(event + sizeof(event) - 2, "\n\n", 2);
        stream_append(stream, (struct span){event, sizeof(event)});
    }
    stream_break(stream, STREAM_TIMEOUT_IDLE, "slow");
    ck_assert(stream_state(output) == STREAM_OPEN);
    reader->manner = TAKE;
    stream_ready(&reader->subscriber);
    ck_assert(reader->over && reader->failure == STREAM_TIMEOUT_IDLE);
    reader_free(reader);
}
END_TEST

START_TEST(a_reader_that_leaves_cancels_the_backend)
{
    struct reader *reader = relay_to(TAKE, 0);
    text("data: x\n\n");
    stream_unsubscribe(&reader->subscriber);
    ck_assert_uint_eq(cancels, 1);
    reader_free(reader);

    reader = relay_to(TAKE, 0); /* as http_stream does while something is in flight */
    text("data: x\n\n");
    stream_stop_reading(&reader->subscriber);
    ck_assert_uint_eq(cancels, 2);
    reader_free(reader);

    reader = relay_to(LEAVE, 0); /* from within */
    ck_assert_int_eq(text("data: x\n\n"), STREAM_UNWANTED);
    stream_break(stream, STREAM_CANCELLED, NULL);
    ck_assert_uint_eq(cancels, 2);
    reader_free(reader);

    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true}); /* nobody came */
    chat_events_run(chat_events_create(stream, SPAN("s"), &output));
    ck_assert_uint_eq(cancels, 3);
}
END_TEST

START_TEST(a_stored_stream_is_relayed_too)
{
    static const char body[] = "data: x\n\ndata: {\"choices\":[]," USAGE "}\n\ndata: [DONE]\n\n";
    char *memory = malloc(sizeof(body) - 1);
    memcpy(memory, body, sizeof(body) - 1);
    struct chunk *chunk = chunk_adopt(memory, sizeof(body) - 1, sizeof(body) - 1);
    struct stream_facts facts = {.events = 3, .terminal = true};
    struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT), .sse = true};
    struct stream *ended = stream_create_ended(&settings, &facts, &chunk, 1);
    struct chat_events *events = chat_events_create(ended, SPAN("s"), &output);
    struct reader *reader = reader_create(TAKE);
    ck_assert(stream_subscribe(output, &reader->subscriber, 0));
    chat_events_run(events);
    stream_release(ended);
    ck_assert(reader->over && reader->state == STREAM_ENDED);
    expect_got(reader, DELTA("1", "x") TOLD);
    reader_free(reader);
    chunk_release(chunk);
}
END_TEST

START_TEST(events_are_bounded)
{
    for (int over = 0; over < 2; over++) {
        size_t len = over ? CHAT_EVENT_MAX + 10 : CHAT_EVENT_MAX - 10000, sent = 0;
        char *piece = malloc(10000);
        memset(piece, 'x', 10000);
        struct reader *reader = relay_to(TAKE, 0);
        enum stream_demand demand = text("data: ");
        for (; sent < len && demand == STREAM_GO_ON; sent += 10000)
            demand = stream_append(stream, (struct span){piece, 10000});
        if (demand == STREAM_GO_ON)
            demand = text("\n\n");
        ck_assert_int_eq(demand, over ? STREAM_UNWANTED : STREAM_GO_ON);
        ck_assert(reader->over == (over != 0) && (!over || reader->failure == STREAM_OVERFLOW));
        ck_assert(over || reader->got.len > len);
        stream_break(stream, STREAM_CANCELLED, NULL);
        reader_free(reader);
        free(piece);
    }
}
END_TEST

START_TEST(a_long_stream_identifier_fits)
{
    char id[400];
    memset(id, 'i', sizeof(id));
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true});
    struct chat_events *events = chat_events_create(stream, (struct span){id, sizeof(id)}, &output);
    struct reader *reader = reader_create(TAKE);
    ck_assert(stream_subscribe(output, &reader->subscriber, 0));
    chat_events_run(events);
    text("data: [DONE]\n\n");
    stream_end(stream);
    ck_assert_uint_eq(reader->got.len, strlen("event: done\nid: .done\ndata: {\"usage\":null}\n\n") + 160);
    reader_free(reader);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("chat_events");
    tcase_add_test(tests, chunks_become_deltas_byte_for_byte);
    tcase_add_test(tests, lines_of_data_keep_to_themselves);
    tcase_add_test(tests, usage_is_told_at_the_end);
    tcase_add_test(tests, errors_are_told_once_and_last);
    tcase_add_test(tests, what_is_cut_off_is_broken);
    tcase_add_test(tests, facts_are_those_of_the_events);
    tcase_add_test(tests, a_reader_that_holds_pauses_the_backend);
    tcase_add_test(tests, an_end_waits_for_a_paused_reader);
    tcase_add_test(tests, a_reader_that_leaves_cancels_the_backend);
    tcase_add_test(tests, a_stored_stream_is_relayed_too);
    tcase_add_test(tests, events_are_bounded);
    tcase_add_test(tests, a_long_stream_identifier_fits);
    return run_tests("chat_events", tests);
}
