#include "gateway/handle_models.h"
#include "base/clock.h"
#include "gateway/models_list.h"
#include "gateway/worker.h"
#include <stdlib.h>

#define ANSWER_MAX ((size_t)4 * 1024 * 1024) /* of one backend */
#define ASK_US 5000000                       /* what has not answered by then adds nothing */
#define SLICES_MAX 8

/* One backend being asked. */
struct question {
    struct query *query;
    const struct backend_settings *settings;
    struct model_names *names;  /* counted: what it said before; NULL: nothing */
    struct pool_member *member; /* held */
    struct exchange *exchange;
    struct stream_subscriber subscriber;
    struct strbuf answer;
    bool asked, done;
    bool left_out; /* ejected, where others are not */
};

struct query {
    struct call_job job;
    struct call *call;
    struct deadline deadline;
    size_t count, waiting;
    bool asking; /* still going through the backends */
    struct question questions[];
};

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream);
static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent);
static void on_data(struct stream_subscriber *subscriber);
static void answer(struct query *query);

/* ---- asking ---- */

static bool has_plain_names_only(const struct backend_settings *settings)
{
    for (size_t i = 0; i < settings->model_count; i++)
        if (strchr(settings->models[i].pattern, '*') != NULL)
            return false;
    return settings->model_count != 0;
}

static void finish(struct question *question)
{
    struct query *query = question->query;
    if (question->done)
        return;
    question->done = true;
    if (--query->waiting == 0 && !query->asking)
        answer(query);
}

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream)
{
    struct question *question = ctx;
    question->exchange = NULL;
    question->subscriber.on_data = on_data;
    if (head->status == 200 && !head->sse)
        stream_subscribe(stream, &question->subscriber, 0);
    else
        finish(question); /* nobody subscribes: the exchange ends itself */
}

static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent)
{
    struct question *question = ctx;
    (void)message;
    (void)sent;
    question->exchange = NULL;
    telemetry_upstream_error(question->query->call->worker, question->settings->name, why);
    finish(question);
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct question *question = H2O_STRUCT_FROM_MEMBER(struct question, subscriber, subscriber);
    struct slice slices[SLICES_MAX];
    size_t count;
    while ((count = stream_peek(subscriber, slices, SLICES_MAX)) != 0) {
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) {
            strbuf_add(&question->answer, slices[i].bytes);
            bytes += slices[i].bytes.len;
        }
        stream_consume(subscriber, bytes);
    }
    enum stream_state state = stream_state(subscriber->_stream);
    if (state == STREAM_OPEN) {
        stream_wait(subscriber);
        return;
    }
    if (state == STREAM_BROKEN)
        strbuf_reset(&question->answer);
    stream_unsubscribe(subscriber);
    finish(question);
}

static void ask(struct question *question, struct upstream *upstream)
{
    static const struct exchange_callbacks callbacks = {.on_head = on_head, .on_fail = on_fail};
    struct call *call = question->query->call;
    struct header headers[2 + 3];
    size_t count = 0;
    headers[count++] = (struct header){SPAN("accept"), SPAN("application/json")};
    headers[count++] = (struct header){SPAN("x-request-id"), span_of(call->request_id)};
    static const struct span credentials[] = {SPAN("authorization"), SPAN("x-api-key"), SPAN("api-key")};
    for (size_t i = 0; i < 3; i++) {
        struct span value = call_header(call, credentials[i]);
        if (value.len != 0)
            headers[count++] = (struct header){credentials[i], value};
    }
    struct exchange_request request = {
        .method = SPAN("GET"),
        .path = SPAN("/v1/models"),
        .headers = headers,
        .header_count = count,
        .forward_credentials = call->site->config->key_count == 0,
        .dialect = DIALECT_NONE,
    };
    question->asked = true;
    question->query->waiting++;
    struct exchange *exchange = exchange_start(upstream, &request, &callbacks, question);
    if (exchange != NULL)
        question->exchange = exchange;
}

/* ---- ends ---- */

static void stop_asking(struct query *query)
{
    deadline_disarm(&query->call->worker->deadlines, &query->deadline);
    for (size_t i = 0; i < query->count; i++) {
        struct question *question = &query->questions[i];
        if (question->exchange != NULL)
            exchange_cancel(question->exchange);
        question->exchange = NULL;
        stream_unsubscribe(&question->subscriber);
    }
}

static void free_question(struct question *question)
{
    strbuf_dispose(&question->answer);
    if (question->names != NULL)
        model_names_release(question->names);
    pool_member_release(question->member);
}

static void end_job(struct call_job *job)
{
    struct query *query = H2O_STRUCT_FROM_MEMBER(struct query, job, job);
    stop_asking(query);
    for (size_t i = 0; i < query->count; i++)
        free_question(&query->questions[i]);
    free(query);
}

static void on_late(struct deadline *deadline)
{
    struct query *query = H2O_STRUCT_FROM_MEMBER(struct query, deadline, deadline);
    stop_asking(query);
    answer(query);
}

/* ---- merging ---- */

struct filter {
    const struct call *call;
    const struct question *question;
};

static bool may_use(const struct call *call, struct span model)
{
    return call->identity == NULL || identity_may_use_model(call->identity, model);
}

/* What a backend says counts as far as requests for it would go there, and the key may use it. */
static bool is_wanted(void *ctx, struct span id)
{
    const struct filter *filter = ctx;
    struct span upstream;
    const struct model_names *names = filter->question->names;
    return (names != NULL ? model_names_has(names, id) : backend_serves(filter->question->settings, id, &upstream)) &&
           may_use(filter->call, id);
}

static void answer(struct query *query)
{
    struct call *call = query->call;
    struct models_list *list = models_list_create();
    const struct fleet_settings *fleet = fleet_settings(pool_fleet(call->pool));
    for (size_t i = 0; i < fleet->alias_count; i++)
        if (may_use(call, span_of(fleet->aliases[i].name)))
            models_list_add(list, fleet->aliases[i].name);
    for (size_t i = 0; i < query->count; i++) {
        const struct question *question = &query->questions[i];
        const struct backend_settings *settings = question->settings;
        if (question->left_out)
            continue;
        for (size_t m = 0; m < settings->model_count; m++)
            if (strchr(settings->models[m].pattern, '*') == NULL && may_use(call, span_of(settings->models[m].pattern)))
                models_list_add(list, settings->models[m].pattern);
        struct filter filter = {call, question};
        if (question->asked && !question->answer.overflow)
            models_list_merge(list, strbuf_span(&question->answer), is_wanted, &filter);
        size_t names = question->names != NULL ? model_names_count(question->names) : 0;
        for (size_t n = 0; n < names; n++)
            if (may_use(call, span_of(model_names_at(question->names, n))))
                models_list_add(list, model_names_at(question->names, n));
    }
    char *text = models_list_finish(list);
    call->transport->answer(call, 200, SPAN("application/json"), span_of(text));
    free(text);
}

static bool is_out(const struct pool_member *member, uint64_t now_us)
{
    const struct fleet_server *server = pool_member_server(member);
    unsigned state = atomic_load_explicit(&server->_state, memory_order_relaxed);
    return fleet_standing(server, now_us) == FLEET_LEAVING || state == HEALTH_EJECTED || state == HEALTH_TRIAL;
}

/* Where some backends are well, the others' models are not promised. */
static void leave_out(struct query *query)
{
    uint64_t now = clock_us();
    size_t out = 0;
    for (size_t i = 0; i < query->count; i++)
        out += query->questions[i].left_out = is_out(query->questions[i].member, now);
    for (size_t i = 0; out == query->count && i < query->count; i++)
        query->questions[i].left_out = false;
}

void handle_models(struct call *call)
{
    struct pool *pool = call->pool;
    size_t count = pool_count(pool);
    struct query *query = h2o_mem_alloc(sizeof(*query) + count * sizeof(query->questions[0]));
    *query = (struct query){.job.end = end_job, .call = call, .deadline.cb = on_late, .count = count, .asking = true};
    call->job = &query->job;
    memset(query->questions, 0, count * sizeof(query->questions[0]));
    for (size_t i = 0; i < count; i++) {
        struct question *question = &query->questions[i];
        question->query = query;
        question->member = pool_member_hold(pool, i);
        question->settings = upstream_settings(pool_member_upstream(question->member));
        struct model_names *names = pool_member_names(question->member);
        question->names = names != NULL ? model_names_retain(names) : NULL;
        strbuf_init(&question->answer, ANSWER_MAX);
    }
    leave_out(query);
    for (size_t i = 0; i < count; i++) {
        struct question *question = &query->questions[i];
        if (!question->left_out && !has_plain_names_only(question->settings))
            ask(question, pool_member_upstream(question->member));
    }
    query->asking = false;
    if (query->waiting == 0)
        answer(query);
    else
        deadline_arm(&call->worker->deadlines, &query->deadline, clock_us() + ASK_US);
}
