/* A backend's stream as an HTTP answer: the stream's subscriber on one side, libh2o's generator on the other. */
#include "base/clock.h"
#include "gateway/http_direct.h"
#include "gateway/http_stream_own.h"
#include "gateway/http_whole.h"
#include "gateway/limit.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <sys/socket.h>

/* The head waits for the first event, but a first event that grows beyond this is let go as it comes. */
#define HOLD_MAX 32768
#define SLICES_MAX HTTP_DIRECT_SLICES
#define OWN_HEADERS 8 /* that most answers have besides the backend's; room for them is made at once */
#define ERROR_EVENT_MAX ((size_t)8192)

/* In the order in which they fire. */
static void on_data(struct stream_subscriber *subscriber);
static void on_proceed(h2o_generator_t *generator, h2o_req_t *req);
static void on_stop(h2o_generator_t *generator, h2o_req_t *req);

/* ---- the head ---- */

/* Headers of a backend's answer that go no further: libh2o writes some itself, others are between weir and the backend.
 */
static bool ends_here(const struct http_call *http, struct span name)
{
    static const struct span names[] = {SPAN("set-cookie"), SPAN("server"), SPAN("date"), SPAN("alt-svc")};
    static const struct span streamed[] = {SPAN("cache-control"), SPAN("x-accel-buffering")};
    static const struct span cors = SPAN("access-control-");
    /* Where weir limits, what it says about limits is what holds. */
    static const struct span limits[] = {SPAN("x-ratelimit-"), SPAN("ratelimit-"), SPAN("anthropic-ratelimit-")};
    for (size_t i = 0; http->call.limits != NULL && i < sizeof(limits) / sizeof(limits[0]); i++)
        if (span_starts(name, limits[i]))
            return true;
    return span_in(name, names, sizeof(names) / sizeof(names[0])) ||
           (http->streamed && span_in(name, streamed, sizeof(streamed) / sizeof(streamed[0]))) ||
           (http->call.site->config->cors.count != 0 && span_starts(name, cors));
}

static void add_stream_headers(struct http_call *http)
{
    http_reply_header(http, SPAN("cache-control"), SPAN("no-cache"));
    http_reply_header(http, SPAN("x-accel-buffering"), SPAN("no"));
}

/* Exactly what is needed: libh2o doubles its room, and a stream keeps both the old and the new as long as it lasts. */
static void make_header_room(h2o_req_t *req, size_t count)
{
    if (req->res.headers.capacity != 0) {
        h2o_vector_reserve(&req->pool, &req->res.headers, req->res.headers.size + count);
        return;
    }
    req->res.headers.entries = h2o_mem_alloc_pool(&req->pool, count * sizeof(req->res.headers.entries[0]));
    req->res.headers.capacity = count;
}

/* Copies the backend's head into libh2o's response; nothing is sent yet. */
static void prepare_head(struct http_call *http, const struct exchange_head *head)
{
    h2o_req_t *req = http->req;
    char *copy = NULL;
    req->res.status = head->status;
    req->res.reason = http_reason(head->status);
    /* Pings and error events may be put into a stream, so no length can be promised. */
    if (head->content_length != UINT64_MAX && !http->streamed) {
        req->res.content_length = (size_t)head->content_length;
        http_whole_begin(http, head->content_length);
    }
    if (!http_whole_begun(http)) {
        size_t size = 0;
        for (size_t i = 0; i < head->header_count; i++)
            size += head->headers[i].name.len + head->headers[i].value.len;
        copy = h2o_mem_alloc_pool(&req->pool, size);
        make_header_room(req,
                         head->header_count + OWN_HEADERS + (limit_has_headers(&http->call) ? LIMIT_HEADERS_COUNT : 0));
    }
    for (size_t i = 0; i < head->header_count; i++) {
        struct span name = head->headers[i].name, value = head->headers[i].value;
        if (ends_here(http, name))
            continue;
        if (span_eq(name, SPAN("x-request-id")))
            name = SPAN("x-upstream-request-id");
        else if (copy != NULL)
            name = (struct span){memcpy(copy, name.base, name.len), name.len}, copy += name.len;
        if (copy != NULL) {
            value = (struct span){memcpy(copy, value.base, value.len), value.len};
            copy += value.len;
        }
        http_reply_header(http, name, value);
    }
    if (http->streamed)
        add_stream_headers(http);
    http_reply_common_headers(http);
    http->head_ready = true;
    http->call.record.status = head->status;
}

static void start(struct http_call *http)
{
    struct worker *worker = http->call.worker;
    http->generator = (h2o_generator_t){on_proceed, on_stop};
    http->sent_us = clock_us();
    /* HTTP/1.0 knows no chunks: the end of the connection is the end of the body (RFC 9112 §6.3). */
    if (http->req->version < 0x101 && http->req->res.content_length == SIZE_MAX)
        http->req->http1_is_persistent = 0;
    http_reply_start(http);
    if (!http->streamed)
        return;
    http->counted_stream = true;
    metric_add(worker->telemetry.streams_in_flight, 1);
}

bool http_stream_start_early(struct http_call *http)
{
    if (http->head_ready ? !http->streamed || http->req->res.status != 200 : completion_is_plain(&http->completion))
        return false;
    if (!http->head_ready) {
        http->streamed = true;
        http->req->res.status = 200;
        http->req->res.reason = http_reason(200);
        http->call.record.status = 200;
        http_reply_header(http, SPAN("content-type"), SPAN("text/event-stream; charset=utf-8"));
        add_stream_headers(http);
        http_reply_common_headers(http);
    }
    start(http);
    return true;
}

/* Notes what the stream was so far. */
static void note_facts(struct http_call *http)
{
    const struct stream_facts *facts = stream_facts(http->subscriber._stream);
    http->call.record.bytes = facts->bytes - stream_unread(&http->subscriber) + http->in_flight;
    http->call.record.events = facts->events;
    http->call.record.whole = facts->terminal || stream_state(http->subscriber._stream) == STREAM_ENDED;
    if (http->call.cache.state != CALL_CACHE_HIT) /* whose tokens were counted when they were generated */
        http->call.record.usage = facts->usage;
}

void http_stream_stop_reading(struct http_call *http)
{
    if (http->subscriber._stream == NULL)
        return;
    note_facts(http);
    const struct stream_facts *facts = stream_facts(http->subscriber._stream);
    /* What is in flight does not count: a client that leaves before it is written has not had it. */
    http->had_everything = facts->terminal && stream_unread(&http->subscriber) == 0;
    stream_stop_reading(&http->subscriber);
}

/* ---- the body ---- */

void http_stream_begin(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, call, call);
    http->subscriber.on_data = on_data;
    if (http->phase == HTTP_STREAMING && (head->status != 200 || !head->sse)) {
        /* Committed to a stream by early_head; what came instead can only be told as an error in it. */
        char message[100];
        snprintf(message, sizeof(message), "The backend answered %d instead of a stream.", head->status);
        struct dialect_error error = {
            .status = head->status >= 400 ? head->status : 502, .code = "backend_failed", .message = message};
        http_stream_fail(http, &error);
        return;
    }
    if (http->phase == HTTP_WAITING) {
        http->streamed = head->sse;
        prepare_head(http, head);
    }
    if (!stream_subscribe(stream, &http->subscriber, 0))
        h2o_fatal("a new stream has no beginning");
    if (stream_state(stream) != STREAM_OPEN || stream_facts(stream)->bytes != 0)
        stream_ready(&http->subscriber); /* a replay, or it was held back: nobody else will say that it is there */
}

/* Times between events, for the histogram; several that came at once share their time. */
static void observe_events(struct http_call *http, const struct stream_facts *facts)
{
    uint64_t events = facts->events - http->events_seen;
    if (events == 0)
        return;
    if (http->events_seen != 0) {
        uint64_t each = (facts->last_event_us - http->last_event_us) / events;
        for (uint64_t i = 0; i < events && i < SLICES_MAX; i++)
            metric_observe_us(http->call.worker->telemetry.between_events, each);
    }
    http->events_seen = facts->events;
    http->last_event_us = facts->last_event_us;
}

static void send_final(struct http_call *http, h2o_iovec_t *out, size_t count, h2o_send_state_t state)
{
    http->phase = HTTP_ENDED;
    if (http->subscriber._stream != NULL && !http->subscriber.passive)
        note_facts(http);
    limit_settle(&http->call);
    http->sent_us = clock_us();
    http_stream_watch_end(http);
    if (http->call.record.end == NULL)
        http->call.record.end = "finished";
    h2o_req_t *req = http->req;
    bool learn = http_whole_unlearned() && req->version == 0x101 && state == H2O_SEND_STATE_FINAL && count != 0;
    h2o_socket_t *sock = learn ? req->conn->callbacks->get_socket(req->conn) : NULL;
    /* Nothing of `http` may be touched after this: the request may be gone. */
    h2o_send(req, out, count, state);
    if (learn)
        http_whole_learn(sock);
}

/* The answer is there before anything of it was sent: it goes out in one piece, if it is such a one. */
static bool send_whole(struct http_call *http)
{
    struct stream *stream = http->subscriber._stream;
    struct slice slices[SLICES_MAX];
    size_t length = stream_unread(&http->subscriber);
    if (stream_state(stream) != STREAM_ENDED || !http_whole_ready(http, length))
        return false;
    size_t count = stream_peek(&http->subscriber, slices, SLICES_MAX), peeked = 0;
    for (size_t i = 0; i < count; i++)
        peeked += slices[i].bytes.len;
    if (peeked != length)
        return false;
    struct call_record *record = &http->call.record;
    const struct stream_facts *facts = stream_facts(stream);
    http->phase = HTTP_ENDED;
    http->in_flight = length;
    http->sent_us = clock_us();
    if (record->first_us == 0)
        record->first_us = facts->first_event_us != 0 ? facts->first_event_us : http->sent_us;
    note_facts(http);
    limit_settle(&http->call);
    if (record->end == NULL)
        record->end = "finished";
    if (!http_whole_send(http, slices, count, length))
        http_stream_watch_end(http);
    return true;
}

void http_stream_fail(struct http_call *http, const struct dialect_error *error)
{
    if (http->phase == HTTP_ENDED || http->stalled)
        return;
    struct strbuf event;
    struct dialect_error named = *error;
    named.request_id = http->call.request_id;
    strbuf_init(&event, ERROR_EVENT_MAX);
    dialect_error_event(dialect_get(http->call.route->route.dialect), &named, http->events_seen, &event);
    h2o_iovec_t out = h2o_strdup(&http->req->pool, event.base, event.len);
    strbuf_dispose(&event);
    if (http->sending) {
        http->last_words = out; /* on_proceed sends them */
        return;
    }
    send_final(http, &out, 1, H2O_SEND_STATE_FINAL);
}

/* The stream broke after its head went out: said in the stream if it stands between two events, else by cutting it off.
 */
static void tell_broken(struct http_call *http)
{
    struct stream *stream = http->subscriber._stream;
    struct call_record *record = &http->call.record;
    struct dialect_error error;
    record->failure = stream_failure(stream);
    record->end = stream_failure_name(record->failure);
    snprintf(record->problem, sizeof(record->problem), "%s", stream_failure_message(stream));
    if (http->streamed && stream_ends_at_boundary(stream)) {
        if (stream_facts(stream)->error_event) { /* the backend has told already */
            send_final(http, NULL, 0, H2O_SEND_STATE_FINAL);
            return;
        }
        completion_error(record->failure, record->problem, &error);
        error.request_id = http->call.request_id;
        http_stream_fail(http, &error);
        return;
    }
    h2o_req_t *req = http->req;
    if (req->version < 0x101) {
        /* Without chunks or a length only a reset tells a client that its answer is not whole. */
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn)), SOL_SOCKET, SO_LINGER, &linger,
                   sizeof(linger));
    }
    send_final(http, NULL, 0, H2O_SEND_STATE_ERROR);
}

/* Whether the head may go out: at the first complete event, or when there is no telling of events. */
static bool head_may_go(const struct http_call *http)
{
    const struct stream *stream = http->subscriber._stream;
    if (!http->streamed || http->req->res.status != 200)
        return stream_facts(stream)->bytes != 0 || stream_state(stream) == STREAM_ENDED;
    return stream_facts(stream)->events != 0 || stream_facts(stream)->bytes >= HOLD_MAX ||
           stream_state(stream) == STREAM_ENDED;
}

/* Lets the held head go out, if it may. False: it waits, the stream broke before it, or all of the answer went with it.
 */
static bool release_head(struct http_call *http)
{
    struct stream *stream = http->subscriber._stream;
    struct call_record *record = &http->call.record;
    if (head_may_go(http)) {
        deadline_disarm(&http->call.worker->deadlines, &http->deadline);
        if (send_whole(http))
            return false;
        start(http);
        return true;
    }
    if (stream_state(stream) != STREAM_BROKEN) {
        stream_wait(&http->subscriber);
        return false;
    }
    record->failure = stream_failure(stream);
    snprintf(record->problem, sizeof(record->problem), "%s", stream_failure_message(stream));
    telemetry_upstream_error(http->call.worker, record->backend, record->failure);
    completion_failed(&http->call, record->failure, record->problem);
    return false;
}

/* What was in flight has left: on with what has come since. */
static void sent(struct http_call *http)
{
    size_t bytes = http->in_flight;
    http->in_flight = 0;
    stream_consume(&http->subscriber, bytes);
    stream_ready(&http->subscriber);
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, subscriber, subscriber);
    struct stream *stream = subscriber->_stream;
    const struct stream_facts *facts = stream_facts(stream);
    struct slice slices[SLICES_MAX];
    h2o_iovec_t out[SLICES_MAX];

    observe_events(http, facts);
    if (http->phase == HTTP_WAITING && !release_head(http))
        return;
    if (http->sending || http->phase == HTTP_ENDED)
        return; /* on_proceed comes back here */
    size_t count = stream_peek(subscriber, slices, SLICES_MAX);
    if (count == 0 && stream_state(stream) == STREAM_OPEN) {
        stream_wait(subscriber);
        return;
    }
    if (count == 0 && stream_state(stream) == STREAM_BROKEN) {
        telemetry_upstream_error(http->call.worker, http->call.record.backend, stream_failure(stream));
        tell_broken(http);
        return;
    }
    /* The last piece of a plain answer waits for the end, which comes with it: a client that has it all may ask again
     * at once, and then everything must be settled and stored. */
    if (stream_state(stream) == STREAM_OPEN && http->req->res.content_length == facts->bytes) {
        stream_wait(subscriber);
        return;
    }
    http->in_flight = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = h2o_iovec_init(slices[i].bytes.base, slices[i].bytes.len);
        http->in_flight += slices[i].bytes.len;
    }
    if (http->call.record.first_us == 0)
        http->call.record.first_us = facts->first_event_us != 0 ? facts->first_event_us : clock_us();
    bool all = http->in_flight == stream_unread(subscriber);
    if (all && facts->terminal) {
        note_facts(http);
        limit_settle(&http->call);
    }
    if (all && stream_state(stream) == STREAM_ENDED) {
        send_final(http, out, count, H2O_SEND_STATE_FINAL);
        return;
    }
    http->sending = true;
    http->sent_us = clock_us();
    if (!deadline_armed(&http->deadline))
        http_stream_arm(http);
    switch (all ? http_direct_send(http, slices, count, http->in_flight) : HTTP_DIRECT_NOT) {
    case HTTP_DIRECT_NOT:
        h2o_send(http->req, out, count, H2O_SEND_STATE_IN_PROGRESS);
        break;
    case HTTP_DIRECT_DONE:
        http->sending = false;
        sent(http);
        break;
    case HTTP_DIRECT_BEGUN:
        break;
    }
}

static void on_proceed(h2o_generator_t *generator, h2o_req_t *req)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, generator, generator);
    (void)req;
    http->sending = false;
    http->head_sent = true;
    if (http->stalled || http->client_gone) {
        send_final(http, NULL, 0, H2O_SEND_STATE_ERROR);
        return;
    }
    if (http->last_words.len != 0) {
        send_final(http, &http->last_words, 1, H2O_SEND_STATE_FINAL);
        return;
    }
    if (http->subscriber._stream == NULL || http->subscriber.passive)
        return; /* only a ping, before the backend answered, or the end is near */
    sent(http);
}

/* ---- ends ---- */

static void on_stop(h2o_generator_t *generator, h2o_req_t *req)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, generator, generator);
    (void)req;
    http_stream_leave(http);
}

void http_stream_leave(struct http_call *http)
{
    if (!http->subscriber.passive)
        http_stream_stop_reading(http);
    stream_unsubscribe(&http->subscriber);
}

void http_stream_abort(struct http_call *http)
{
    struct dialect_error error = {.status = 503,
                                  .code = "gateway_ending",
                                  .message = "The gateway is shutting down.",
                                  .request_id = http->call.request_id};
    if (http->phase == HTTP_WAITING) {
        call_end_job(&http->call);
        completion_end(&http->completion);
        http_stream_stop_reading(http);
        http->call.record.end = "drained";
        http_reply_refuse(&http->call, &error, 1, 0);
        return;
    }
    if (http->phase != HTTP_STREAMING || http->stalled || http->client_gone)
        return;
    call_end_job(&http->call); /* with an early head it may still wait */
    completion_end(&http->completion);
    http->call.record.end = "drained";
    bool between_events = http->streamed && (http->subscriber._stream == NULL || stream_at_boundary(&http->subscriber));
    http_stream_stop_reading(http);
    if (between_events) {
        http_stream_fail(http, &error);
    } else if (!http->sending) {
        send_final(http, NULL, 0, H2O_SEND_STATE_ERROR);
    }
}

void http_stream_client_gone(struct http_call *http)
{
    h2o_req_t *req = http->req;
    http->client_gone = true;
    call_end_job(&http->call);
    completion_end(&http->completion);
    http_stream_stop_reading(http);
    req->http1_is_persistent = 0;
    if (http->phase == HTTP_ENDED)
        return;
    deadline_disarm(&http->call.worker->deadlines, &http->deadline);
    if (http->phase == HTTP_WAITING) {
        /* libh2o closes a connection only after an answer; this one is for nobody, and the log says 499. */
        shutdown(h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn)), SHUT_RDWR);
        memset(&req->res.headers, 0, sizeof(req->res.headers));
        http->phase = HTTP_ENDED;
        h2o_send_error_generic(req, 499, http_reason(499), "", H2O_SEND_ERROR_HTTP1_CLOSE_CONNECTION);
        return;
    }
    h2o_socket_t *sock = req->conn->callbacks->get_socket(req->conn);
    if (http->sending || h2o_socket_is_writing(sock))
        shutdown(h2o_socket_get_fd(sock), SHUT_RDWR); /* libh2o closes when its write fails */
    else
        send_final(http, NULL, 0, H2O_SEND_STATE_ERROR);
}
