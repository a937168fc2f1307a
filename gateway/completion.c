#include "gateway/completion.h"
#include "base/clock.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <stdio.h>

#define DISPATCH_US 250000 /* how often one that waits looks for places that nobody gave back */

/* In the order in which they fire. */
static void choose(struct completion *completion);
static void on_granted(struct fleet_waiter *waiter);
static void on_deadline(struct deadline *deadline);
static void on_ready(void *ctx, struct attempt *attempt, bool refused);
static void on_fail(void *ctx, struct attempt *attempt, enum stream_failure why, const char *message, bool sent);

static const struct attempt_callbacks callbacks = {.on_ready = on_ready, .on_fail = on_fail};

/* ---- start and end ---- */

void completion_start(struct completion *completion, struct call *call)
{
    struct pool *pool = call->pool;
    completion->call = call;
    completion->_deadline.cb = on_deadline;
    completion->_waiter.on_granted = on_granted;
    if (!completion_client_deadline(call, &completion->_deadline_us)) {
        struct dialect_error error = {.status = 400,
                                      .code = "invalid_timeout",
                                      .param = "X-Weir-Timeout",
                                      .message = "X-Weir-Timeout is a number of seconds above 0, such as 30 or 2.5."};
        call_refuse(call, "invalid_timeout", &error);
        return;
    }
    completion_hint(call, &completion->_hint);
    retry_budget_fill(pool_retry_budget(pool), &fleet_settings(pool_fleet(pool))->retries);
    pool_walk_start(pool, &completion->_walk, call_model(call), call->route->proxy);
    choose(completion);
}

static void stop_waiting(struct completion *completion, const char *result)
{
    struct worker *worker = completion->call->worker;
    deadline_disarm(&worker->deadlines, &completion->_deadline);
    if (completion->_queued_us == 0)
        return;
    pool_stop_waiting(completion->call->pool, &completion->_waiter);
    telemetry_queued(worker, result, clock_us() - completion->_queued_us);
    completion->_queued_us = 0;
}

static void drop_refused(struct completion *completion)
{
    struct attempt *refused = completion->_refused;
    completion->_refused = NULL;
    if (refused != NULL)
        attempt_drop(refused);
}

void completion_end(struct completion *completion)
{
    struct call *call = completion->call;
    if (call == NULL)
        return;
    stop_waiting(completion, "left");
    drop_refused(completion);
    if (completion->_attempt != NULL)
        attempt_drop(completion->_attempt);
    completion->_attempt = NULL;
    completion->call = NULL;
    pool_walk_end(call->pool, &completion->_walk);
}

bool completion_is_plain(const struct completion *completion)
{
    return completion->_attempt != NULL && attempt_is_plain(completion->_attempt);
}

/* ---- the end without a new attempt ---- */

static void refuse_unknown_model(struct call *call)
{
    char message[CALL_MODEL_MAX + 80];
    struct span model = call_model(call);
    snprintf(message, sizeof(message), "The model '%.*s' does not exist or you do not have access to it.",
             (int)model.len, model.base);
    struct dialect_error error = {.status = 404, .code = "model_not_found", .param = "model", .message = message};
    call_refuse(call, "model_not_found", &error);
}

static void refuse_busy(struct completion *completion, const char *code, const char *message)
{
    struct call *call = completion->call;
    /* About as long as others wait at present. */
    uint64_t wait_us = fleet_queue_time_us(pool_fleet(call->pool));
    struct dialect_error error = {.status = 503, .code = code, .message = message};
    call->record.refusal = code;
    call->transport->refuse(call, &error, (unsigned)(wait_us / 1000000) + 1, 0);
}

static void note_backend(struct call *call, const char *name)
{
    backend_name_copy(call->record.backend_name, name);
    call->record.backend = call->record.backend_name;
}

/* No other server is left: the client gets the last answer, if there was one, as it came. */
static void give_up(struct completion *completion)
{
    struct call *call = completion->call;
    struct attempt *refused = completion->_refused;
    if (refused == NULL) {
        completion_failed(call, call->record.failure, call->record.problem);
        return;
    }
    completion->_refused = NULL;
    note_backend(call, attempt_backend(refused));
    call->record.failure = STREAM_NOT_FAILED;
    attempt_deliver(refused);
}

static bool too_late(const struct completion *completion, uint64_t now_us)
{
    return completion->_deadline_us != 0 && now_us >= completion->_deadline_us;
}

static void give_up_late(struct completion *completion)
{
    struct call *call = completion->call;
    call->record.failure = STREAM_TIMEOUT_TOTAL;
    if (call->record.problem[0] == '\0')
        snprintf(call->record.problem, sizeof(call->record.problem), "the client's deadline (X-Weir-Timeout) passed");
    give_up(completion);
}

/* ---- choosing ---- */

/* Begins the attempt that a lease stands for. False if it has failed already and another server may be asked. */
static bool attempt(struct completion *completion, struct pool_lease *lease)
{
    struct call *call = completion->call;
    struct backend_timeouts timeouts = completion_timeouts(call, upstream_settings(pool_lease_upstream(lease)));
    call->record.attempts++;
    note_backend(call, pool_lease_name(lease));
    completion->_choosing = true;
    completion->_attempt = attempt_start(call, lease, &timeouts, completion->_deadline_us, &callbacks, completion);
    completion->_choosing = false;
    return completion->_attempt != NULL;
}

static void arm(struct completion *completion, uint64_t at_us)
{
    if (completion->_deadline_us != 0 && completion->_deadline_us < at_us)
        at_us = completion->_deadline_us;
    deadline_arm(&completion->call->worker->deadlines, &completion->_deadline, at_us);
}

static void wait_for_place(struct completion *completion, uint64_t now_us)
{
    struct call *call = completion->call;
    struct worker *worker = call->worker;
    const struct config_key *key = call->identity != NULL ? call->identity->key : NULL;
    if (!pool_walk_wait(call->pool, &completion->_walk, &completion->_waiter,
                        key != NULL ? key->priority : QUEUE_NORMAL, completion_owner(call), now_us)) {
        telemetry_queued(worker, "full", 0);
        if (completion->_refused != NULL)
            give_up(completion);
        else
            refuse_busy(completion, "queue_full", "All servers of this model are busy, and too many requests wait.");
        return;
    }
    completion->_queued_us = now_us;
    completion->_queue_until_us = now_us + fleet_settings(pool_fleet(call->pool))->queue_timeout_us;
    uint64_t look_us = now_us + DISPATCH_US;
    arm(completion, look_us < completion->_queue_until_us ? look_us : completion->_queue_until_us);
}

/* Asks the next server, and the next, until one has not failed at once. */
static void choose(struct completion *completion)
{
    struct call *call = completion->call;
    for (;;) {
        struct pool_lease lease;
        uint64_t now = clock_us();
        if (too_late(completion, now)) {
            give_up_late(completion);
            return;
        }
        switch (pool_walk_next(call->pool, &completion->_walk, &completion->_hint, &lease, now)) {
        case POOL_CHOSEN:
            if (attempt(completion, &lease))
                return;
            if (call->record.failure == STREAM_PROTOCOL) { /* not fit to be sent, to anybody */
                give_up(completion);
                return;
            }
            break;
        case POOL_FULL:
            wait_for_place(completion, now);
            return;
        case POOL_UNKNOWN:
            refuse_unknown_model(call);
            return;
        case POOL_NONE:
            if (call->record.attempts != 0)
                give_up(completion);
            else
                refuse_busy(completion, "no_backend", "No server of this model is available.");
            return;
        }
    }
}

static void on_granted(struct fleet_waiter *waiter)
{
    struct completion *completion = H2O_STRUCT_FROM_MEMBER(struct completion, _waiter, waiter);
    struct worker *worker = completion->call->worker;
    struct pool_lease lease;
    uint64_t now = clock_us();
    deadline_disarm(&worker->deadlines, &completion->_deadline);
    telemetry_queued(worker, "served", now - completion->_queued_us);
    completion->_queued_us = 0;
    if (!pool_walk_granted(completion->call->pool, &completion->_walk, waiter, &lease, now) ||
        !attempt(completion, &lease))
        choose(completion);
}

static void on_deadline(struct deadline *deadline)
{
    struct completion *completion = H2O_STRUCT_FROM_MEMBER(struct completion, _deadline, deadline);
    uint64_t now = clock_us();
    bool late = too_late(completion, now);
    if (completion->_queued_us == 0) { /* the back-off is over */
        choose(completion);
    } else if (late || now >= completion->_queue_until_us) {
        stop_waiting(completion, "timeout");
        if (late)
            give_up_late(completion);
        else if (completion->_refused != NULL)
            give_up(completion);
        else
            refuse_busy(completion, "queue_timeout", "All servers of this model are busy.");
    } else {
        uint64_t look_us = now + DISPATCH_US;
        arm(completion, look_us < completion->_queue_until_us ? look_us : completion->_queue_until_us);
        fleet_dispatch(pool_fleet(completion->call->pool), now);
    }
}

/* ---- what comes of an attempt ---- */

/* Whether a request that has reached a server may be sent to another one. What is passed on unread may do anything
 * there; a model's answer is only paid for twice. */
static bool may_retry(struct completion *completion, uint64_t now_us)
{
    struct call *call = completion->call;
    struct pool *pool = call->pool;
    const struct retry_settings *settings = &fleet_settings(pool_fleet(pool))->retries;
    if (call->route->route.body == NULL || completion->_sent >= settings->attempts || too_late(completion, now_us) ||
        !pool_walk_has_more(&completion->_walk))
        return false;
    if (retry_budget_take(pool_retry_budget(pool), settings, now_us))
        return true;
    telemetry_retry_refused(call->worker);
    return false;
}

static void back_off(struct completion *completion, uint64_t now_us)
{
    struct pool *pool = completion->call->pool;
    arm(completion, now_us + retry_backoff_us(&fleet_settings(pool_fleet(pool))->retries, completion->_sent + 1,
                                              pool_random(pool)));
}

static void on_ready(void *ctx, struct attempt *attempt, bool refused)
{
    struct completion *completion = ctx;
    struct call *call = completion->call;
    uint64_t now = clock_us();
    completion->_sent++;
    completion->_attempt = NULL;
    if (refused && may_retry(completion, now)) {
        char reason[24];
        snprintf(reason, sizeof(reason), "status_%d", attempt_status(attempt));
        telemetry_retried(call->worker, attempt_backend(attempt), reason);
        drop_refused(completion);
        completion->_refused = attempt;
        back_off(completion, now);
        return;
    }
    drop_refused(completion);
    call->record.failure = STREAM_NOT_FAILED;
    call->record.problem[0] = '\0';
    attempt_deliver(attempt);
}

static void on_fail(void *ctx, struct attempt *attempt, enum stream_failure why, const char *message, bool sent)
{
    struct completion *completion = ctx;
    struct call *call = completion->call;
    uint64_t now = clock_us();
    completion->_attempt = NULL;
    completion->_sent += sent;
    call->record.failure = why;
    snprintf(call->record.problem, sizeof(call->record.problem), "%s", message);
    /* An overflow would be one with every server; a deadline that has passed leaves no time. */
    bool hopeless = why == STREAM_TIMEOUT_TOTAL || why == STREAM_OVERFLOW || (!sent && why == STREAM_PROTOCOL);
    bool again = !hopeless && (sent ? may_retry(completion, now) : pool_walk_has_more(&completion->_walk));
    if (again)
        telemetry_retried(call->worker, attempt_backend(attempt), stream_failure_name(why));
    if (completion->_choosing)
        return; /* nothing was sent: choose goes on */
    if (!again)
        give_up(completion);
    else if (sent)
        back_off(completion, now);
    else
        choose(completion);
}

/* ---- failures ---- */

void completion_error(enum stream_failure why, const char *message, struct dialect_error *error)
{
    *error = (struct dialect_error){.status = 502, .code = "backend_failed", .message = message};
    switch (why) {
    case STREAM_CONNECT:
        error->code = "backend_unreachable";
        error->message = "The model's server cannot be reached.";
        break;
    case STREAM_TIMEOUT_CONNECT:
    case STREAM_TIMEOUT_FIRST:
    case STREAM_TIMEOUT_IDLE:
    case STREAM_TIMEOUT_TOTAL:
        error->status = 504;
        error->code = "backend_timeout";
        break;
    default:
        break;
    }
}

void completion_failed(struct call *call, enum stream_failure why, const char *message)
{
    struct dialect_error error;
    completion_error(why, message, &error);
    call->record.end = stream_failure_name(why);
    /* Once the request was sent, generation may have begun: trying again would pay for it twice. */
    bool generating = why == STREAM_TIMEOUT_FIRST || why == STREAM_TIMEOUT_IDLE || why == STREAM_TIMEOUT_TOTAL;
    call->transport->refuse(call, &error, 0, generating ? -1 : 0);
}
