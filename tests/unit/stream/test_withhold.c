#include "stream/stream_reader.h"
#include "stream/withhold.h"

#define USAGE "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7,\"total_tokens\":10}"
#define EXTRA "data: {\"id\":\"c\",\"choices\":[]," USAGE "}"

/* What a backend sends and what a reader gets of it. */
struct scenario {
    const char *sent, *got;
    unsigned events; /* that the reader gets */
};

static const struct scenario scenarios[] = {
    {"data: {\"choices\":[{}],\"usage\":null}\n\n" EXTRA "\n\ndata: [DONE]\n\n",
     "data: {\"choices\":[{}],\"usage\":null}\n\ndata: [DONE]\n\n", 2},
    {"data: a\r\n\r\n" EXTRA "\r\n\r\ndata: [DONE]\r\n\r\n", "data: a\r\n\r\ndata: [DONE]\r\n\r\n", 2},
    {"data: a\r\r" EXTRA "\r\rdata: [DONE]\r\r", "data: a\r\rdata: [DONE]\r\r", 2},
    {EXTRA "\n\ndata: [DONE]\n\n", "data: [DONE]\n\n", 1},
    {"\xEF\xBB\xBF" EXTRA "\n\ndata: [DONE]\n\n",
     "\xEF\xBB\xBF"
     "data: [DONE]\n\n",
     1},
    {"\xEF\xBB\n" EXTRA "\n\ndata: [DONE]\n\n", "data: [DONE]\n\n", 1},
    {EXTRA "\n\n" EXTRA "\r\n\r\n" EXTRA "\n\n: c\n\n" EXTRA "\n\ndata: a\n\n" EXTRA "\n\ndata: [DONE]\n\n",
     ": c\n\ndata: a\n\ndata: [DONE]\n\n", 2},
    {": before\n" EXTRA "\n: within\nid: 1\n\n: behind\n\n\ndata: [DONE]\n\n",
     ": before\n: behind\n\n\ndata: [DONE]\n\n", 1},
    {"data: [DONE]\n\n" EXTRA "\n\n", "data: [DONE]\n\n", 1},
    {"data: {\"choices\" : [ ] , " USAGE "}\n\ndata: {" USAGE ",\"choices\":[]}\n\ndata: [DONE]\n\n",
     "data: [DONE]\n\n", 1},
    /* These are none of it. */
    {"data: {\"choices\":[]}\n\ndata: {" USAGE "}\n\ndata: {\"choices\":[{\"index\":0}]," USAGE "}\n\n"
     "data: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{}}\n\ndata: {\"choices\":{}," USAGE
     "}\n\n"
     "event: x\n\n: c\n\ndata: {\"x\":{\"choices\":[]}," USAGE "}\n\ndata: {\"choices\":[\n\ndata: [DONE]\n\n",
     NULL, 9},
    {"data: {\"choices\":null," USAGE "}\n\ndata: [DONE]\n\n", NULL, 2},
};

static void begin_hiding(void)
{
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true, .hide_usage = true});
}

/* Appends through a buffer or from elsewhere. */
static void append(struct span piece, bool by_buffer)
{
    if (by_buffer) {
        memcpy(h2o_buffer_reserve(&input, piece.len).base, piece.base, piece.len);
        input->size += piece.len;
        ck_assert_int_eq(stream_append_buffer(stream, &input), STREAM_GO_ON);
        ck_assert_uint_eq(input->size, 0);
    } else {
        ck_assert_int_eq(stream_append(stream, piece), STREAM_GO_ON);
    }
}

/* Sends a scenario in pieces that end at the two places and, with `step`, every so many bytes besides. */
static void play(const struct scenario *scenario, size_t first, size_t second, size_t step, bool by_buffer)
{
    const char *wanted = scenario->got != NULL ? scenario->got : scenario->sent;
    size_t len = strlen(scenario->sent);
    begin_hiding();
    struct reader *reader = join(TAKE), *watcher = reader_create(TAKE);
    watcher->subscriber.passive = true;
    ck_assert(stream_subscribe(stream, &watcher->subscriber, 0));
    for (size_t at = 0, end; at < len; at = end) {
        end = at < first ? first : at < second ? second : len;
        if (end > len)
            end = len;
        if (step != 0 && end > at + step)
            end = at + step;
        append((struct span){scenario->sent + at, end - at}, by_buffer);
        ck_assert_uint_eq(stream_facts(stream)->bytes, reader->got.len);
        ck_assert_msg(strncmp(strbuf_cstr(&reader->got), wanted, reader->got.len) == 0, "%s",
                      strbuf_cstr(&reader->got));
        ck_assert(stream_facts(stream)->events != 0 || stream_facts(stream)->first_event_us == 0);
    }
    const struct stream_facts *facts = stream_facts(stream);
    ck_assert_msg(facts->events == scenario->events, "%u events of %s", (unsigned)facts->events, scenario->sent);
    ck_assert(facts->usage.known && facts->usage.prompt == 3 && facts->usage.completion == 7 && facts->terminal);
    ck_assert(stream_ends_at_boundary(stream) || scenario->sent[len - 1] == '\r');
    stream_end(stream);
    ck_assert(reader->over && reader->state == STREAM_ENDED);
    expect_got(reader, wanted);
    expect_got(watcher, wanted);
    reader_free(reader);
    reader_free(watcher);
}

START_TEST(the_extra_event_is_kept_back_wherever_it_is_split)
{
    for (size_t i = 0; i < COUNT(scenarios); i++) {
        size_t len = strlen(scenarios[i].sent);
        for (int by_buffer = 0; by_buffer <= 1; by_buffer++) {
            for (size_t step = 0; step <= 5; step++)
                play(&scenarios[i], len, len, step, by_buffer);
            for (size_t first = 1; first <= len; first++)
                play(&scenarios[i], first, first + 1 + first % 7, 0, by_buffer);
        }
    }
}
END_TEST

START_TEST(two_cuts_anywhere)
{
    const struct scenario *crlf = &scenarios[1];
    size_t len = strlen(crlf->sent);
    for (size_t first = 1; first < len; first++)
        for (size_t second = first + 1; second <= len; second++)
            play(crlf, first, second, 0, true);
}
END_TEST

START_TEST(whole_events_are_not_copied)
{
    const char *base;
    begin_hiding();
    struct reader *reader = join(TAKE);
    buffer_at("data: a\n\ndata: b\n\n", &base);
    ck_assert_ptr_eq(reader->base, base);
    buffer_at("data: c\n\n" EXTRA "\n\ndata: [DONE]\n\n", &base);
    ck_assert_ptr_eq(reader->base, base);
    expect_got(reader, "data: a\n\ndata: b\n\ndata: c\n\ndata: [DONE]\n\n");
    unsigned calls = reader->calls;
    buffer(EXTRA "\n\n");
    ck_assert_uint_eq(reader->calls, calls); /* there is nothing to hear of */
    stream_end(stream);
    reader_free(reader);
}
END_TEST

START_TEST(what_came_in_part_waits_until_it_is_whole)
{
    begin_hiding();
    struct reader *reader = join(TAKE);
    buffer("data: a\n\ndata: {\"choi");
    expect_got(reader, "data: a\n\n");
    ck_assert(stream_ends_at_boundary(stream) && stream_at_boundary(&reader->subscriber)); /* a ping may go here */
    buffer("ces\"");
    text(":[1]}\n");
    expect_got(reader, "data: a\n\n");
    buffer("\ndata: b\n\nda");
    expect_got(reader, "data: a\n\ndata: {\"choices\":[1]}\n\ndata: b\n\n");
    stream_break(stream, STREAM_RESET, NULL); /* what came of it came */
    expect_got(reader, "data: a\n\ndata: {\"choices\":[1]}\n\ndata: b\n\nda");
    ck_assert(reader->over && reader->state == STREAM_BROKEN);
    reader_free(reader);

    begin_hiding();
    reader = join(TAKE);
    buffer("data: [DONE]\n");
    expect_got(reader, "");
    stream_end(stream);
    expect_got(reader, "data: [DONE]\n");
    ck_assert_int_eq(reader->failure, STREAM_UNTERMINATED);
    reader_free(reader);
}
END_TEST

START_TEST(a_large_event_waits_no_longer_than_the_maximum)
{
    static const size_t steps[] = {1, 100, 4096, WITHHOLD_MAX - 6, WITHHOLD_MAX, WITHHOLD_MAX + 1, 100000};
    for (size_t i = 0; i < COUNT(steps); i++) {
        begin_hiding();
        struct reader *reader = join(TAKE);
        char *piece = malloc(steps[i]);
        memset(piece, 'x', steps[i]);
        buffer("data: a\n\ndata: ");
        size_t sent = 6;
        for (; sent <= 3 * WITHHOLD_MAX; sent += steps[i]) {
            append((struct span){piece, steps[i]}, true);
            size_t all = sent + steps[i];
            /* Everything from then on comes as it came. */
            ck_assert_uint_eq(reader->got.len, 9 + (all <= WITHHOLD_MAX ? 0 : all));
        }
        buffer("\n\n" EXTRA "\n\nda");
        ck_assert_uint_eq(reader->got.len, 9 + sent + 2);
        buffer("ta: [DONE]\n\n");
        ck_assert_uint_eq(reader->got.len, 9 + sent + 2 + 14);
        ck_assert_uint_eq(stream_facts(stream)->events, 3);
        stream_end(stream);
        reader_free(reader);
        free(piece);
    }
}
END_TEST

START_TEST(one_too_large_to_wait_is_shown_and_counted)
{
    begin_hiding();
    struct reader *reader = join(TAKE);
    struct strbuf event;
    strbuf_init(&event, 1 << 20);
    strbuf_puts(&event, "data: {\"choices\":[],");
    for (size_t n = 0; n < 2 * WITHHOLD_MAX; n++)
        strbuf_putc(&event, ' ');
    buffer(strbuf_cstr(&event));
    buffer(USAGE "}\n\n");
    ck_assert_uint_eq(reader->got.len, event.len + sizeof(USAGE "}\n\n") - 1);
    ck_assert(stream_facts(stream)->events == 1 && stream_facts(stream)->usage.known);
    strbuf_puts(&event, USAGE "}\n\n"); /* but not if it comes whole */
    size_t before = reader->got.len;
    buffer(strbuf_cstr(&event));
    ck_assert(reader->got.len == before && stream_facts(stream)->events == 1);
    strbuf_dispose(&event);
    stream_end(stream);
    reader_free(reader);
}
END_TEST

START_TEST(slow_and_late_readers_see_the_same)
{
    begin(&(struct stream_settings){
        .dialect = dialect_get(DIALECT_CHAT), .sse = true, .hide_usage = true, .keep_bytes = 100000});
    struct reader *slow = join(NIBBLE), *none = join(WAIT);
    buffer("data: a\n\nda");
    buffer("ta: b\n\n" EXTRA);
    struct reader *late = join(TAKE);
    stream_ready(&late->subscriber);
    expect_got(late, "data: a\n\ndata: b\n\n");
    buffer("\r\n\r");
    buffer("\ndata: [DONE]\n\n");
    expect_got(late, "data: a\n\ndata: b\n\ndata: [DONE]\n\n");
    expect_got(slow, strbuf_cstr(&late->got));
    take(none, SIZE_MAX);
    expect_got(none, strbuf_cstr(&late->got));
    stream_end(stream);
    reader_free(slow);
    reader_free(none);
    reader_free(late);
}
END_TEST

START_TEST(others_get_the_event)
{
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true});
    struct reader *reader = join(TAKE);
    buffer(EXTRA "\n\nda");
    expect_got(reader, EXTRA "\n\nda");
    ck_assert_uint_eq(stream_facts(stream)->events, 1);
    stream_break(stream, STREAM_RESET, NULL);
    reader_free(reader);
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .json = true, .hide_usage = true});
    reader = join(TAKE);
    buffer("{\"choices\":[]," USAGE "}");
    expect_got(reader, "{\"choices\":[]," USAGE "}");
    stream_end(stream);
    reader_free(reader);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("withhold");
    tcase_add_test(tests, the_extra_event_is_kept_back_wherever_it_is_split);
    tcase_add_test(tests, two_cuts_anywhere);
    tcase_add_test(tests, whole_events_are_not_copied);
    tcase_add_test(tests, what_came_in_part_waits_until_it_is_whole);
    tcase_add_test(tests, a_large_event_waits_no_longer_than_the_maximum);
    tcase_add_test(tests, one_too_large_to_wait_is_shown_and_counted);
    tcase_add_test(tests, slow_and_late_readers_see_the_same);
    tcase_add_test(tests, others_get_the_event);
    tcase_set_timeout(tests, 60);
    return run_tests("withhold", tests);
}
