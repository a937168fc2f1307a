/* One generation on a socket of /ws/chat: a call whose transport is a WebSocket. It reads the answer's stream event by
 * event and passes each on as a message. */
#include "base/clock.h"
#include "gateway/answer_cache.h"
#include "gateway/completion.h"
#include "gateway/limit.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include "gateway/ws_chat.h"
#include <stdio.h>

#define SLICES_MAX 8
#define EVENT_MAX ((size_t)1 << 20)        /* of an event that comes in pieces */
#define PLAIN_ANSWER_MAX ((size_t)8 << 20) /* of an answer that is no stream */

struct ws_generation {
    h2o_linklist_t link;
    struct ws_chat *chat;
    struct call call;
    struct completion completion;
    struct stream_subscriber subscriber;
    struct sse_scanner scanner;
    struct strbuf body;    /* of the request */
    struct strbuf answer;  /* one that is no stream; or, in a conversation, the text so far */
    struct strbuf message; /* in a conversation: the user's, as JSON */
    struct span id;        /* as the client wrote it */
    char id_text[CHAT_ID_MAX];
    struct deadline reap;
    struct header headers[3];
    size_t header_count;
    char traceparent[56];
    int status; /* the backend's */
    bool streamed, counted_stream;
    bool over; /* the client has had its last event */
    uint64_t events_seen, last_event_us;
};

/* In the order in which they fire. */
static void on_refuse(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry);
static void on_answer(struct call *call, int status, struct span content_type, struct span body);
static void on_stream(struct call *call, const struct exchange_head *head, struct stream *stream);
static void on_data(struct stream_subscriber *subscriber);
static void on_event(void *ctx, const struct sse_event *event);
static void on_reap(struct deadline *deadline);

static const struct call_transport transport = {.refuse = on_refuse, .answer = on_answer, .stream = on_stream};

static struct ws_generation *of_call(struct call *call)
{
    return H2O_STRUCT_FROM_MEMBER(struct ws_generation, call, call);
}

/* ---- the beginning ---- */

static void add_header(struct ws_generation *generation, struct span name, struct span value)
{
    generation->headers[generation->header_count++] = (struct header){name, value};
}

static void fill_call(struct ws_generation *generation)
{
    struct ws_session *session = generation->chat->session;
    struct call *call = &generation->call;
    call->transport = &transport;
    call->worker = session->worker;
    call->site = site_retain(session->site);
    call->pool = pool_retain(session->pool);
    call->route = generation->chat->model_route;
    call->identity = session->identity != NULL ? identity_retain(session->identity) : NULL;
    call->completion = &generation->completion;
    call->record.started_us = clock_us();
    call->method = SPAN("POST");
    call->path = call->route->route.path;
    call->content_type = SPAN("application/json");
    call->has_body = true;
    call->client = session->client;
    call->socket = session->request_id;
    ids_request(call->request_id);
    memcpy(call->trace_id, session->trace_id, sizeof(call->trace_id));
    memcpy(generation->traceparent, "00-", 3);
    memcpy(generation->traceparent + 3, session->trace_id, TRACE_ID_LEN);
    generation->traceparent[3 + TRACE_ID_LEN] = '-';
    ids_hex(generation->traceparent + 4 + TRACE_ID_LEN, SPAN_ID_LEN);
    memcpy(generation->traceparent + 52, "-00", 4);
    call->traceparent = (struct span){generation->traceparent, 55};
    add_header(generation, SPAN("content-type"), call->content_type);
    add_header(generation, SPAN("accept"), SPAN("text/event-stream"));
    if (generation->chat->credential != NULL)
        add_header(generation, SPAN("authorization"), span_of(generation->chat->credential));
    call->headers = generation->headers;
    call->header_count = generation->header_count;
}

/* What is kept of the request: the body that it becomes, its id, in a conversation the message. False if that is too
 * large. */
static bool fill_body(struct ws_generation *generation, const struct chat_request *request)
{
    const struct config *config = generation->call.site->config;
    struct chat_defaults defaults = {span_of(config->chat.model), span_of(config->chat.system)};
    size_t rest = config->websocket.max_message + config->chat.history + defaults.model.len + defaults.system.len * 6;
    strbuf_init(&generation->body, rest + 1024 < config->max_body ? rest + 1024 : config->max_body);
    chat_request_body(request, &defaults, &generation->chat->history, &generation->body);
    generation->call.body = strbuf_span(&generation->body);
    memcpy(generation->id_text, request->id.base, request->id.len);
    generation->id = (struct span){generation->id_text, request->id.len};
    if (request->kind == CHAT_MESSAGE) {
        strbuf_init(&generation->message, config->websocket.max_message);
        strbuf_add(&generation->message, request->message);
        strbuf_init(&generation->answer, config->chat.history);
    } else {
        strbuf_init(&generation->answer, PLAIN_ANSWER_MAX);
    }
    return !generation->body.overflow;
}

void ws_generation_start(struct ws_chat *chat, const struct chat_request *request)
{
    struct ws_generation *generation = h2o_mem_alloc(sizeof(*generation));
    memset(generation, 0, sizeof(*generation));
    generation->chat = chat;
    generation->reap.cb = on_reap;
    generation->subscriber.on_data = on_data;
    sse_scanner_init(&generation->scanner, EVENT_MAX);
    h2o_linklist_insert(&chat->generations, &generation->link);
    chat->running++;
    fill_call(generation);
    metric_add(chat->session->worker->telemetry.requests_in_flight, 1);
    if (fill_body(generation, request)) {
        call_run(&generation->call); /* it may be over when this returns, but is freed later */
        return;
    }
    struct dialect_error error = {.status = 413, .code = "too_large", .message = "The conversation is too large."};
    call_refuse(&generation->call, "too_large", &error);
}

struct ws_generation *ws_generation_find(const struct ws_chat *chat, struct span id)
{
    for (h2o_linklist_t *link = chat->generations.next; link != &chat->generations; link = link->next) {
        struct ws_generation *generation = H2O_STRUCT_FROM_MEMBER(struct ws_generation, link, link);
        if (span_eq(generation->id, id))
            return generation;
    }
    return NULL;
}

/* ---- the end ---- */

/* Notes what the stream was so far. */
static void note_facts(struct ws_generation *generation)
{
    struct call_record *record = &generation->call.record;
    if (generation->subscriber._stream == NULL)
        return;
    const struct stream_facts *facts = stream_facts(generation->subscriber._stream);
    record->bytes = facts->bytes - stream_unread(&generation->subscriber);
    record->events = facts->events;
    record->whole = facts->terminal || stream_state(generation->subscriber._stream) == STREAM_ENDED;
    if (generation->call.cache.state != CALL_CACHE_HIT) /* whose tokens were counted when they were generated */
        record->usage = facts->usage;
}

/* Lets go of the backend and of everything that others count; what is left is memory. */
static void release(struct ws_generation *generation)
{
    struct call *call = &generation->call;
    struct telemetry *telemetry = &call->worker->telemetry;
    call_end_job(call);
    note_facts(generation);
    stream_unsubscribe(&generation->subscriber);
    completion_end(&generation->completion);
    limit_settle(call);
    telemetry_call_done(call);
    answer_cache_end(call);
    metric_add(telemetry->requests_in_flight, -1);
    if (generation->counted_stream)
        metric_add(telemetry->streams_in_flight, -1);
}

static void destroy(struct ws_generation *generation)
{
    struct call *call = &generation->call;
    deadline_disarm(&call->worker->deadlines, &generation->reap);
    h2o_linklist_unlink(&generation->link);
    sse_scanner_dispose(&generation->scanner);
    strbuf_dispose(&generation->body);
    strbuf_dispose(&generation->answer);
    strbuf_dispose(&generation->message);
    identity_release(call->identity);
    site_release(call->site);
    pool_release(call->pool);
    free(generation);
}

/* It is over. Its memory stays until the loop turns, since this is called from within what it started. */
static void finish(struct ws_generation *generation)
{
    struct ws_chat *chat = generation->chat;
    struct worker *worker = generation->call.worker;
    generation->over = true;
    h2o_linklist_unlink(&generation->link);
    h2o_linklist_insert(&chat->finished, &generation->link);
    chat->running--;
    deadline_arm(&worker->deadlines, &generation->reap, clock_us());
    if (chat->draining && chat->running == 0)
        ws_close(chat->session, WS_CLOSE_GOING_AWAY, SPAN("the gateway is ending"));
}

static void on_reap(struct deadline *deadline)
{
    struct ws_generation *generation = H2O_STRUCT_FROM_MEMBER(struct ws_generation, reap, deadline);
    release(generation);
    destroy(generation);
}

/* Before the client's last event: it may ask again at once, and then everything must be settled. */
static void settle(struct ws_generation *generation, int status, const char *end)
{
    struct call_record *record = &generation->call.record;
    note_facts(generation);
    record->status = status;
    if (record->end == NULL)
        record->end = end;
    limit_settle(&generation->call);
}

static void fail(struct ws_generation *generation, const struct dialect_error *error, unsigned retry_after,
                 const char *end)
{
    if (generation->over)
        return;
    settle(generation, error->status, end);
    ws_chat_error(generation->chat, generation->id, error, retry_after);
    finish(generation);
}

static void done(struct ws_generation *generation)
{
    struct ws_chat *chat = generation->chat;
    char usage[160] = ",\"event\":\"done\",\"usage\":null}";
    settle(generation, generation->status, "finished");
    const struct usage *used = &generation->call.record.usage;
    if (generation->subscriber._stream != NULL) /* a hit's are not counted, but told */
        used = &stream_facts(generation->subscriber._stream)->usage;
    if (used->known)
        snprintf(usage, sizeof(usage),
                 ",\"event\":\"done\",\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,"
                 "\"total_tokens\":%llu}}",
                 (unsigned long long)used->prompt, (unsigned long long)used->completion,
                 (unsigned long long)(used->prompt + used->completion));
    if (generation->message.len != 0 && !generation->answer.overflow)
        chat_history_add(&chat->history, strbuf_span(&generation->message), strbuf_span(&generation->answer));
    struct span pieces[] = {SPAN("{\"id\":"), generation->id, span_of(usage)};
    ws_send(chat->session, WS_TEXT, pieces, 3);
    finish(generation);
}

void ws_generation_cancel(struct ws_generation *generation)
{
    struct dialect_error error = {
        .status = 499, .type = "cancelled", .code = "cancelled", .message = "The client has cancelled the generation."};
    fail(generation, &error, 0, "client_left");
    /* Nothing of it is at work further up the stack: the backend is let go of at once. */
    on_reap(&generation->reap);
}

void ws_generations_resume(struct ws_chat *chat)
{
    h2o_linklist_t *link = chat->generations.next, *next;
    for (; link != &chat->generations && !ws_is_full(chat->session); link = next) {
        struct ws_generation *generation = H2O_STRUCT_FROM_MEMBER(struct ws_generation, link, link);
        next = link->next;
        if (generation->subscriber._stream != NULL) /* else its backend has not answered yet */
            stream_ready(&generation->subscriber);
    }
}

void ws_generations_end(struct ws_chat *chat)
{
    while (!h2o_linklist_is_empty(&chat->finished))
        on_reap(&H2O_STRUCT_FROM_MEMBER(struct ws_generation, link, chat->finished.next)->reap);
    while (!h2o_linklist_is_empty(&chat->generations)) {
        struct ws_generation *generation = H2O_STRUCT_FROM_MEMBER(struct ws_generation, link, chat->generations.next);
        generation->over = true;
        settle(generation, 499, "client_left");
        on_reap(&generation->reap);
    }
}

/* ---- answers that are no streams ---- */

static void on_refuse(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry)
{
    struct dialect_error with_id = *error;
    (void)retry;
    with_id.request_id = call->request_id;
    fail(of_call(call), &with_id, retry_after, call->record.refusal != NULL ? "refused" : "failed");
}

static void send_delta(struct ws_generation *generation, struct span data)
{
    struct span pieces[] = {SPAN("{\"id\":"), generation->id, SPAN(",\"event\":\"delta\",\"data\":"), data, SPAN("}")};
    ws_send(generation->chat->session, WS_TEXT, pieces, 5);
}

static void on_answer(struct call *call, int status, struct span content_type, struct span body)
{
    struct ws_generation *generation = of_call(call);
    (void)content_type;
    generation->status = status;
    if (body.len != 0)
        send_delta(generation, body);
    done(generation);
}

/* The backend's own error: its `error` object, or what it said. */
static void tell_backend_error(struct ws_generation *generation, struct span body, int status)
{
    struct span error;
    char start[48];
    int n = snprintf(start, sizeof(start), ",\"event\":\"error\",\"status\":%d,\"error\":", status);
    if (!chat_chunk_read(body, NULL, &error) || error.len == 0) {
        char message[80];
        snprintf(message, sizeof(message), "The backend answered %d.", status);
        struct dialect_error own = {.status = status, .code = "backend_failed", .message = message};
        fail(generation, &own, 0, "finished");
        return;
    }
    settle(generation, generation->status, "finished");
    struct span pieces[] = {SPAN("{\"id\":"), generation->id, {start, (size_t)n}, error, SPAN("}")};
    ws_send(generation->chat->session, WS_TEXT, pieces, 5);
    finish(generation);
}

/* All of an answer that is no stream is there. */
static void plain_answer_ended(struct ws_generation *generation)
{
    struct span body = strbuf_span(&generation->answer), error;
    if (generation->status != 200) {
        tell_backend_error(generation, body, generation->status);
    } else if (generation->answer.overflow || !chat_chunk_read(body, NULL, &error)) {
        struct dialect_error bad = {
            .status = 502, .code = "backend_failed", .message = "The backend's answer is too large, or no JSON."};
        fail(generation, &bad, 0, "protocol");
    } else {
        send_delta(generation, body);
        done(generation);
    }
}

/* ---- streams ---- */

static void on_stream(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    struct ws_generation *generation = of_call(call);
    generation->status = head->status;
    generation->streamed = head->sse && head->status == 200;
    call->record.status = head->status;
    if (generation->streamed) {
        generation->counted_stream = true;
        metric_add(call->worker->telemetry.streams_in_flight, 1);
    } else {
        strbuf_dispose(&generation->message); /* no turn of the conversation */
        strbuf_dispose(&generation->answer);
        strbuf_init(&generation->answer, PLAIN_ANSWER_MAX);
    }
    if (!stream_subscribe(stream, &generation->subscriber, 0))
        h2o_fatal("a new stream has no beginning");
    /* What is there already, nobody else will tell of. */
    if (stream_unread(&generation->subscriber) != 0 || stream_state(stream) != STREAM_OPEN)
        stream_ready(&generation->subscriber);
}

/* What is not JSON is passed on as a string: the message must stay JSON. */
static void send_text(struct ws_generation *generation, struct span data)
{
    struct strbuf json;
    strbuf_init(&json, EVENT_MAX * 6 + 2);
    strbuf_json(&json, data);
    send_delta(generation, strbuf_span(&json));
    strbuf_dispose(&json);
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct ws_generation *generation = ctx;
    bool talks = generation->message.len != 0;
    struct span error;
    if (generation->over || !event->has_data || span_eq(event->data, SPAN("[DONE]")))
        return;
    if (event->cut) {
        struct dialect_error large = {
            .status = 502, .code = "backend_failed", .message = "The backend sent an event that is too large."};
        fail(generation, &large, 0, "overflow");
    } else if (!chat_chunk_read(event->data, talks ? &generation->answer : NULL, &error)) {
        send_text(generation, event->data);
    } else if (error.len != 0) {
        tell_backend_error(generation, event->data, 502);
    } else {
        send_delta(generation, event->data);
    }
}

/* The stream is over and all of it was read. */
static void stream_over(struct ws_generation *generation)
{
    struct stream *stream = generation->subscriber._stream;
    struct call_record *record = &generation->call.record;
    struct dialect_error error;
    if (stream_state(stream) == STREAM_ENDED) {
        if (generation->streamed)
            done(generation);
        else
            plain_answer_ended(generation);
        return;
    }
    record->failure = stream_failure(stream);
    snprintf(record->problem, sizeof(record->problem), "%s", stream_failure_message(stream));
    telemetry_upstream_error(generation->call.worker, record->backend, record->failure);
    completion_error(record->failure, record->problem, &error);
    error.request_id = generation->call.request_id;
    fail(generation, &error, 0, stream_failure_name(record->failure));
}

/* Times between events, for the histogram; several that came at once share their time. */
static void observe_events(struct ws_generation *generation, const struct stream_facts *facts)
{
    uint64_t events = facts->events - generation->events_seen;
    if (events == 0)
        return;
    for (uint64_t i = 0; generation->events_seen != 0 && i < events && i < SLICES_MAX; i++)
        metric_observe_us(generation->call.worker->telemetry.between_events,
                          (facts->last_event_us - generation->last_event_us) / events);
    generation->events_seen = facts->events;
    generation->last_event_us = facts->last_event_us;
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct ws_generation *generation = H2O_STRUCT_FROM_MEMBER(struct ws_generation, subscriber, subscriber);
    struct ws_chat *chat = generation->chat;
    struct stream *stream = subscriber->_stream;
    struct slice slices[SLICES_MAX];
    const struct stream_facts *facts = stream_facts(stream);
    observe_events(generation, facts);
    if (generation->call.record.first_us == 0)
        generation->call.record.first_us = facts->first_event_us;
    while (!generation->over) {
        if (ws_is_full(chat->session))
            return; /* ws_generations_resume goes on */
        size_t count = stream_peek(subscriber, slices, SLICES_MAX), bytes = 0;
        ws_cork(chat->session);
        for (size_t i = 0; i < count && !generation->over; i++) {
            bytes += slices[i].bytes.len;
            if (generation->streamed)
                sse_scan(&generation->scanner, slices[i].bytes, on_event, generation);
            else
                strbuf_add(&generation->answer, slices[i].bytes);
        }
        ws_uncork(chat->session);
        stream_consume(subscriber, bytes);
        if (generation->over)
            return;
        if (count == 0 && stream_state(stream) != STREAM_OPEN) {
            stream_over(generation);
            return;
        }
        if (count == 0) {
            stream_ready(subscriber);
            return;
        }
    }
}
