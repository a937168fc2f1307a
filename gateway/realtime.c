#include "gateway/realtime.h"
#include "base/clock.h"
#include "base/query.h"
#include "gateway/completion.h"
#include "gateway/realtime_gate.h"
#include "gateway/realtime_request.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include "gateway/ws_backend.h"
#include "gateway/ws_bridge.h"
#include <stdio.h>

#define HELD_MAX (2 * WS_PAUSE_SLACK)
#define EVENT_MAX ((size_t)4096)
#define QUIET_US 1000000 /* a conversation in which nobody speaks for so long may be ended by a drain */

/* A piece of the client's that waits for a limit's decision. */
struct held {
    struct held *next;
    struct ws_piece piece; /* whose bytes follow */
    char bytes[];
};

struct realtime {
    struct call_job job;
    struct call *call; /* until the client has its 101 */
    struct worker *worker;
    struct pool *pool; /* counted: the call's */
    struct pool_walk walk;
    struct pool_hint hint;
    struct pool_lease lease;          /* the place on the backend, as long as the session lasts */
    struct metric_series *in_flight;  /* of the backend, while there is a lease */
    struct ws_session *session;       /* NULL: not yet */
    struct ws_backend *backend;       /* NULL: not yet, or no more */
    struct backend_timeouts timeouts; /* the backend's */
    struct deadline deadline;         /* the next of: idle, total, a quiet moment to end in */
    uint64_t started_us, active_us;
    bool draining;

    /* Messages of the client's. */
    struct realtime_gate gate;
    bool deciding; /* the gate has been asked about the first of those that are held */
    bool dropping; /* the present one did not pass */
    bool backend_full,
        client_full; /* why the client is not read: what takes its messages, or what it is told, is full */
    struct held *held, **held_last;
    size_t held_bytes;

    bool in_message;     /* of the backend's: nothing of weir's own may be said to the client */
    struct strbuf event; /* what is to be said after it */
};

/* In the order in which they fire. */
static void try_next(struct realtime *realtime);
static void on_failed(void *ctx, enum stream_failure why, int status, const char *message);
static void on_call_end(struct call_job *job);
static void on_backend_opened(void *ctx, struct span protocol);
static void on_client_opened(struct ws_session *session);
static void on_client_message(struct ws_session *session, const struct ws_piece *piece);
static void on_decided(void *ctx, bool open);
static void on_backend_writable(void *ctx);
static void on_backend_message(void *ctx, const struct ws_piece *piece);
static void on_client_writable(struct ws_session *session);
static void on_drain(struct ws_session *session);
static void on_deadline(struct deadline *deadline);
static void on_backend_closed(void *ctx, unsigned code, struct span reason);
static void on_client_closed(struct ws_session *session, unsigned code, struct span reason);

static const struct ws_backend_callbacks backend_callbacks = {
    .opened = on_backend_opened,
    .failed = on_failed,
    .message = on_backend_message,
    .writable = on_backend_writable,
    .closed = on_backend_closed,
};

static const struct ws_session_type session_type = {
    .name = "realtime",
    .opened = on_client_opened,
    .message = on_client_message,
    .writable = on_client_writable,
    .drain = on_drain,
    .closed = on_client_closed,
};

/* ---- the question ---- */

void realtime_prepare(struct call *call)
{
    struct span raw;
    char decoded[CALL_MODEL_MAX * 3];
    if (call->model_len != 0 || call->model_unsure || !query_last(call->query, SPAN("model"), &raw) || raw.len == 0)
        return;
    size_t n = raw.len <= sizeof(decoded) ? query_decode(raw, decoded) : SIZE_MAX;
    if (n > sizeof(call->model) || !query_is_utf8((struct span){decoded, n}, NULL)) {
        call->model_unsure = true;
        return;
    }
    memcpy(call->model, decoded, n);
    call->model_len = n;
}

static void refuse(struct call *call, int status, const char *code, const char *param, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .param = param, .message = message};
    call_refuse(call, code, &error);
}

/* Gives the place on the backend back. */
static void leave_backend(struct realtime *realtime)
{
    if (realtime->in_flight != NULL)
        metric_add(realtime->in_flight, -1);
    realtime->in_flight = NULL;
    pool_lease_end(&realtime->lease);
}

static void destroy(struct realtime *realtime)
{
    leave_backend(realtime);
    pool_walk_end(realtime->pool, &realtime->walk);
    pool_release(realtime->pool);
    deadline_disarm(&realtime->worker->deadlines, &realtime->deadline);
    if (realtime->started_us != 0)
        realtime_gate_dispose(&realtime->gate);
    while (realtime->held != NULL) {
        struct held *held = realtime->held;
        realtime->held = held->next;
        free(held);
    }
    strbuf_dispose(&realtime->event);
    free(realtime);
}

void handle_realtime(struct call *call)
{
    if (!ws_handshake_check(call))
        return;
    realtime_prepare(call);
    if (call->model_unsure) {
        refuse(call, 400, "invalid_model", "model", "'model' is too long or is not valid UTF-8.");
        return;
    }
    if (!call_may_use_model(call)) {
        refuse(call, 403, "model_not_allowed", "model", "This API key may not use this model.");
        return;
    }
    struct realtime *realtime = h2o_mem_alloc(sizeof(*realtime));
    *realtime = (struct realtime){
        .job.end = on_call_end, .call = call, .worker = call->worker, .pool = pool_retain(call->pool)};
    realtime->deadline.cb = on_deadline;
    realtime->held_last = &realtime->held;
    strbuf_init(&realtime->event, EVENT_MAX);
    call->job = &realtime->job;
    completion_hint(call, &realtime->hint);
    pool_walk_start(call->pool, &realtime->walk, call_model(call), call->route->proxy);
    try_next(realtime);
}

/* ---- finding a backend ---- */

/* Takes a place on the next backend that could have a WebSocket. POOL_UNKNOWN also if no backend could. */
static enum pool_result next_backend(struct realtime *realtime)
{
    const char *pattern;
    bool passed_by = false;
    for (;;) {
        enum pool_result result =
            pool_walk_next(realtime->pool, &realtime->walk, &realtime->hint, &realtime->lease, clock_us());
        if (result != POOL_CHOSEN)
            return result == POOL_NONE && passed_by ? POOL_UNKNOWN : result;
        if (upstream_settings(pool_lease_upstream(&realtime->lease))->url.kind == BACKEND_HTTP)
            break;
        passed_by = true;
        pool_lease_end(&realtime->lease);
    }
    void **tag = pool_lease_tag(&realtime->lease, &pattern);
    if (*tag == NULL)
        *tag = telemetry_backend_in_flight(realtime->worker, pool_lease_name(&realtime->lease), pattern);
    realtime->in_flight = *tag;
    metric_add(realtime->in_flight, 1);
    return POOL_CHOSEN;
}

/* Ends before the client has got anything; the call is refused next. */
static struct call *let_go(struct realtime *realtime)
{
    struct call *call = realtime->call;
    call->job = NULL;
    destroy(realtime);
    return call;
}

/* There is no backend, or none that is left. */
static void give_up(struct realtime *realtime, enum pool_result why)
{
    struct call *call = let_go(realtime);
    if (call->record.attempts != 0)
        completion_failed(call, call->record.failure, call->record.problem);
    else if (why == POOL_UNKNOWN)
        refuse(call, 404, "model_not_found", "model", "No backend has a WebSocket for this model.");
    else
        refuse(call, 503, why == POOL_FULL ? "backends_busy" : "no_backend", NULL,
               why == POOL_FULL ? "All servers of this model are busy." : "No server of this model is available.");
}

static void try_next(struct realtime *realtime)
{
    struct call *call = realtime->call;
    enum pool_result result = next_backend(realtime);
    if (result != POOL_CHOSEN) {
        give_up(realtime, result);
        return;
    }
    struct upstream *upstream = pool_lease_upstream(&realtime->lease);
    struct span model = pool_lease_model(&realtime->lease);
    const struct backend_settings *settings = upstream_settings(upstream);
    call->record.attempts++;
    backend_name_copy(call->record.backend_name, pool_lease_name(&realtime->lease));
    call->record.backend = call->record.backend_name;
    realtime->timeouts = completion_timeouts(call, settings);
    struct realtime_request made;
    if (!realtime_request_make(call, settings, call->model_len != 0 ? model : SPAN_NONE, &made)) {
        let_go(realtime);
        refuse(call, 431, "head_too_large", NULL, "The request's query or headers are too large for a WebSocket.");
    } else {
        struct ws_backend_request request = {
            .target = strbuf_cstr(&made.target),
            .protocols = made.protocols.len != 0 ? strbuf_cstr(&made.protocols) : NULL,
            .headers = strbuf_span(&made.headers),
            .connect_us = realtime->timeouts.connect,
            .ping_us = call->site->config->websocket.ping_us,
        };
        realtime->backend = ws_backend_connect(realtime->worker, upstream, &request, &backend_callbacks, realtime);
    }
    realtime_request_dispose(&made);
}

/* What a handshake that failed says about the server: the same as for other requests. One that knows no WebSockets is
 * not ill. */
static void judge(struct realtime *realtime, enum stream_failure why, int status)
{
    uint64_t now = clock_us();
    if (status == 503)
        pool_lease_pause(&realtime->lease, 0, now);
    if (status >= 500 || (status == 0 && why != STREAM_OVERFLOW))
        pool_lease_failed(&realtime->lease, HEALTH_NO_START, realtime->call->record.problem, now);
}

static void on_failed(void *ctx, enum stream_failure why, int status, const char *message)
{
    struct realtime *realtime = ctx;
    struct call *call = realtime->call;
    char text[120];
    realtime->backend = NULL;
    call->record.failure = why;
    snprintf(call->record.problem, sizeof(call->record.problem), "%s", message);
    telemetry_upstream_error(call->worker, call->record.backend, why);
    judge(realtime, why, status);
    leave_backend(realtime);
    if (status == 0) {
        try_next(realtime);
        return;
    }
    let_go(realtime);
    if (status < 400 || status > 599) {
        completion_failed(call, why, "The backend did not open the WebSocket as it should.");
        return;
    }
    /* What a backend answers goes through, as for HTTP; its words do not get through libwebsockets. */
    call->record.end = stream_failure_name(why);
    snprintf(text, sizeof(text), "The backend refused the WebSocket with status %d.", status);
    refuse(call, status, "backend_refused", NULL, text);
}

/* The client has left, or the gateway ends, before there was a WebSocket. */
static void on_call_end(struct call_job *job)
{
    struct realtime *realtime = H2O_STRUCT_FROM_MEMBER(struct realtime, job, job);
    if (realtime->backend != NULL)
        ws_backend_cancel(realtime->backend);
    destroy(realtime);
}

static void on_backend_opened(void *ctx, struct span protocol)
{
    struct realtime *realtime = ctx;
    struct call *call = realtime->call;
    realtime->started_us = realtime->active_us = clock_us();
    pool_lease_answered(&realtime->lease, false, realtime->started_us);
    realtime_gate_init(&realtime->gate, call, on_decided, realtime);
    realtime->session = ws_open(call, &session_type, realtime, protocol);
    if (realtime->session == NULL) {
        ws_backend_close(realtime->backend, WS_CLOSE_GOING_AWAY, SPAN_NONE);
        destroy(realtime);
        return;
    }
    realtime->call = NULL;
    deadline_arm(&realtime->worker->deadlines, &realtime->deadline, realtime->started_us); /* on_deadline sees when */
}

static void on_client_opened(struct ws_session *session)
{
    (void)session; /* what the backend has said meanwhile is on its way */
}

/* ---- messages ---- */

static enum ws_kind kind_of(const struct ws_piece *piece)
{
    if (piece->first && piece->last)
        return piece->binary ? WS_BINARY : WS_TEXT;
    if (piece->first)
        return piece->binary ? WS_BINARY_BEGIN : WS_TEXT_BEGIN;
    return piece->last ? WS_END : WS_MORE;
}

/* Reads the client, or not. */
static void read_client(struct realtime *realtime)
{
    if (realtime->deciding || realtime->backend_full || realtime->client_full)
        ws_pause(realtime->session);
    else
        ws_resume(realtime->session);
}

/* Tells the client what is in realtime->event, which makes way if the backend is in the middle of a message. */
static void tell(struct realtime *realtime)
{
    struct span text = strbuf_span(&realtime->event);
    if (realtime->in_message || text.len == 0)
        return;
    realtime->client_full = ws_send(realtime->session, WS_TEXT, &text, 1) == WS_FULL;
    strbuf_reset(&realtime->event);
}

/* The present message may not pass. What is said of it takes the place of what could not be said before. */
static void drop_message(struct realtime *realtime)
{
    realtime->dropping = true;
    strbuf_reset(&realtime->event);
    strbuf_add(&realtime->event, strbuf_span(&realtime->gate.event));
    tell(realtime);
}

static void hold(struct realtime *realtime, const struct ws_piece *piece)
{
    if (realtime->held_bytes + piece->bytes.len > HELD_MAX) {
        ws_close(realtime->session, WS_CLOSE_TRY_LATER, SPAN("too much was sent while a limit was being asked"));
        return;
    }
    struct held *held = h2o_mem_alloc(sizeof(*held) + piece->bytes.len);
    held->next = NULL;
    held->piece = *piece;
    held->piece.bytes.base = held->bytes;
    if (piece->bytes.len != 0)
        memcpy(held->bytes, piece->bytes.base, piece->bytes.len);
    *realtime->held_last = held;
    realtime->held_last = &held->next;
    realtime->held_bytes += sizeof(*held) + piece->bytes.len;
}

/* Passes a piece on. False if it must wait for a decision. */
static bool pass(struct realtime *realtime, const struct ws_piece *piece, bool asked)
{
    if (piece->first && !asked) {
        enum realtime_gate_result result = realtime_gate_ask(&realtime->gate);
        realtime->dropping = false;
        realtime->deciding = result == GATE_WAIT;
        if (realtime->deciding)
            return false;
        if (result == GATE_SHUT)
            drop_message(realtime);
    }
    if (!realtime->dropping && realtime->backend != NULL)
        realtime->backend_full |= ws_backend_send(realtime->backend, kind_of(piece), piece->bytes) == WS_FULL;
    return true;
}

static void on_client_message(struct ws_session *session, const struct ws_piece *piece)
{
    struct realtime *realtime = session->ctx;
    if (realtime->backend == NULL)
        return;
    realtime->active_us = clock_us();
    if (realtime->held != NULL || !pass(realtime, piece, false))
        hold(realtime, piece);
    if (realtime->deciding || realtime->backend_full || realtime->client_full)
        read_client(realtime);
}

/* The first message of those that are held may pass, or may not. */
static void on_decided(void *ctx, bool open)
{
    struct realtime *realtime = ctx;
    realtime->deciding = realtime->dropping = false;
    if (!open)
        drop_message(realtime);
    for (bool asked = true; realtime->held != NULL; asked = false) {
        struct held *held = realtime->held;
        if (!pass(realtime, &held->piece, asked))
            break;
        realtime->held = held->next;
        if (held->next == NULL)
            realtime->held_last = &realtime->held;
        realtime->held_bytes -= sizeof(*held) + held->piece.bytes.len;
        free(held);
    }
    read_client(realtime);
}

static void on_backend_writable(void *ctx)
{
    struct realtime *realtime = ctx;
    realtime->backend_full = false;
    read_client(realtime);
}

static void on_backend_message(void *ctx, const struct ws_piece *piece)
{
    struct realtime *realtime = ctx;
    realtime->active_us = clock_us();
    realtime->in_message = !piece->last;
    if (ws_send(realtime->session, kind_of(piece), &piece->bytes, 1) == WS_FULL)
        ws_backend_pause(realtime->backend);
    if (piece->last)
        tell(realtime);
}

static void on_client_writable(struct ws_session *session)
{
    struct realtime *realtime = session->ctx;
    if (realtime->backend != NULL)
        ws_backend_resume(realtime->backend);
    if (realtime->client_full) {
        realtime->client_full = false;
        read_client(realtime);
    }
}

/* ---- time ---- */

static void on_drain(struct ws_session *session)
{
    struct realtime *realtime = session->ctx;
    realtime->draining = true;
    deadline_arm(&realtime->worker->deadlines, &realtime->deadline, clock_us());
}

static void on_deadline(struct deadline *deadline)
{
    struct realtime *realtime = H2O_STRUCT_FROM_MEMBER(struct realtime, deadline, deadline);
    const struct backend_timeouts *timeouts = &realtime->timeouts;
    uint64_t now = clock_us(), at = UINT64_MAX;
    uint64_t idle_at = timeouts->idle != 0 ? realtime->active_us + timeouts->idle : UINT64_MAX;
    uint64_t total_at = timeouts->total != 0 ? realtime->started_us + timeouts->total : UINT64_MAX;
    uint64_t quiet_at = realtime->draining ? realtime->active_us + QUIET_US : UINT64_MAX;
    if (now >= total_at)
        ws_close(realtime->session, WS_CLOSE_GOING_AWAY, SPAN("the session has lasted as long as it may"));
    else if (now >= idle_at)
        ws_close(realtime->session, WS_CLOSE_GOING_AWAY, SPAN("nobody has said anything for too long"));
    else if (now >= quiet_at)
        ws_close(realtime->session, WS_CLOSE_GOING_AWAY, SPAN("the gateway is ending"));
    else
        at = idle_at < total_at ? idle_at : total_at;
    at = quiet_at < at && now < quiet_at ? quiet_at : at;
    if (at != UINT64_MAX)
        deadline_arm(&realtime->worker->deadlines, deadline, at);
}

/* ---- ends ---- */

static void on_backend_closed(void *ctx, unsigned code, struct span reason)
{
    struct realtime *realtime = ctx;
    realtime->backend = NULL;
    if (code != WS_CLOSE_ABNORMAL)
        pool_lease_finished(&realtime->lease);
    /* 1002 speaks of a fault between weir and the backend, and 1012 to 1014 come as 1002 out of libwebsockets. */
    if (code == WS_CLOSE_ABNORMAL || code == WS_CLOSE_PROTOCOL)
        code = WS_CLOSE_INTERNAL;
    ws_close(realtime->session, code, reason);
}

static void on_client_closed(struct ws_session *session, unsigned code, struct span reason)
{
    struct realtime *realtime = session->ctx;
    if (realtime->backend != NULL && code == WS_CLOSE_NO_STATUS)
        ws_backend_close(realtime->backend, WS_CLOSE_NORMAL, SPAN_NONE);
    else if (realtime->backend != NULL && code == WS_CLOSE_ABNORMAL)
        ws_backend_close(realtime->backend, WS_CLOSE_GOING_AWAY, SPAN("the client has left"));
    else if (realtime->backend != NULL)
        ws_backend_close(realtime->backend, code, reason);
    destroy(realtime);
}
