#include "gateway/attempt.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/recycle.h"
#include "base/units.h"
#include "gateway/answer_cache.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <stdio.h>
#include <stdlib.h>

#define MODEL_JSON_MAX ((size_t)4096)
#define HOLD_MAX 32768 /* a first event that grows beyond this is let go as it comes */

/* An answer's head, copied. */
struct held_head {
    struct exchange_head head;
    struct header headers[];
};

struct attempt {
    unsigned refs;     /* the completion's and the exchange's */
    struct call *call; /* NULL: let go of */
    struct worker *worker;
    const struct attempt_callbacks *callbacks;
    void *ctx;
    char backend[BACKEND_NAME_MAX + 1]; /* its name, which outlives the lease */
    struct pool_lease lease;
    struct exchange *exchange;      /* until its head has come */
    struct stream_subscriber probe; /* keeps the stream from its beginning while it is held */
    struct held_head *held;
    struct strbuf model; /* another name for the model, as JSON, for as long as the request is being sent */
    struct metric_series *in_flight;
    bool starting;           /* attempt_start is on the stack */
    bool failed;             /* and it failed meanwhile */
    bool own_deadline;       /* the client's deadline comes before the backend's */
    bool clients_credential; /* it was asked with what the client brought */
    bool judged;             /* the server's health knows */
    bool error;              /* the answer is one: that it comes whole shows nothing */
    bool ready, refused, delivered;
};

/* In the order in which they fire. */
static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream);
static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent);
static void on_data(struct stream_subscriber *subscriber);
static void on_over(void *ctx, enum stream_failure why, const struct stream *stream);

static __thread struct recycle recycled;

static void release(struct attempt *attempt, unsigned count)
{
    attempt->refs -= count;
    if (attempt->refs != 0)
        return;
    strbuf_dispose(&attempt->model);
    free(attempt->held);
    recycle_give(&recycled, attempt);
}

/* The exchange is over. */
static void leave_server(struct attempt *attempt)
{
    metric_add(attempt->in_flight, -1);
    pool_lease_end(&attempt->lease);
}

/* ---- the start ---- */

static bool brings_credential(const struct call *call, const struct exchange_request *request,
                              const struct backend_settings *settings)
{
    return request->forward_credentials && settings->api_key == NULL &&
           (call_header(call, SPAN("authorization")).len != 0 || call_header(call, SPAN("x-api-key")).len != 0 ||
            call_header(call, SPAN("api-key")).len != 0);
}

static struct metric_series *series_of(struct worker *worker, const struct pool_lease *lease)
{
    const char *pattern;
    void **tag = pool_lease_tag(lease, &pattern);
    if (*tag == NULL)
        *tag = telemetry_backend_in_flight(worker, pool_lease_name(lease), pattern);
    return *tag;
}

struct attempt *attempt_start(struct call *call, struct pool_lease *lease, const struct backend_timeouts *timeouts,
                              uint64_t deadline_us, const struct attempt_callbacks *callbacks, void *ctx)
{
    static const struct exchange_callbacks exchange_callbacks = {
        .on_head = on_head, .on_fail = on_fail, .on_over = on_over};
    struct upstream *upstream = pool_lease_upstream(lease);
    struct attempt *attempt = recycle_take(&recycled, sizeof(*attempt));
    *attempt = (struct attempt){.refs = 2,
                                .call = call,
                                .worker = call->worker,
                                .callbacks = callbacks,
                                .ctx = ctx,
                                .lease = *lease,
                                .probe.on_data = on_data,
                                .in_flight = series_of(call->worker, lease),
                                .starting = true};
    backend_name_copy(attempt->backend, pool_lease_name(lease));
    memset(lease, 0, sizeof(*lease));
    strbuf_init(&attempt->model, MODEL_JSON_MAX);
    metric_add(attempt->in_flight, 1);
    struct header headers[call->header_count + ATTEMPT_EXTRA_HEADERS];
    struct exchange_request request;
    attempt_request(call, headers, &request);
    bool ask = upstream_settings(upstream)->usage == BACKEND_USAGE_ASK;
    attempt_request_body(call, pool_lease_model(&attempt->lease), ask, &attempt->model, &request);
    request.timeouts = timeouts;
    request.deadline_us = deadline_us;
    attempt->own_deadline = deadline_us != 0 && (timeouts->total == 0 || deadline_us < clock_us() + timeouts->total);
    attempt->clients_credential = brings_credential(call, &request, upstream_settings(upstream));
    struct exchange *exchange = exchange_start(upstream, &request, &exchange_callbacks, attempt);
    attempt->starting = false;
    if (attempt->failed) {
        release(attempt, 1);
        return NULL;
    }
    attempt->exchange = exchange;
    return attempt;
}

/* ---- failures ---- */

/* Whether a failure says something about the server. */
static bool counts(const struct attempt *attempt, enum stream_failure why)
{
    switch (why) {
    case STREAM_NOT_FAILED:
    case STREAM_CANCELLED:
    case STREAM_OVERFLOW:
        return false;
    case STREAM_TIMEOUT_TOTAL:
        return !attempt->own_deadline && !attempt->delivered;
    default:
        return true;
    }
}

static void judge(struct attempt *attempt, enum health_failure failure, const char *problem)
{
    if (!attempt->judged)
        pool_lease_failed(&attempt->lease, failure, problem, clock_us());
    attempt->judged = true;
}

/* Tells the completion, which lets go: its count is the caller's to drop, or attempt_start's. */
static void tell_failed(struct attempt *attempt, enum stream_failure why, const char *message, bool sent)
{
    const struct attempt_callbacks *callbacks = attempt->callbacks;
    attempt->call = NULL;
    attempt->failed = true;
    callbacks->on_fail(attempt->ctx, attempt, why, message, sent);
}

static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent)
{
    struct attempt *attempt = ctx;
    char problem[160];
    snprintf(problem, sizeof(problem), "%s", message != NULL ? message : stream_failure_name(why));
    attempt->exchange = NULL;
    telemetry_upstream_error(attempt->worker, attempt->backend, why);
    /* A request that is not fit to be sent is no fault of the server's. */
    if (counts(attempt, why) && (sent || why != STREAM_PROTOCOL))
        judge(attempt, HEALTH_NO_START, problem);
    leave_server(attempt);
    tell_failed(attempt, why, problem, sent);
    release(attempt, attempt->starting ? 1 : 2);
}

/* ---- the answer, held back ---- */

static struct span put(char **to, struct span bytes)
{
    struct span copy = {*to, bytes.len};
    if (bytes.len != 0)
        memcpy(*to, bytes.base, bytes.len);
    *to += bytes.len;
    return copy;
}

static struct held_head *hold_head(const struct exchange_head *head)
{
    size_t size = head->header_count * sizeof(head->headers[0]);
    for (size_t i = 0; i < head->header_count; i++)
        size += head->headers[i].name.len + head->headers[i].value.len;
    struct held_head *held = h2o_mem_alloc(sizeof(*held) + size);
    char *at = (char *)&held->headers[head->header_count];
    for (size_t i = 0; i < head->header_count; i++)
        held->headers[i] = (struct header){put(&at, head->headers[i].name), put(&at, head->headers[i].value)};
    held->head = *head;
    held->head.headers = held->headers;
    return held;
}

static struct span head_value(const struct exchange_head *head, struct span name)
{
    for (size_t i = 0; i < head->header_count; i++)
        if (span_eq(head->headers[i].name, name))
            return head->headers[i].value;
    return SPAN_NONE;
}

/* Retry-After in seconds (RFC 9110 §10.2.3), or Retry-After-Ms where a server is so kind; 0: none that can be read. A
 * date is taken for none: it needs two clocks that agree. */
static uint64_t retry_after_us(const struct exchange_head *head)
{
    uint64_t number;
    struct span ms = head_value(head, SPAN("retry-after-ms")), seconds = head_value(head, SPAN("retry-after"));
    if (units_number(ms, 86400000, &number))
        return number * 1000;
    /* Some send a fraction. */
    const char *dot = seconds.len != 0 ? memchr(seconds.base, '.', seconds.len) : NULL;
    bool fraction = dot != NULL;
    if (fraction)
        seconds.len = (size_t)(dot - seconds.base);
    return units_number(seconds, 86400, &number) ? (number + fraction) * 1000000 : 0;
}

/* What a status says about the server. 429 and what the client did wrong never count against it; one that asks for a
 * pause, or is too busy, gets one. A limit on the client's own credential is between it and the server. */
static void judge_status(struct attempt *attempt, const struct exchange_head *head)
{
    uint64_t pause_us = retry_after_us(head), now = clock_us();
    char problem[32];
    bool busy = head->status == 503 || head->status == 529;
    snprintf(problem, sizeof(problem), "status %d", head->status);
    if (head->status == 429 ? pause_us != 0 && !attempt->clients_credential : busy)
        pool_lease_pause(&attempt->lease, pause_us, now);
    if (head->status >= 500 && !(busy && pause_us != 0))
        judge(attempt, HEALTH_NO_START, problem);
    attempt->judged = true;
    telemetry_upstream_refused(attempt->worker, attempt->backend, head->status);
}

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream)
{
    struct attempt *attempt = ctx;
    attempt->exchange = NULL;
    if (attempt->call == NULL)
        return; /* dropped: nobody subscribes, and the exchange ends itself */
    /* 501 and 505 are about the request. */
    attempt->error = head->status >= 400;
    attempt->refused = head->status == 429 || (head->status >= 500 && head->status != 501 && head->status != 505);
    if (attempt->refused)
        judge_status(attempt, head);
    else if (!head->sse || head->status != 200)
        pool_lease_answered(&attempt->lease, false, clock_us());
    attempt->held = hold_head(head);
    stream_subscribe(stream, &attempt->probe, 0);
}

/* Whether the answer may go: at its first complete event, or byte where there is no telling of events. */
static bool may_go(const struct attempt *attempt)
{
    const struct stream *stream = attempt->probe._stream;
    const struct stream_facts *facts = stream_facts(stream);
    if (stream_state(stream) == STREAM_ENDED)
        return true;
    if (!attempt->held->head.sse || attempt->held->head.status != 200)
        return facts->bytes != 0;
    return facts->events != 0 || facts->bytes >= HOLD_MAX;
}

/* The stream has its first event, or whatever else makes it fit to go. */
static void note_begun(struct attempt *attempt)
{
    if (attempt->held->head.sse && !attempt->refused && attempt->lease.begun_us != 0)
        pool_lease_answered(&attempt->lease, true, clock_us());
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct attempt *attempt = H2O_STRUCT_FROM_MEMBER(struct attempt, probe, subscriber);
    struct stream *stream = subscriber->_stream;
    if (attempt->ready)
        return; /* a refusal that is kept */
    if (may_go(attempt)) {
        attempt->ready = true;
        note_begun(attempt);
        attempt->callbacks->on_ready(attempt->ctx, attempt, attempt->refused);
        return;
    }
    if (stream_state(stream) != STREAM_BROKEN) {
        stream_wait(subscriber);
        return;
    }
    enum stream_failure why = stream_failure(stream);
    char problem[160];
    snprintf(problem, sizeof(problem), "%s", stream_failure_message(stream));
    telemetry_upstream_error(attempt->worker, attempt->backend, why);
    stream_unsubscribe(subscriber);
    tell_failed(attempt, why, problem, true);
    release(attempt, 1);
}

/* What the stream will say of itself once it is over. */
static enum stream_failure verdict(enum stream_failure why, const struct stream *stream)
{
    const struct stream_facts *facts = stream_facts(stream);
    if (why == STREAM_NOT_FAILED && stream_is_sse(stream) && !facts->terminal &&
        dialect_has_terminal(stream_dialect(stream)))
        return STREAM_UNTERMINATED;
    return why;
}

static void on_over(void *ctx, enum stream_failure why, const struct stream *stream)
{
    struct attempt *attempt = ctx;
    why = verdict(why, stream);
    unsigned long long events = stream_facts(stream)->events;
    /* Of an answer that came whole, in one piece, the probe is told next. */
    bool begins = attempt->probe._stream != NULL && !attempt->ready && !attempt->refused && may_go(attempt);
    bool begun = attempt->delivered || begins;
    if (begins)
        note_begun(attempt);
    if (why == STREAM_NOT_FAILED) {
        if (!attempt->error)
            pool_lease_finished(&attempt->lease);
    } else if (counts(attempt, why)) {
        char problem[120];
        snprintf(problem, sizeof(problem), "%s after %llu event%s", stream_failure_name(why), events,
                 events == 1 ? "" : "s");
        judge(attempt, begun ? HEALTH_DEATH : HEALTH_NO_START, problem);
    }
    if (begun && counts(attempt, why)) {
        struct log_line line;
        log_begin(&line, LOG_WARN, "backend broke off an answer");
        log_str(&line, "backend", span_of(attempt->backend));
        log_str(&line, "problem", span_of(stream_failure_name(why)));
        log_int(&line, "events", (int64_t)events);
        log_end(&line);
    }
    leave_server(attempt);
    release(attempt, 1);
}

/* ---- ends ---- */

void attempt_deliver(struct attempt *attempt)
{
    struct call *call = attempt->call;
    struct stream *stream = attempt->probe._stream;
    attempt->call = NULL;
    attempt->delivered = true;
    answer_cache_store(call, &attempt->held->head, stream);
    call_stream(call, &attempt->held->head, stream);
    /* Only now, or the exchange would be without a reader. */
    stream_unsubscribe(&attempt->probe);
    free(attempt->held); /* a stream may be open for long */
    attempt->held = NULL;
    release(attempt, 1);
}

void attempt_drop(struct attempt *attempt)
{
    attempt->call = NULL;
    if (attempt->exchange != NULL) {
        exchange_cancel(attempt->exchange);
        attempt->exchange = NULL;
        leave_server(attempt);
        release(attempt, 2);
        return;
    }
    stream_unsubscribe(&attempt->probe);
    release(attempt, 1);
}

bool attempt_is_plain(const struct attempt *attempt)
{
    return attempt->held != NULL && (!attempt->held->head.sse || attempt->held->head.status != 200);
}

int attempt_status(const struct attempt *attempt)
{
    return attempt->held->head.status;
}

const char *attempt_backend(const struct attempt *attempt)
{
    return attempt->backend;
}
