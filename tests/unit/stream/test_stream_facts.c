#include "stream/stream_reader.h"

START_TEST(an_end_without_the_terminal_event_is_a_break)
{
    static const struct {
        enum dialect_id id;
        bool sse;
        const char *text;
        enum stream_failure failure;
    } cases[] = {
        {DIALECT_CHAT, true, "data: {}\n\ndata: [DONE]\n\n", STREAM_NOT_FAILED},
        {DIALECT_CHAT, true, "data: {}\n\ndata: [DONE]\n", STREAM_UNTERMINATED}, /* no blank line, no event */
        {DIALECT_CHAT, true, "data: {}\n\n", STREAM_UNTERMINATED},
        {DIALECT_CHAT, true, "data: {\"error\":{}}\n\n", STREAM_UNTERMINATED},
        {DIALECT_CHAT, true, "", STREAM_UNTERMINATED},
        {DIALECT_CHAT, false, "{}", STREAM_NOT_FAILED},
        {DIALECT_COMPLETIONS, true, "data: [DONE]\n\n", STREAM_NOT_FAILED},
        {DIALECT_COMPLETIONS, true, "data: x\n\n", STREAM_UNTERMINATED},
        {DIALECT_RESPONSES, true, "event: response.completed\ndata: {}\n\n", STREAM_NOT_FAILED},
        {DIALECT_RESPONSES, true, "data: [DONE]\n\n", STREAM_UNTERMINATED},
        {DIALECT_MESSAGES, true, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", STREAM_NOT_FAILED},
        {DIALECT_MESSAGES, true, "event: message_delta\ndata: {}\n\n", STREAM_UNTERMINATED},
        {DIALECT_NONE, true, "data: x\n\n", STREAM_NOT_FAILED},
        {DIALECT_NONE, true, "", STREAM_NOT_FAILED},
        {DIALECT_EMBEDDINGS, true, "data: x\n\n", STREAM_NOT_FAILED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        begin(&(struct stream_settings){.dialect = dialect_get(cases[i].id), .sse = cases[i].sse});
        ck_assert_ptr_eq(stream_dialect(stream), dialect_get(cases[i].id));
        ck_assert_int_eq(stream_is_sse(stream), cases[i].sse);
        struct reader *reader = join(TAKE);
        for (const char *c = cases[i].text; *c != '\0'; c++)
            stream_append(stream, (struct span){c, 1});
        bool terminal = stream_facts(stream)->terminal;
        stream_end(stream);
        ck_assert_msg(reader->over && reader->failure == cases[i].failure, "case %zu: %d", i, reader->failure);
        ck_assert_int_eq(reader->state, cases[i].failure == STREAM_NOT_FAILED ? STREAM_ENDED : STREAM_BROKEN);
        if (cases[i].sse && cases[i].failure == STREAM_UNTERMINATED)
            ck_assert(!terminal);
        reader_free(reader);
    }
}
END_TEST

START_TEST(events_and_usage_are_facts)
{
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true});
    struct reader *reader = join(TAKE);
    const struct stream_facts *facts = stream_facts(stream);
    buffer(": hello\n\n");
    text("data: {\"choices\":[]}\n");
    ck_assert(facts->events == 0 && facts->first_event_us == 0);
    buffer("\n");
    ck_assert(facts->events == 1 && facts->first_event_us != 0);
    ck_assert_uint_eq(facts->first_event_us, facts->last_event_us);
    buffer("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"comp");
    text("letion_tokens\":7}}\n\ndata: {\"error\":{}}\n\n");
    ck_assert(facts->usage.known && facts->usage.prompt == 3 && facts->usage.completion == 7);
    ck_assert(facts->error_event && !facts->terminal);
    text("data: [DONE]\n\n");
    ck_assert(facts->terminal && facts->events == 4 && facts->last_event_us >= facts->first_event_us);
    ck_assert_uint_eq(facts->bytes, reader->got.len);
    stream_end(stream);
    reader_free(reader);
}
END_TEST

/* However a JSON answer is cut up, and however long it is. */
START_TEST(a_json_answer_has_usage_too)
{
    static const size_t steps[] = {1, 7, 8191, 8192, 8193, 100000}, fills[] = {0, 8100, 8150, 8192, 50000};
    for (size_t i = 0; i < COUNT(steps) * COUNT(fills); i++) {
        size_t step = steps[i % COUNT(steps)];
        struct strbuf body;
        strbuf_init(&body, 1 << 20);
        strbuf_puts(&body, "{\"choices\":[{\"text\":\"");
        for (size_t n = 0; n < fills[i / COUNT(steps)]; n++)
            strbuf_putc(&body, 'x');
        strbuf_puts(&body, "\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22}}");
        begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .json = true});
        struct reader *reader = join(TAKE_HOLD);
        for (struct span rest = strbuf_span(&body); rest.len != 0; rest = span_skip(rest, step)) {
            struct span piece = {rest.base, rest.len < step ? rest.len : step};
            char *exact = malloc(piece.len);
            memcpy(exact, piece.base, piece.len);
            stream_append(stream, (struct span){exact, piece.len});
            free(exact);
        }
        const struct stream_facts *facts = stream_facts(stream);
        stream_end(stream); /* the reader still holds it */
        ck_assert_msg(facts->usage.known && facts->usage.prompt == 11 && facts->usage.completion == 22, "case %zu", i);
        reader_free(reader);
        strbuf_dispose(&body);
    }
}
END_TEST

START_TEST(comments_fit_at_boundaries)
{
    begin(&(struct stream_settings){.dialect = dialect_get(DIALECT_CHAT), .sse = true});
    struct reader *reader = join(TAKE);
    ck_assert(stream_at_boundary(&reader->subscriber) && stream_ends_at_boundary(stream));
    text("data: {}\n");
    ck_assert(!stream_at_boundary(&reader->subscriber) && !stream_ends_at_boundary(stream));
    text("\n");
    ck_assert(stream_at_boundary(&reader->subscriber) && stream_ends_at_boundary(stream));
    reader->manner = HOLD;
    text("data: {}\n\n");
    ck_assert(!stream_at_boundary(&reader->subscriber) && stream_ends_at_boundary(stream));
    take(reader, SIZE_MAX);
    ck_assert(stream_at_boundary(&reader->subscriber));
    stream_end(stream);
    reader_free(reader);

    begin_plain();
    reader = join(TAKE);
    ck_assert(stream_at_boundary(&reader->subscriber));
    text("data: {}\n\n");
    ck_assert(!stream_at_boundary(&reader->subscriber) && !stream_ends_at_boundary(stream));
    stream_end(stream);
    reader_free(reader);
}
END_TEST

START_TEST(every_failure_has_a_name_of_its_own)
{
    for (int i = 0; i < STREAM_FAILURES; i++) {
        const char *name = stream_failure_name((enum stream_failure)i);
        ck_assert_ptr_nonnull(name);
        ck_assert_uint_ne(strlen(name), 0);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(name, stream_failure_name((enum stream_failure)j));
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("stream_facts");

    tcase_add_test(tests, an_end_without_the_terminal_event_is_a_break);
    tcase_add_test(tests, events_and_usage_are_facts);
    tcase_add_test(tests, a_json_answer_has_usage_too);
    tcase_add_test(tests, comments_fit_at_boundaries);
    tcase_add_test(tests, every_failure_has_a_name_of_its_own);
    return run_tests("stream_facts", tests);
}
