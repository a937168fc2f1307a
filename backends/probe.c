#include "backends/probe.h"
#include "backends/resolve.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include <stdio.h>
#include <stdlib.h>

#define TICK_US 500000
#define FIRST_US 200000                /* the first questions are asked within this */
#define PROBE_BODY_MAX ((size_t)65536) /* beyond it the connection is closed */
#define DISCOVER_US 10000000           /* for a list of models */
#define SLICES_MAX 8

enum question_kind { QUESTION_HEALTH, QUESTION_MODELS, QUESTION_KINDS };

/* What a server is asked again and again. */
struct question {
    struct watch *watch;
    enum question_kind kind;
    struct deadline deadline; /* of the answer while asked, else when it is asked next */
    struct exchange *exchange;
    struct stream_subscriber subscriber;
    struct strbuf answer;
    int status;
    size_t bytes; /* of the answer so far */
    bool asked;
};

/* One server that is looked after. */
struct watch {
    struct watch *next;
    struct prober *prober;
    struct pool_member *member; /* held */
    struct question questions[QUESTION_KINDS];
    uint64_t ups, downs; /* probes in a row */
    bool was_down;       /* a probe has failed since the server was last told to be up */
    bool seen;           /* in the fleet */
};

struct prober {
    struct pool *pool; /* counted */
    struct deadlines *deadlines;
    struct deadline tick;
    struct resolver *resolver;
    struct watch *watches;
    uint64_t version;
};

static void on_due(struct deadline *deadline);
static void on_data(struct stream_subscriber *subscriber);

/* ---- when ---- */

static uint64_t interval_of(const struct question *question)
{
    const struct backend_settings *settings = pool_member_server(question->watch->member)->settings;
    return question->kind == QUESTION_HEALTH ? settings->health.probe_interval_us : settings->discover_us;
}

static uint64_t timeout_of(const struct question *question)
{
    const struct backend_settings *settings = pool_member_server(question->watch->member)->settings;
    return question->kind == QUESTION_HEALTH ? settings->health.probe_timeout_us : DISCOVER_US;
}

static void ask_later(struct question *question)
{
    struct prober *prober = question->watch->prober;
    uint64_t interval = interval_of(question);
    uint64_t us = interval - interval / 10 + pool_random(prober->pool) % (interval / 5 + 1);
    deadline_arm(prober->deadlines, &question->deadline, clock_us() + us);
}

/* ---- what has come of it ---- */

static void health_known(struct watch *watch, const char *problem)
{
    struct fleet_server *server = pool_member_server(watch->member);
    const struct health_settings *settings = &server->settings->health;
    if (problem != NULL) {
        watch->ups = 0;
        watch->was_down = true;
        if (++watch->downs >= settings->probe_fall)
            fleet_probed(server, false, problem, clock_us());
        return;
    }
    watch->downs = 0;
    if (watch->ups < settings->probe_rise)
        watch->ups++;
    /* A server that answers probes all the time and was ejected for what it does to requests is not brought back by
     * them: they do not see what is wrong with it. */
    bool known = atomic_load_explicit(&server->_probed, memory_order_relaxed) == FLEET_PROBE_UP;
    if (watch->ups == settings->probe_rise && (watch->was_down || !known)) {
        if (watch->was_down)
            fleet_probed(server, true, NULL, clock_us());
        else
            atomic_store_explicit(&server->_probed, FLEET_PROBE_UP, memory_order_relaxed);
        watch->was_down = false;
    }
}

static void models_known(struct watch *watch, struct span answer, const char *problem)
{
    struct fleet_server *server = pool_member_server(watch->member);
    struct model_names *names = problem == NULL ? model_names_parse(answer, &problem) : NULL;
    if (names != NULL)
        fleet_discovered(server, names);
    else
        fleet_discovery_failed(server, problem);
}

/* The question is over; nothing of it is under way any more. `problem` NULL: it was answered. */
static void finish(struct question *question, const char *problem)
{
    question->asked = false;
    if (question->kind == QUESTION_HEALTH)
        health_known(question->watch, problem);
    else
        models_known(question->watch, strbuf_span(&question->answer), problem);
    strbuf_dispose(&question->answer);
    ask_later(question);
}

static void stop(struct question *question)
{
    deadline_disarm(question->watch->prober->deadlines, &question->deadline);
    if (question->exchange != NULL)
        exchange_cancel(question->exchange);
    question->exchange = NULL;
    stream_unsubscribe(&question->subscriber);
}

static const char *problem_of_status(const struct question *question, char text[64])
{
    if (question->status >= 200 && question->status < (question->kind == QUESTION_HEALTH ? 400 : 300))
        return NULL;
    snprintf(text, 64, "it answers %s with status %d", question->kind == QUESTION_HEALTH ? "probes" : "/v1/models",
             question->status);
    return text;
}

/* ---- asking ---- */

static void on_head(void *ctx, const struct exchange_head *head, struct stream *stream)
{
    struct question *question = ctx;
    question->exchange = NULL;
    question->status = head->status;
    question->subscriber = (struct stream_subscriber){.on_data = on_data};
    stream_subscribe(stream, &question->subscriber, 0);
}

static void on_fail(void *ctx, enum stream_failure why, const char *message, bool sent)
{
    struct question *question = ctx;
    char text[160];
    (void)why;
    (void)sent;
    question->exchange = NULL;
    snprintf(text, sizeof(text), "%s", message != NULL ? message : "it failed");
    finish(question, text);
}

/* Reads what has come. False if it is too much. */
static bool read_answer(struct question *question)
{
    struct slice slices[SLICES_MAX];
    size_t count, max = question->kind == QUESTION_HEALTH ? PROBE_BODY_MAX : MODEL_NAMES_BYTES_MAX;
    while ((count = stream_peek(&question->subscriber, slices, SLICES_MAX)) != 0) {
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) {
            if (question->kind == QUESTION_MODELS)
                strbuf_add(&question->answer, slices[i].bytes);
            bytes += slices[i].bytes.len;
        }
        stream_consume(&question->subscriber, bytes);
        question->bytes += bytes;
        if (question->bytes > max)
            return false;
    }
    return true;
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct question *question = H2O_STRUCT_FROM_MEMBER(struct question, subscriber, subscriber);
    char text[64];
    const char *problem = problem_of_status(question, text);
    bool fits = read_answer(question);
    enum stream_state state = stream_state(subscriber->_stream);
    if (fits && state == STREAM_OPEN) {
        stream_wait(subscriber);
        return;
    }
    stream_unsubscribe(subscriber);
    deadline_disarm(question->watch->prober->deadlines, &question->deadline);
    if (problem == NULL && question->kind == QUESTION_MODELS && !fits)
        problem = "its list of models is longer than 1 MiB";
    else if (problem == NULL && question->kind == QUESTION_MODELS && state == STREAM_BROKEN)
        problem = "its list of models broke off";
    finish(question, problem);
}

static void ask(struct question *question)
{
    static const struct exchange_callbacks callbacks = {.on_head = on_head, .on_fail = on_fail};
    static const struct header headers[] = {{SPAN("accept"), SPAN("application/json, */*;q=0.5")}};
    struct watch *watch = question->watch;
    const struct backend_settings *settings = pool_member_server(watch->member)->settings;
    uint64_t timeout = timeout_of(question), due = clock_us() + timeout;
    const struct backend_timeouts timeouts = {.connect = timeout, .total = timeout};
    struct span path = SPAN("/v1/models"), query = SPAN_NONE;
    if (question->kind == QUESTION_HEALTH) {
        path = span_of(settings->health.probe_path);
        const char *mark = strchr(path.base, '?');
        if (mark != NULL) {
            query = span_of(mark + 1);
            path.len = (size_t)(mark - path.base);
        }
    }
    struct exchange_request request = {
        .method = SPAN("GET"),
        .path = path,
        .query = query,
        .from_root = question->kind == QUESTION_HEALTH,
        .headers = headers,
        .header_count = 1,
        .dialect = DIALECT_NONE,
        .timeouts = &timeouts,
        .deadline_us = due,
    };
    question->asked = true;
    question->bytes = 0;
    strbuf_init(&question->answer, MODEL_NAMES_BYTES_MAX + 1);
    deadline_arm(watch->prober->deadlines, &question->deadline, due);
    struct exchange *exchange = exchange_start(pool_member_upstream(watch->member), &request, &callbacks, question);
    if (exchange != NULL)
        question->exchange = exchange;
}

/* A server that never ends the body of a healthy answer is healthy. */
static void on_due(struct deadline *deadline)
{
    struct question *question = H2O_STRUCT_FROM_MEMBER(struct question, deadline, deadline);
    char text[64];
    if (!question->asked) {
        ask(question);
        return;
    }
    bool has_head = question->exchange == NULL && question->subscriber._stream != NULL;
    const char *problem = has_head ? problem_of_status(question, text) : "it has not answered in time";
    if (problem == NULL && question->kind == QUESTION_MODELS)
        problem = "its list of models has not come in time";
    stop(question);
    finish(question, problem);
}

/* ---- who ---- */

static struct watch *watch_create(struct prober *prober, struct pool_member *member)
{
    const struct backend_settings *settings = pool_member_server(member)->settings;
    struct watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        abort();
    *watch = (struct watch){.next = prober->watches, .prober = prober, .member = member};
    watch->was_down =
        atomic_load_explicit(&pool_member_server(member)->_probed, memory_order_relaxed) == FLEET_PROBE_DOWN;
    prober->watches = watch;
    for (int kind = 0; kind < QUESTION_KINDS; kind++) {
        struct question *question = &watch->questions[kind];
        bool wanted = kind == QUESTION_HEALTH
                          ? settings->health.probe_path != NULL && *settings->health.probe_path != '\0'
                          : settings->discover_us != 0;
        *question = (struct question){.watch = watch, .kind = (enum question_kind)kind, .deadline.cb = on_due};
        /* The demo model is a part of the process. */
        if (!wanted || settings->url.kind == BACKEND_DEMO)
            continue;
        uint64_t most = interval_of(question) < FIRST_US ? interval_of(question) : FIRST_US;
        deadline_arm(prober->deadlines, &question->deadline, clock_us() + pool_random(prober->pool) % most);
    }
    return watch;
}

static void watch_destroy(struct watch *watch)
{
    for (int kind = 0; kind < QUESTION_KINDS; kind++) {
        stop(&watch->questions[kind]);
        strbuf_dispose(&watch->questions[kind].answer);
    }
    pool_member_release(watch->member);
    free(watch);
}

static struct watch *find_watch(const struct prober *prober, const struct fleet_server *server)
{
    struct watch *watch = prober->watches;
    while (watch != NULL && pool_member_server(watch->member) != server)
        watch = watch->next;
    return watch;
}

/* Looks after those that are in the fleet now. */
static void follow(struct prober *prober)
{
    prober->version = fleet_version(pool_fleet(prober->pool));
    size_t count = pool_count(prober->pool);
    for (struct watch *watch = prober->watches; watch != NULL; watch = watch->next)
        watch->seen = false;
    for (size_t i = 0; i < count; i++) {
        struct pool_member *member = pool_member_hold(prober->pool, i);
        struct watch *watch = find_watch(prober, pool_member_server(member));
        if (watch == NULL)
            watch = watch_create(prober, member);
        else
            pool_member_release(member);
        watch->seen = true;
    }
    for (struct watch **slot = &prober->watches, *watch; (watch = *slot) != NULL;) {
        if (watch->seen) {
            slot = &watch->next;
            continue;
        }
        *slot = watch->next;
        watch_destroy(watch);
    }
}

/* Those that were drained to be removed, and are idle now. */
static void remove_leavers(struct prober *prober)
{
    for (struct watch *watch = prober->watches; watch != NULL; watch = watch->next) {
        struct fleet_server *server = pool_member_server(watch->member);
        if (!atomic_load_explicit(&server->leaving, memory_order_relaxed) || fleet_in_flight(server) != 0)
            continue;
        fleet_remove(pool_fleet(prober->pool), server);
        atomic_store_explicit(&server->leaving, false, memory_order_relaxed);
        struct log_line line;
        if (!log_enabled(LOG_INFO))
            continue;
        log_begin(&line, LOG_INFO, "backend");
        log_str(&line, "backend", span_of(server->name));
        log_str(&line, "state", SPAN("removed"));
        log_end(&line);
    }
}

static void on_tick(struct deadline *deadline)
{
    struct prober *prober = H2O_STRUCT_FROM_MEMBER(struct prober, tick, deadline);
    remove_leavers(prober);
    if (prober->version != fleet_version(pool_fleet(prober->pool)))
        follow(prober);
    resolver_follow(prober->resolver);
    deadline_arm(prober->deadlines, deadline, clock_us() + TICK_US);
}

struct prober *prober_create(struct pool *pool, struct deadlines *deadlines)
{
    struct prober *prober = calloc(1, sizeof(*prober));
    if (prober == NULL)
        abort();
    *prober = (struct prober){.pool = pool_retain(pool), .deadlines = deadlines, .tick.cb = on_tick};
    follow(prober);
    prober->resolver = resolver_create(pool, deadlines);
    deadline_arm(deadlines, &prober->tick, clock_us() + TICK_US);
    return prober;
}

void prober_destroy(struct prober *prober)
{
    if (prober == NULL)
        return;
    deadline_disarm(prober->deadlines, &prober->tick);
    resolver_destroy(prober->resolver);
    for (struct watch *watch = prober->watches, *next; watch != NULL; watch = next) {
        next = watch->next;
        watch_destroy(watch);
    }
    pool_release(prober->pool);
    free(prober);
}
