/* The demo model's exchange: the answer is composed when the request comes, then given out token by token as if it were
 * being thought of. The deadline is the only thing that drives it. */
#include "backends/demo_reply.h"
#include "backends/exchange_kind.h"
#include "base/clock.h"
#include <stdlib.h>

/* More than the longest answer: DEMO_INPUTS_MAX vectors, or the four repetitions at a response's end, escaped. */
#define PART_MAX ((size_t)1024 * 1024)

/* In the order in which they fire. */
static void on_wait_cancel(struct exchange *exchange);
static void on_due(struct deadline *deadline);
static void on_resume(void *ctx);
static void on_cancel(void *ctx);

struct demo {
    struct exchange exchange; /* first: what the caller holds */
    struct deadlines *deadlines;
    struct deadline deadline;
    uint64_t due_us; /* when the next token is, or was, due */
    uint64_t pace_us;
    const struct exchange_callbacks *callbacks;
    void *ctx;
    struct demo_request request;
    struct demo_reply reply;
    bool hide_usage;
    bool is_model_request; /* not one of the paths that DIALECT_NONE stands for */
    struct strbuf part;
    int status;
    struct stream *stream; /* NULL until the head is due */
    bool in_head;          /* on_head is being called: what happens in it must leave the exchange alive */
    bool cancelled;
};

static void demo_free(struct demo *demo)
{
    deadline_disarm(demo->deadlines, &demo->deadline);
    demo_request_dispose(&demo->request);
    strbuf_dispose(&demo->part);
    free(demo);
}

/* The end after the head. */
static struct stream *leave(struct demo *demo, enum stream_failure why)
{
    const struct exchange_callbacks *callbacks = demo->callbacks;
    struct stream *stream = demo->stream;
    void *ctx = demo->ctx;
    demo_free(demo);
    if (callbacks->on_over != NULL)
        callbacks->on_over(ctx, why, stream);
    return stream;
}

static void abandon(struct demo *demo)
{
    stream_break(leave(demo, STREAM_CANCELLED), STREAM_CANCELLED, "nobody reads the answer any more");
}

struct exchange *demo_start(const struct backend_settings *settings, struct deadlines *deadlines,
                            const struct exchange_request *from, const struct exchange_callbacks *callbacks, void *ctx)
{
    const struct demo_settings *manners = &settings->demo;
    struct demo *demo = h2o_mem_alloc(sizeof(*demo));
    *demo = (struct demo){.exchange.cancel = on_wait_cancel,
                          .deadlines = deadlines,
                          .deadline.cb = on_due,
                          .pace_us = manners->pace_us,
                          .callbacks = callbacks,
                          .ctx = ctx,
                          .hide_usage = from->hide_usage,
                          .is_model_request = from->dialect != DIALECT_NONE};
    strbuf_init(&demo->part, PART_MAX);
    uint64_t wait_us = 0;
    if (demo->is_model_request) {
        demo_request_read(&demo->request, manners, from);
        demo_reply_init(&demo->reply, &demo->request);
        demo->status = demo->request.status;
        if (demo->status == 200)
            wait_us = manners->delay_us;
        /* a plain answer comes when its last token has been thought of */
        if (demo->status == 200 && !demo->request.stream && demo->request.tokens > 1)
            wait_us += manners->pace_us * (demo->request.tokens - 1);
    } else {
        demo->status = demo_reply_models(from->method, from->path, &demo->part);
    }
    demo->due_us = clock_us() + wait_us;
    deadline_arm(deadlines, &demo->deadline, demo->due_us);
    return &demo->exchange;
}

static void on_wait_cancel(struct exchange *exchange)
{
    demo_free(H2O_STRUCT_FROM_MEMBER(struct demo, exchange, exchange));
}

/* Tells the head; false if the exchange is gone after it. */
static bool tell_head(struct demo *demo)
{
    static const struct header sse_headers[] = {{SPAN("content-type"), SPAN("text/event-stream; charset=utf-8")},
                                                {SPAN("cache-control"), SPAN("no-cache")}};
    static const struct header json_headers[] = {{SPAN("content-type"), SPAN("application/json")}};
    bool sse = demo->is_model_request && demo->request.stream && demo->status == 200;
    struct stream_settings settings = {.dialect = dialect_get(demo->request.dialect),
                                       .sse = sse,
                                       .json = !sse && demo->status == 200,
                                       .hide_usage = demo->hide_usage};
    struct stream_producer producer = {.resume = on_resume, .cancel = on_cancel, .ctx = demo};
    struct exchange_head head = {.status = demo->status,
                                 .headers = sse ? sse_headers : json_headers,
                                 .header_count = sse ? 2 : 1,
                                 .content_length = sse ? UINT64_MAX : demo->part.len,
                                 .sse = sse};
    demo->stream = stream_create(&settings, &producer);
    demo->in_head = true;
    demo->callbacks->on_head(demo->ctx, &head, demo->stream);
    demo->in_head = false;
    if (!demo->cancelled)
        return true;
    abandon(demo);
    return false;
}

static void on_due(struct deadline *deadline)
{
    struct demo *demo = H2O_STRUCT_FROM_MEMBER(struct demo, deadline, deadline);
    bool more = false;
    if (demo->is_model_request) {
        strbuf_reset(&demo->part);
        more = demo_reply_next(&demo->reply, &demo->part);
    }
    if (demo->stream == NULL && !tell_head(demo))
        return;
    enum stream_demand demand = stream_append(demo->stream, strbuf_span(&demo->part));
    if (demand == STREAM_UNWANTED) {
        abandon(demo);
    } else if (!more) {
        stream_end(leave(demo, STREAM_NOT_FAILED));
    } else {
        demo->due_us += demo->pace_us;
        if (demand == STREAM_GO_ON)
            deadline_arm(demo->deadlines, &demo->deadline, demo->due_us);
    }
}

static void on_resume(void *ctx)
{
    struct demo *demo = ctx;
    /* the tokens that were due in the meantime are not made up for all at once */
    uint64_t now_us = clock_us();
    if (demo->due_us < now_us)
        demo->due_us = now_us;
    deadline_arm(demo->deadlines, &demo->deadline, demo->due_us);
}

static void on_cancel(void *ctx)
{
    struct demo *demo = ctx;
    demo->cancelled = true;
    if (!demo->in_head)
        abandon(demo);
}
