/* Server-sent events, whole and in pieces: the scanner, what the dialects make of its events, and what is withheld.
 * Input: dialect, window, four lengths of pieces (taken in turn), the stream. */
#include "base/json_scan.h"
#include "fuzz.h"
#include "stream/dialect.h"
#include "stream/withhold.h"

#define EVENTS_MAX 4096 /* more than an input of the greatest length can hold */

struct seen {
    struct span name, data, head; /* copies */
    bool has_data, cut;
    uint64_t start, end;
    unsigned flags;
};

/* One reading of a stream. */
struct reading {
    const struct dialect *dialect;
    struct sse_scanner scanner;
    struct withhold withhold;
    struct usage usage;
    struct strbuf shown;
    struct seen *seen;
    size_t count;
    bool cut; /* some event was */
};

static struct span copy(struct span text)
{
    return (struct span){fuzz_exact(text), text.len};
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct reading *reading = ctx;
    MUST(reading->count < EVENTS_MAX);
    MUST(event->start <= event->end && event->end <= reading->scanner._offset + (1 << 20));
    struct seen *seen = &reading->seen[reading->count++];
    *seen = (struct seen){.name = copy(event->name),
                          .data = copy(event->data),
                          .head = copy(event->head),
                          .has_data = event->has_data,
                          .cut = event->cut,
                          .start = event->start,
                          .end = event->end};
    reading->cut = reading->cut || event->cut;
    seen->flags = dialect_event(reading->dialect, event, &reading->usage);
    if (event->has_data && (seen->flags & EVENT_EXTRA) != 0)
        withhold_event(&reading->withhold, event);
}

static void begin(struct reading *reading, const struct dialect *dialect, size_t window, struct seen *seen)
{
    *reading = (struct reading){.dialect = dialect, .seen = seen};
    sse_scanner_init(&reading->scanner, window);
    strbuf_init(&reading->shown, 1 << 20);
}

static void feed(struct reading *reading, struct span piece)
{
    char *bytes = fuzz_exact(piece);
    sse_scan(&reading->scanner, (struct span){bytes, piece.len}, on_event, reading);
    /* As stream.c does. */
    if (piece.len != 0) {
        strbuf_add(&reading->shown, withhold_waited(&reading->withhold, &reading->scanner, piece.len));
        size_t len = withhold_sort(&reading->withhold, &reading->scanner, bytes, piece.len);
        MUST(len <= piece.len);
        strbuf_add(&reading->shown, (struct span){bytes, len});
    }
    free(bytes);
}

static void end(struct reading *reading)
{
    strbuf_add(&reading->shown, withhold_end(&reading->withhold));
    withhold_dispose(&reading->withhold);
}

static void dispose(struct reading *reading)
{
    for (size_t i = 0; i < reading->count; i++) {
        free((char *)reading->seen[i].name.base);
        free((char *)reading->seen[i].data.base);
        free((char *)reading->seen[i].head.base);
    }
    strbuf_dispose(&reading->shown);
    sse_scanner_dispose(&reading->scanner);
}

static bool ends_with(struct span text, struct span tail)
{
    return tail.len <= text.len && span_eq(span_skip(text, text.len - tail.len), tail);
}

static void compare_event(struct span stream, const struct seen *whole, const struct seen *part)
{
    bool late_lf = part->end + 1 == whole->end && stream.base[part->end - 1] == '\r' && stream.base[part->end] == '\n';
    MUST(!whole->cut && whole->has_data == part->has_data);
    MUST(part->end == whole->end || late_lf);
    MUST(part->start == whole->start || (part->start == part->end && whole->start == whole->end));
    if (part->cut) {
        MUST(ends_with(whole->data, part->data) && span_starts(whole->data, part->head));
        return;
    }
    MUST(span_eq(whole->name, part->name) && span_eq(whole->data, part->data) && part->head.len == 0);
    MUST(whole->flags == part->flags);
}

static void compare(struct span stream, const struct reading *whole, const struct reading *part)
{
    uint64_t a, b;
    MUST(whole->count == part->count && !whole->cut);
    for (size_t i = 0; i < whole->count; i++)
        compare_event(stream, &whole->seen[i], &part->seen[i]);
    MUST(sse_at_boundary(&whole->scanner) == sse_at_boundary(&part->scanner));
    MUST(sse_is_open(&whole->scanner, &a) == sse_is_open(&part->scanner, &b));
    if (part->cut)
        return;
    MUST(whole->usage.known == part->usage.known && whole->usage.prompt == part->usage.prompt &&
         whole->usage.completion == part->usage.completion && whole->usage.cached == part->usage.cached);
    MUST(span_eq(strbuf_span(&whole->shown), strbuf_span(&part->shown)));
}

/* What is shown of the whole is what stands outside the events that were kept back. */
static void check_shown(struct span stream, const struct reading *whole)
{
    struct strbuf expected;
    uint64_t at = 0;
    strbuf_init(&expected, 1 << 20);
    for (size_t i = 0; i < whole->count; i++) {
        const struct seen *seen = &whole->seen[i];
        if (!seen->has_data || (seen->flags & EVENT_EXTRA) == 0)
            continue;
        strbuf_add(&expected, (struct span){stream.base + at, (size_t)(seen->start - at)});
        at = seen->end;
    }
    strbuf_add(&expected, span_skip(stream, (size_t)at));
    MUST(span_eq(strbuf_span(&expected), strbuf_span(&whole->shown)));
    strbuf_dispose(&expected);
}

static void on_error_event(void *ctx, const struct sse_event *event)
{
    struct reading *reading = ctx;
    reading->count++;
    MUST(reading->dialect == dialect_get(DIALECT_NONE) ||
         (dialect_event(reading->dialect, event, &reading->usage) & EVENT_ERROR) != 0);
}

/* Whatever an error says, it is JSON, and one event that is known for an error. */
static void check_error(const struct dialect *dialect, struct span text)
{
    char *message = span_dup(text);
    struct dialect_error error = {.status = 502, .code = message, .message = message, .request_id = message};
    struct strbuf out;
    struct reading reading = {.dialect = dialect};
    struct json_error problem;
    strbuf_init(&out, 1 << 20);
    dialect_error_body(dialect, &error, &out);
    MUST(json_scan(strbuf_span(&out), NULL, 0, NULL, NULL, &problem));
    strbuf_reset(&out);
    dialect_error_event(dialect, &error, 7, &out);
    sse_scanner_init(&reading.scanner, 0);
    sse_scan(&reading.scanner, strbuf_span(&out), on_error_event, &reading);
    MUST(reading.count == 1 && sse_at_boundary(&reading.scanner));
    sse_scanner_dispose(&reading.scanner);
    strbuf_dispose(&out);
    free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span stream = {(const char *)data, size};
    const struct dialect *dialect = dialect_get((enum dialect_id)(fuzz_byte(&stream) % (DIALECT_EMBEDDINGS + 1)));
    size_t window = fuzz_byte(&stream) % 2 == 0 ? SSE_WINDOW_DEFAULT : 1024, lengths[4], turn = 0;
    for (size_t i = 0; i < 4; i++)
        lengths[i] = fuzz_byte(&stream);
    if (lengths[0] + lengths[1] + lengths[2] + lengths[3] == 0)
        lengths[0] = 1;
    static struct seen in_whole[EVENTS_MAX], in_part[EVENTS_MAX];
    struct reading whole, part;
    begin(&whole, dialect, window, in_whole);
    feed(&whole, stream);
    begin(&part, dialect, window, in_part);
    for (struct span rest = stream; rest.len != 0; turn++) {
        size_t len = lengths[turn % 4] < rest.len ? lengths[turn % 4] : rest.len;
        feed(&part, (struct span){rest.base, len});
        rest = span_skip(rest, len);
    }
    end(&whole);
    end(&part);
    compare(stream, &whole, &part);
    check_shown(stream, &whole);
    struct usage usage = {0};
    dialect_json_usage(dialect, stream, &usage);
    if (stream.len < 256)
        check_error(dialect, stream);
    dispose(&whole);
    dispose(&part);
    return 0;
}
