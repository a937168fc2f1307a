#include "base/clock.h"
#include "base/recycle.h"
#include "gateway/answer_cache.h"
#include "gateway/chat.h"
#include "gateway/http_whole.h"
#include "gateway/limit.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"

static const struct call_transport transport = {
    .refuse = http_reply_refuse,
    .answer = http_reply_answer,
    .stream = http_stream_begin,
};

/* What the request's pool counts. */
struct handle {
    struct http_call *http;
};

static __thread struct recycle recycled;

static void on_turn(struct deadline *deadline);
static void on_gone(struct connection_watch *watch);
static void on_dispose(void *ptr);

struct http_call *http_call_of(struct call *call)
{
    return call->transport == &transport ? H2O_STRUCT_FROM_MEMBER(struct http_call, call, call) : NULL;
}

/* Answers what needs no route: preflights and paths and methods that do not exist. True if it did. */
static bool answered_early(struct http_call *http)
{
    struct call *call = &http->call;
    unsigned method = route_method(call->method);
    if (method == METHOD_OPTIONS && call->site->config->cors.count != 0 &&
        call_header(call, SPAN("access-control-request-method")).len != 0) {
        http_reply_preflight(http, http->cors_origin.len != 0);
        return true;
    }
    if (call->route == NULL) {
        struct dialect_error error = {.status = 404,
                                      .code = "unknown_url",
                                      .message = "Unknown request URL. See / for what there is.",
                                      .detail_json = "\"Not Found\""};
        if (span_starts(call->path, SPAN("/v1/v1/")))
            error.message = "The path has /v1 twice: set the client's base URL to end in /v1 only once, or without it.";
        call_refuse(call, "not_found", &error);
        return true;
    }
    if ((method & call->route->route.methods) == 0) {
        call->record.refusal = "method_not_allowed";
        http_reply_method_not_allowed(http, call->route->route.methods);
        return true;
    }
    return false;
}

/* Holds the body to what all bodies together may take. */
static bool keep_body(struct http_call *http)
{
    struct call *call = &http->call;
    if (uploads_keep(&call->worker->server->uploads, call->body.len, call->site->config->body_memory)) {
        http->body_kept = call->body.len;
        return true;
    }
    struct dialect_error error = {
        .status = 503, .code = "overloaded", .message = "Too many large requests at the same time; try again soon."};
    security_event(call->worker, SECURITY_UPLOADS, &call->client, SPAN("too many large requests"));
    call->record.refusal = "overloaded";
    http_reply_refuse(call, &error, 1, 0);
    return false;
}

static void serve(struct http_call *http)
{
    struct call *call = &http->call;
    if (!keep_body(http) || answered_early(http))
        return;
    if (http->req->version < 0x200) {
        http->watch.on_gone = on_gone;
        connection_watch(http->connection, &http->watch);
    }
    /* The answer may be complete before this returns, and the request gone. */
    struct handle *handle = http->handle;
    h2o_mem_addref_shared(handle);
    call_run(call);
    if (http->phase == HTTP_WAITING)
        http_stream_arm_early_head(http);
    h2o_mem_release_shared(handle);
}

static void on_turn(struct deadline *deadline)
{
    serve(H2O_STRUCT_FROM_MEMBER(struct http_call, deadline, deadline));
}

static int on_req(h2o_handler_t *handler, h2o_req_t *req)
{
    (void)handler;
    struct http_call *http = recycle_take(&recycled, sizeof(*http));
    memset(http, 0, sizeof(*http));
    http->handle = h2o_mem_alloc_shared(&req->pool, sizeof(*http->handle), on_dispose);
    http->handle->http = http;
    struct worker *worker = worker_of(req);
    struct call *call = &http->call;
    http->req = req;
    call->transport = &transport;
    call->worker = worker;
    call->site = site_retain(worker->site);
    call->pool = pool_retain(worker->pool);
    call->completion = &http->completion;
    call->record.started_us = clock_us();
    metric_add(worker->telemetry.requests_in_flight, 1);
    h2o_linklist_insert(&worker->calls, &http->link);
    http->connection = connection_of(req);
    call->known_key = connection_known_key(http->connection);
    connection_request_begins(http->connection, req->version >= 0x200);
    if (!http_request_read(http))
        return 0;
    if (connection_has_turn(http->connection)) {
        serve(http);
    } else {
        http->deadline.cb = on_turn;
        deadline_arm(&worker->deadlines, &http->deadline, clock_us());
    }
    return 0;
}

static void on_gone(struct connection_watch *watch)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, watch, watch);
    http_stream_client_gone(http);
}

static void on_dispose(void *ptr)
{
    const struct handle *handle = ptr;
    struct http_call *http = handle->http;
    struct call *call = &http->call;
    struct worker *worker = call->worker;
    if (http->watch.on_gone != NULL)
        connection_watch(http->connection, NULL);
    connection_request_ends(http->connection, http->connection_knows_stalled);
    h2o_linklist_unlink(&http->link);
    deadline_disarm(&worker->deadlines, &http->deadline);
    call_end_job(call);
    completion_end(&http->completion);
    http_stream_leave(http);
    /* Many clients close at the last event, before the backend's body has ended: they are served. */
    bool left = (http->phase != HTTP_ENDED || http->client_gone) && !http->had_everything;
    if (left)
        connection_aborted(http->connection);
    if (left || http->stalled)
        call->record.status = 499;
    if (left && !http->stalled)
        call->record.end = "client_left";
    else if (http->had_everything && call->record.end == NULL)
        call->record.end = "finished";
    uploads_answered(&worker->server->uploads, http->body_kept);
    limit_settle(call);
    telemetry_call_done(call);
    answer_cache_end(call);
    chat_end(call);
    metric_add(worker->telemetry.requests_in_flight, -1);
    if (http->counted_stream)
        metric_add(worker->telemetry.streams_in_flight, -1);
    identity_release(call->identity);
    site_release(call->site);
    pool_release(call->pool);
    http_whole_forget(http);
    recycle_give(&recycled, http);
}

void http_calls_abort(struct worker *worker)
{
    h2o_linklist_t *link = worker->calls.next, *next;
    /* A call may end, and leave the list, while it is told. */
    for (; link != &worker->calls; link = next) {
        next = link->next;
        http_stream_abort(H2O_STRUCT_FROM_MEMBER(struct http_call, link, link));
    }
}

void http_call_register(h2o_hostconf_t *host)
{
    h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = on_req;
    http_reply_register_library_errors(host);
}
