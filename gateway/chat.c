#include "gateway/chat.h"
#include "gateway/chat_events.h"
#include "gateway/chat_query.h"
#include "gateway/completion.h"
#include "gateway/handle_model.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"

struct chat {
    struct strbuf body;
    bool good;
    struct chat_problem problem; /* unless good */
    struct header headers[];
};

const struct call_target chat_target = {
    .method = {"POST", 4},
    .path = {"/v1/chat/completions", 20},
};

/* ---- the question ---- */

/* Headers that speak of the request that a browser made and not of the one that weir makes. Cache-Control: EventSource
 * always sends no-cache and can not be told otherwise. */
static bool is_replaced(struct span name)
{
    static const struct span names[] = {
        SPAN("accept"),        SPAN("cache-control"),     SPAN("pragma"), SPAN("content-type"),
        SPAN("if-none-match"), SPAN("if-modified-since"), SPAN("range"),
    };
    return span_in(name, names, sizeof(names) / sizeof(names[0]));
}

static bool comes_back(const struct call *call)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (span_eq(call->headers[i].name, SPAN("last-event-id")))
            return true;
    return false;
}

/* The model of a query that names none: the first that the backend for such requests is said to serve by its name. */
static struct span default_model(const struct config *config)
{
    const struct backend_settings *backend = &config->backends[0];
    for (size_t i = 0; i < config->backend_count; i++)
        if (config->backends[i].is_default)
            backend = &config->backends[i];
    for (size_t i = 0; i < backend->model_count; i++)
        if (strchr(backend->models[i].pattern, '*') == NULL)
            return span_of(backend->models[i].pattern);
    return backend->url.kind == BACKEND_DEMO ? SPAN("demo") : SPAN_NONE;
}

bool chat_prepare(struct call *call)
{
    if (call->chat != NULL)
        return true;
    if (comes_back(call)) {
        call->transport->answer(call, 204, SPAN_NONE, SPAN_NONE);
        return false;
    }
    struct chat *chat = malloc(sizeof(*chat) + (call->header_count + 2) * sizeof(chat->headers[0]));
    if (chat == NULL)
        abort();
    memset(chat, 0, sizeof(*chat));
    size_t count = 0;
    for (size_t i = 0; i < call->header_count; i++)
        if (!is_replaced(call->headers[i].name))
            chat->headers[count++] = call->headers[i];
    chat->headers[count++] = (struct header){SPAN("accept"), SPAN("text/event-stream")};
    chat->headers[count++] = (struct header){SPAN("content-type"), SPAN("application/json")};
    call->headers = chat->headers;
    call->header_count = count;
    call->content_type = SPAN("application/json");

    const struct config *config = call->site->config;
    struct chat_defaults defaults = {.model = span_of(config->chat.model), .system = span_of(config->chat.system)};
    if (defaults.model.len == 0)
        defaults.model = default_model(config);
    chat->good = chat_query_read(call->query, &defaults, &chat->body, &chat->problem);
    call->chat = chat;
    call->body = chat->good ? strbuf_span(&chat->body) : SPAN_NONE;
    call->has_body = true;
    return true;
}

bool chat_refused(struct call *call)
{
    struct chat *chat = call->chat;
    if (chat == NULL || chat->good)
        return false;
    struct dialect_error error = {.status = 422,
                                  .param = chat->problem.param,
                                  .message = chat->problem.message,
                                  .detail_json = strbuf_cstr(&chat->problem.detail)};
    call_refuse(call, "invalid_query", &error);
    return true;
}

void handle_chat(struct call *call)
{
    /* Again, since a configured route may leave `validate` out. */
    if (!chat_refused(call))
        handle_model(call);
}

void chat_end(struct call *call)
{
    struct chat *chat = call->chat;
    if (chat == NULL)
        return;
    call->chat = NULL;
    strbuf_dispose(&chat->body);
    strbuf_dispose(&chat->problem.detail);
    free(chat);
}

/* ---- the answer ---- */

void chat_stream(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    /* An error goes on as it is: an EventSource only sees that there is one. */
    if (head->status != 200) {
        call->transport->stream(call, head, stream);
        return;
    }
    if (!head->sse) {
        telemetry_upstream_error(call->worker, call->record.backend, STREAM_PROTOCOL);
        completion_failed(call, STREAM_PROTOCOL, "The backend answered with something other than a stream.");
        return;
    }
    struct stream *output;
    struct chat_events *events = chat_events_create(stream, span_of(call->request_id), &output);
    call->transport->stream(call, head, output);
    chat_events_run(events);
}
