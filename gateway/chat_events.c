#include "gateway/chat_events.h"
#include "base/json_scan.h"
#include <h2o.h>

#define STEP ((size_t)16384) /* bytes looked at before the reader is asked whether it wants more */
#define ID_MAX 160
#define USAGE_MAX 400

struct chat_events {
    struct stream_subscriber input;
    struct stream *output;
    struct sse_scanner scanner;
    struct usage usage;
    h2o_buffer_t *buffer; /* events that are about to be appended */
    uint64_t number;
    bool paused, done, failed, too_large;
    char id[ID_MAX + 1];
};

/* In the order in which they fire. */
static void on_input(struct stream_subscriber *subscriber);
static void on_event(void *ctx, const struct sse_event *event);
static void on_resume(void *ctx);
static void on_cancel(void *ctx);

struct chat_events *chat_events_create(struct stream *input, struct span id, struct stream **output)
{
    struct chat_events *events = h2o_mem_alloc(sizeof(*events));
    *events = (struct chat_events){.input = {.on_data = on_input}};
    memcpy(events->id, id.base, id.len < ID_MAX ? id.len : ID_MAX);
    sse_scanner_init(&events->scanner, CHAT_EVENT_MAX);
    h2o_buffer_init(&events->buffer, &h2o_socket_buffer_prototype);
    struct stream_settings settings = {.dialect = dialect_get(DIALECT_EVENTS), .sse = true};
    struct stream_producer producer = {on_resume, on_cancel, events};
    *output = events->output = stream_create(&settings, &producer);
    if (!stream_subscribe(input, &events->input, 0))
        h2o_fatal("a new stream has no beginning");
    return events;
}

static void destroy(struct chat_events *events)
{
    stream_unsubscribe(&events->input);
    sse_scanner_dispose(&events->scanner);
    h2o_buffer_dispose(&events->buffer);
    free(events);
}

static void give_up(struct chat_events *events, enum stream_failure why, const char *message)
{
    stream_break(events->output, why, message);
    destroy(events);
}

void chat_events_run(struct chat_events *events)
{
    struct stream *input = events->input._stream;
    if (!stream_is_wanted(events->output))
        give_up(events, STREAM_CANCELLED, NULL);
    else if (stream_unread(&events->input) != 0 || stream_state(input) != STREAM_OPEN)
        stream_ready(&events->input);
}

/* ---- one event ---- */

static void put(struct chat_events *events, struct span bytes)
{
    if (bytes.len == 0)
        return;
    h2o_iovec_t room = h2o_buffer_reserve(&events->buffer, bytes.len);
    memcpy(room.base, bytes.base, bytes.len);
    events->buffer->size += bytes.len;
}

/* The fields before the data. `suffix` NULL: the next number. */
static void put_head(struct chat_events *events, struct span name, const char *suffix)
{
    char number[24];
    put(events, SPAN("event: "));
    put(events, name);
    put(events, SPAN("\nid: "));
    put(events, span_of(events->id));
    put(events, SPAN("."));
    if (suffix == NULL) {
        struct strbuf text;
        strbuf_init_fixed(&text, number, sizeof(number));
        strbuf_u64(&text, ++events->number);
        suffix = strbuf_cstr(&text);
    }
    put(events, span_of(suffix));
}

/* A span of data covers everything between the first value and the last: the lines between are looked at again, so that
 * only data comes through. */
static void put_data(struct chat_events *events, struct span data)
{
    bool first = true;
    do {
        size_t n = 0;
        while (n < data.len && data.base[n] != '\n' && data.base[n] != '\r')
            n++;
        struct span line = {data.base, n};
        bool crlf = n + 1 < data.len && data.base[n] == '\r' && data.base[n + 1] == '\n';
        data = span_skip(data, n + (crlf ? 2 : 1));
        if (!first) {
            if (!span_starts(line, SPAN("data:")) && !span_eq(line, SPAN("data")))
                continue;
            line = span_skip(line, 5);
            if (span_starts(line, SPAN(" ")))
                line = span_skip(line, 1);
        }
        first = false;
        put(events, SPAN("\ndata: "));
        put(events, line);
    } while (data.len != 0);
    put(events, SPAN("\n\n"));
}

void chat_events_usage(const struct usage *usage, struct strbuf *out)
{
    if (!usage->known) {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_puts(out, "{\"prompt_tokens\":");
    strbuf_u64(out, usage->prompt);
    strbuf_puts(out, ",\"completion_tokens\":");
    strbuf_u64(out, usage->completion);
    strbuf_puts(out, ",\"total_tokens\":");
    strbuf_u64(out, usage->prompt + usage->completion);
    strbuf_puts(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    strbuf_u64(out, usage->cached);
    strbuf_puts(out, "}}");
}

static void put_done(struct chat_events *events)
{
    char memory[USAGE_MAX];
    struct strbuf text;
    strbuf_init_fixed(&text, memory, sizeof(memory));
    strbuf_puts(&text, "{\"usage\":");
    chat_events_usage(&events->usage, &text);
    strbuf_putc(&text, '}');
    put_head(events, SPAN("done"), "done");
    put_data(events, strbuf_span(&text));
}

/* Whether an event that has usage has nothing else. */
static bool is_usage_alone(struct span data)
{
    static const struct span names[] = {{"choices", 7}};
    struct json_value choices;
    struct json_error error;
    return json_scan(data, names, 1, &choices, NULL, &error) && choices.type == JSON_ARRAY && choices.count == 0;
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct chat_events *events = ctx;
    if (!event->has_data || events->done || events->failed)
        return;
    if (event->cut) {
        events->too_large = true;
        return;
    }
    unsigned flags = dialect_event(dialect_get(DIALECT_CHAT), event, &events->usage);
    if ((flags & EVENT_TERMINAL) != 0) {
        events->done = true;
        put_done(events);
    } else if ((flags & EVENT_ERROR) != 0) {
        events->failed = true;
        put_head(events, SPAN("error"), "error");
        put_data(events, event->data);
    } else if ((flags & EVENT_USAGE) == 0 || !is_usage_alone(event->data)) {
        put_head(events, SPAN("delta"), NULL);
        put_data(events, event->data);
    }
}

/* ---- the flow ---- */

/* The input is over and all of it was read. */
static void finish(struct chat_events *events)
{
    struct stream *input = events->input._stream;
    if (stream_state(input) == STREAM_BROKEN)
        give_up(events, stream_failure(input), stream_failure_message(input));
    else if (!events->done && !events->failed)
        give_up(events, STREAM_UNTERMINATED, "the backend ended the stream before it was complete");
    else {
        stream_end(events->output);
        destroy(events);
    }
}

/* Looks at the next bytes, hands on what they complete. False if that was the end. */
static bool step(struct chat_events *events, struct span bytes)
{
    if (bytes.len > STEP)
        bytes.len = STEP;
    sse_scan(&events->scanner, bytes, on_event, events);
    stream_consume(&events->input, bytes.len);
    enum stream_demand demand =
        events->buffer->size != 0 ? stream_append_buffer(events->output, &events->buffer) : STREAM_GO_ON;
    events->paused = demand == STREAM_PAUSE;
    if (demand == STREAM_UNWANTED)
        give_up(events, STREAM_CANCELLED, NULL);
    else if (demand == STREAM_FULL)
        give_up(events, STREAM_OVERFLOW, NULL);
    else if (events->too_large)
        give_up(events, STREAM_OVERFLOW, "the backend sent an event that is too large");
    else
        return true;
    return false;
}

static void on_input(struct stream_subscriber *subscriber)
{
    struct chat_events *events = H2O_STRUCT_FROM_MEMBER(struct chat_events, input, subscriber);
    struct slice slice;
    while (!events->paused) {
        if (stream_peek(subscriber, &slice, 1) != 0) {
            if (!step(events, slice.bytes))
                return;
        } else if (stream_state(subscriber->_stream) == STREAM_OPEN) {
            stream_wait(subscriber);
            return;
        } else {
            finish(events);
            return;
        }
    }
}

static void on_resume(void *ctx)
{
    struct chat_events *events = ctx;
    events->paused = false;
    stream_ready(&events->input);
}

static void on_cancel(void *ctx)
{
    struct chat_events *events = ctx;
    /* The backend first: it is what costs. */
    stream_unsubscribe(&events->input);
    give_up(events, STREAM_CANCELLED, NULL);
}
