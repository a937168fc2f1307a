#include "gateway/limit.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "gateway/completion.h"
#include "gateway/depend.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <stdlib.h>

#define BYTES_PER_TOKEN 4    /* of a request's body: a cheap rule that errs on the high side for English */
#define COMPLETION_GUESS 256 /* tokens, until answers have been seen */
#define COMPLETION_WEIGHT 16 /* of the average so far against the next answer */

/* A hit that was admitted. */
struct hit {
    struct store_ask ask;
    struct store_ticket ticket;
};

/* Where the tightest limit of a unit stands, for headers. */
struct standing {
    const struct limit *limit; /* NULL: none */
    struct strategy_numbers numbers;
};

struct call_limits {
    struct standing standing[2]; /* by enum limit_unit */
    uint64_t now_us;
    uint64_t prompt_guess;
    struct store_lease leases[2]; /* the key's and the gateway's */
    bool refused, headers;
    bool own_asked; /* the key's own limits have been, by an earlier step */
    bool leased[2]; /* which places have been asked for */
    size_t count;
    struct hit hits[];
};

/* What is being decided on. */
struct decision {
    struct call *call;
    uint64_t now_us, prompt_guess;
    bool own; /* the key's own limits are among them */
    size_t count;
    struct store_ask asks[STORE_ASKS_MAX];
    const struct config_limit *of[STORE_ASKS_MAX]; /* NULL: the key's own */
    struct store_answer answers[STORE_ASKS_MAX];
};

/* ---- keys ---- */

static void make_keys(struct limit_keys *keys, const struct key_secret *secret, const char *name,
                      const struct limit *limits, size_t count, enum limit_strategy strategy)
{
    for (size_t i = 0; i < count; i++) {
        keys->own[i] = key_of_limit(secret, span_of(name), &limits[i], strategy);
        keys->share[i] = key_of_share(secret, span_of(name), &limits[i], strategy);
    }
}

struct limit_keys *limit_keys_create(const struct config *config, const struct key_secret *secret)
{
    struct limit_keys *keys = calloc(config->limit_count + config->key_count + 1, sizeof(*keys));
    if (keys == NULL)
        abort();
    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        make_keys(&keys[i], secret, limit->name, limit->limits, limit->count, limit->strategy);
    }
    /* No limit of the configuration can have a name with blanks. */
    for (size_t i = 0; i < config->key_count; i++)
        make_keys(&keys[config->limit_count + i], secret, "a key's own", config->keys[i].limits,
                  config->keys[i].limit_count, LIMIT_MOVING_WINDOW);
    return keys;
}

/* ---- what a request costs ---- */

/* The most tokens that the client lets the model answer with; false if it does not say. */
static bool asked_for(const struct call *call, uint64_t *tokens)
{
    static const struct span names[] = {SPAN("max_completion_tokens"), SPAN("max_output_tokens"), SPAN("max_tokens")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct json_value *value = call_field(call, names[i]);
        if (value == NULL || value->type != JSON_NUMBER)
            continue;
        /* Some languages write whole numbers as 100.0 or 1e2. What follows a number in JSON ends it. */
        double number = strtod(value->raw.base, NULL);
        bool large = number >= (double)LIMIT_AMOUNT_MAX; /* what is too large to be counted is too large */
        if (number >= 0 && (large || number == (double)(uint64_t)number)) {
            *tokens = large ? LIMIT_AMOUNT_MAX : (uint64_t)number;
            return true;
        }
    }
    return false;
}

static uint64_t cost_of(struct decision *decision, const struct limit *limit, const struct config_limit *of)
{
    struct call *call = decision->call;
    uint64_t tokens = 0, guess = decision->prompt_guess;
    if (limit->unit == LIMIT_REQUESTS)
        return of != NULL ? of->cost : 1;
    if (asked_for(call, &tokens))
        return guess + tokens;
    if (call->route->route.body != NULL && call->route->route.dialect != DIALECT_EMBEDDINGS)
        guess += call->worker->completion_average;
    /* What nobody asked for must not make a request impossible that may well fit. */
    return guess < limit->amount ? guess : limit->amount;
}

/* ---- whom it counts against ---- */

#define VALUE_MAX 256

/* The body's `user`, or for Anthropic's API `metadata.user_id`, however it is spelt; what is no string, or a long one,
 * counts as it is written, and null as nobody. */
static struct span user_of(struct call *call, char buf[VALUE_MAX])
{
    static const struct span user_id[] = {SPAN("user_id")};
    call_model(call); /* scans */
    const struct json_value *user = call_field(call, SPAN("user")), *metadata = call_field(call, SPAN("metadata"));
    struct json_value inner;
    struct json_error error;
    if (metadata != NULL && metadata->type == JSON_OBJECT && json_scan(metadata->raw, user_id, 1, &inner, NULL, &error))
        user = &inner;
    if (user == NULL || user->type == JSON_MISSING || user->type == JSON_NULL)
        return SPAN_NONE;
    long n = user->type == JSON_STRING ? json_string_decode(user->raw, buf, VALUE_MAX) : -1;
    return n >= 0 ? (struct span){buf, (size_t)n} : user->raw;
}

/* The text that tells this client from others; `buf` may serve to hold it. */
static struct span value_of(struct call *call, enum limit_by by, char buf[VALUE_MAX])
{
    switch (by) {
    case LIMIT_BY_API_KEY:
        if (call->identity != NULL)
            return span_of(call->identity->name);
        /* Nobody in particular is told apart by address. */
        __attribute__((fallthrough));
    case LIMIT_BY_ADDRESS:
        memcpy(buf, &call->client, 16);
        /* A customer of an IPv6 provider has a /64 to choose addresses from. */
        return (struct span){buf, IN6_IS_ADDR_V4MAPPED(&call->client) ? 16 : 8};
    case LIMIT_BY_ROUTE:
        return call->route->route.path;
    case LIMIT_BY_MODEL:
        return call_model(call);
    case LIMIT_BY_USER:
        return user_of(call, buf);
    case LIMIT_BY_CONSTANT:
        break;
    }
    return SPAN_NONE;
}

static bool is_exempt(const struct call *call, const struct config_limit *limit)
{
    for (size_t i = 0; i < limit->exempt_key_count; i++)
        if (call->identity != NULL && strcmp(call->identity->name, limit->exempt_keys[i]) == 0)
            return true;
    for (size_t i = 0; i < limit->exempt_network_count; i++)
        if (config_network_contains(&limit->exempt_networks[i], &call->client))
            return true;
    return false;
}

/* Adds the limits of one entry of the configuration, or of a key. */
static void ask(struct decision *decision, const struct limit_keys *keys, const struct limit *limits, size_t count,
                enum limit_strategy strategy, enum limit_by by, const struct config_limit *of)
{
    char buf[VALUE_MAX];
    struct span value = value_of(decision->call, by, buf);
    struct key client =
        key_of_client(&decision->call->worker->server->limit_secret, span_of(config_limit_by_name(by)), value);
    for (size_t i = 0; i < count && decision->count < STORE_ASKS_MAX; i++) {
        decision->of[decision->count] = of;
        decision->asks[decision->count++] = (struct store_ask){
            .key = key_for(&keys->own[i], &client),
            .share = keys->share[i],
            .limit = &limits[i],
            .strategy = strategy,
            .cost = cost_of(decision, &limits[i], of),
        };
    }
}

/* Everything that applies to the call, or the one limit of this name. */
static void gather(struct decision *decision, const char *only)
{
    struct call *call = decision->call;
    const struct config *config = call->site->config;
    const struct config_key *own =
        call->identity != NULL && call->identity->key != NULL && call->identity->key->limit_count != 0
            ? call->identity->key
            : NULL;
    bool by_key = false;
    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        if ((only != NULL && strcmp(limit->name, only) != 0) || is_exempt(call, limit) ||
            !config_limit_applies(limit, call->route->route.path))
            continue;
        if (limit->by == LIMIT_BY_API_KEY && own != NULL)
            by_key = true;
        else
            ask(decision, &call->site->limit_keys[i], limit->limits, limit->count, limit->strategy, limit->by, limit);
    }
    decision->own = own != NULL && (by_key || only == NULL) && (call->limits == NULL || !call->limits->own_asked);
    if (decision->own)
        ask(decision, &call->site->limit_keys[config->limit_count + (size_t)(own - config->keys)], own->limits,
            own->limit_count, LIMIT_MOVING_WINDOW, LIMIT_BY_API_KEY, NULL);
}

/* ---- refusals ---- */

static enum depend_result refuse(struct call *call, const char *message, const char *type, const char *code,
                                 uint64_t wait_us)
{
    char detail[4096];
    struct strbuf json;
    strbuf_init_fixed(&json, detail, sizeof(detail));
    strbuf_json(&json, span_of(message));
    struct dialect_error error = {
        .status = 429, .type = type, .code = code, .message = message, .detail_json = strbuf_cstr(&json)};
    uint64_t seconds = wait_us / 1000000 + (wait_us % 1000000 != 0);
    bool never = wait_us == STRATEGY_NEVER || seconds > 366 * 86400;
    call->record.refusal = code;
    call->transport->refuse(call, &error, never ? 0 : (unsigned)(seconds != 0 ? seconds : 1), never ? -1 : 0);
    return DEPEND_REFUSED;
}

static enum depend_result refuse_over_limit(struct call *call, const struct decision *decision, size_t at)
{
    char text[640], printed[100];
    struct strbuf limit;
    const struct config_limit *of = decision->of[at];
    strbuf_init_fixed(&limit, printed, sizeof(printed));
    limit_print(decision->asks[at].limit, &limit);
    snprintf(text, sizeof(text), "Rate limit exceeded: %s",
             of != NULL && of->message != NULL ? of->message : strbuf_cstr(&limit));
    bool tokens = decision->asks[at].limit->unit == LIMIT_TOKENS;
    uint64_t retry = decision->answers[at].retry_us;
    if (retry != STRATEGY_NEVER)
        retry = retry > decision->now_us ? retry - decision->now_us : 0;
    telemetry_limited(call->worker, of != NULL ? of->name : "key", false);
    return refuse(call, text, tokens ? "tokens" : "requests", "rate_limit_exceeded", retry);
}

/* ---- the step ---- */

/* The tightest limit of each unit speaks for all in the headers; one that refuses before all others. */
static void note_standing(struct call_limits *limits, const struct decision *decision, size_t refused)
{
    for (size_t i = 0; i < decision->count; i++) {
        if (decision->of[i] != NULL && !decision->of[i]->headers)
            continue;
        limits->headers = true;
        struct standing *standing = &limits->standing[decision->asks[i].limit->unit];
        const struct strategy_numbers *numbers = &decision->answers[i].numbers;
        if (standing->limit == NULL || i == refused ||
            (numbers->remaining < standing->numbers.remaining && !limits->refused))
            *standing = (struct standing){decision->asks[i].limit, *numbers};
        if (i == refused)
            limits->refused = true;
    }
}

/* Room for `more` hits besides those of earlier steps. */
static struct call_limits *grow(struct call *call, size_t more)
{
    struct call_limits *old = call->limits;
    size_t count = old != NULL ? old->count : 0;
    struct call_limits *limits = realloc(old, sizeof(*limits) + (count + more) * sizeof(limits->hits[0]));
    if (limits == NULL)
        abort();
    if (old == NULL)
        memset(limits, 0, sizeof(*limits));
    call->limits = limits;
    return limits;
}

/* Gives back all that was taken for a call that is refused after all. */
static void take_back(struct call *call)
{
    struct call_limits *limits = call->limits;
    struct store *store = call->worker->server->limits;
    for (size_t i = 0; i < limits->count; i++)
        if (limits->hits[i].ask.cost != 0)
            store_adjust(store, &limits->hits[i].ask, &limits->hits[i].ticket, -(int64_t)limits->hits[i].ask.cost,
                         clock_us());
    limits->count = 0;
    store_release(store, &limits->leases[0]);
    store_release(store, &limits->leases[1]);
}

/* Takes the places that max_streams counts. False if there is none. */
static bool lease(struct call *call, uint64_t now_us)
{
    const struct config *config = call->site->config;
    struct server *server = call->worker->server;
    const struct config_key *key = call->identity != NULL ? call->identity->key : NULL;
    struct span parts[] = {SPAN("max_streams"), key != NULL ? span_of(key->name) : SPAN_NONE};
    struct span shared[] = {SPAN("max_streams, shared")};
    struct key share = key_make(&server->limit_secret, shared, 1), own = key_make(&server->limit_secret, parts, 2),
               all = key_make(&server->limit_secret, parts, 1);
    struct call_limits *limits = call->limits;
    bool held = true;
    if (key != NULL && key->max_streams != 0 && !limits->leased[0])
        held = limits->leased[0] =
            store_lease(server->limits, &own, &share, key->max_streams, now_us, &limits->leases[0]);
    if (held && config->max_streams != 0 && !limits->leased[1])
        held = limits->leased[1] =
            store_lease(server->limits, &all, &share, config->max_streams, now_us, &limits->leases[1]);
    return held;
}

static bool wants_lease(const struct call *call)
{
    const struct config_key *key = call->identity != NULL ? call->identity->key : NULL;
    const struct call_limits *limits = call->limits;
    return (call->site->config->max_streams != 0 && (limits == NULL || !limits->leased[1])) ||
           (key != NULL && key->max_streams != 0 && (limits == NULL || !limits->leased[0]));
}

enum depend_result depend_limit(struct call *call)
{
    const char *only = call->route->depend_limit[call->next_depend - 1];
    struct server *server = call->worker->server;
    struct decision decision = {.call = call, .now_us = clock_us()};
    if (server->limits == NULL)
        return DEPEND_NEXT;
    call_model(call);
    /* Files and other uploads are no prompts. */
    if (call->route->route.body != NULL)
        decision.prompt_guess = call->body.len / BYTES_PER_TOKEN;
    gather(&decision, only);
    if (decision.count == 0 && !wants_lease(call))
        return DEPEND_NEXT;
    bool leasing = wants_lease(call);
    struct call_limits *limits = grow(call, decision.count);
    limits->now_us = decision.now_us;
    limits->prompt_guess = decision.prompt_guess;
    limits->own_asked = limits->own_asked || decision.own;
    if (leasing && !lease(call, decision.now_us)) {
        take_back(call);
        telemetry_limited(call->worker, "max_streams", false);
        return refuse(call, "Too many requests at the same time for this API key or gateway.", "requests",
                      "concurrency_limit_exceeded", 1000000);
    }
    size_t refused = SIZE_MAX;
    if (decision.count != 0 &&
        !store_hit(server->limits, decision.asks, decision.count, decision.now_us, decision.answers, &refused)) {
        take_back(call);
        note_standing(limits, &decision, refused);
        return refuse_over_limit(call, &decision, refused);
    }
    note_standing(limits, &decision, SIZE_MAX);
    for (size_t i = 0; i < decision.count; i++) {
        limits->hits[limits->count++] = (struct hit){decision.asks[i], decision.answers[i].ticket};
        if (i == 0 || decision.of[i] != decision.of[i - 1])
            telemetry_limited(call->worker, decision.of[i] != NULL ? decision.of[i]->name : "key", true);
    }
    return DEPEND_NEXT;
}

/* ---- the end ---- */

/* Tokens that the call used, as far as can be known. What was generated for a client that left counts like any other.
 */
static uint64_t tokens_used(const struct call *call)
{
    const struct call_record *record = &call->record;
    uint64_t reported = record->usage.prompt + record->usage.completion;
    if (record->usage.known && record->whole)
        return reported;
    if (record->backend == NULL || (record->status >= 400 && record->status != 499) ||
        (record->failure != STREAM_NOT_FAILED && record->events == 0))
        return reported;
    /* Without a report, or with one that came before the end, an event counts as a token: that is how servers stream.
     */
    uint64_t counted = (record->usage.known ? record->usage.prompt : call->limits->prompt_guess) + record->events;
    return counted > reported ? counted : reported;
}

void limit_settle(struct call *call)
{
    struct call_limits *limits = call->limits;
    if (limits == NULL)
        return;
    struct store *store = call->worker->server->limits;
    const struct call_record *record = &call->record;
    uint64_t used = tokens_used(call), now = clock_us();
    for (size_t i = 0; i < limits->count; i++) {
        const struct store_ask *hit = &limits->hits[i].ask;
        if (hit->limit->unit == LIMIT_TOKENS && hit->cost != 0 && used != hit->cost)
            store_adjust(store, hit, &limits->hits[i].ticket, (int64_t)used - (int64_t)hit->cost, now);
    }
    if (record->usage.known && record->usage.completion != 0 && record->backend != NULL)
        call->worker->completion_average +=
            ((int64_t)record->usage.completion - (int64_t)call->worker->completion_average) / COMPLETION_WEIGHT;
    store_release(store, &limits->leases[0]);
    store_release(store, &limits->leases[1]);
    call->record.limited = limits->standing[LIMIT_REQUESTS].limit != NULL;
    call->record.limit_remaining = limits->standing[LIMIT_REQUESTS].numbers.remaining;
    free(limits);
    call->limits = NULL;
}

void limit_refund_hit(struct call *call)
{
    struct call_limits *limits = call->limits;
    if (limits == NULL || call->site->config->count_hits)
        return;
    for (size_t i = 0; i < limits->count; i++) {
        struct hit *hit = &limits->hits[i];
        if (hit->ask.limit->unit != LIMIT_REQUESTS || hit->ask.cost == 0)
            continue;
        store_adjust(call->worker->server->limits, &hit->ask, &hit->ticket, -(int64_t)hit->ask.cost, clock_us());
        struct standing *standing = &limits->standing[LIMIT_REQUESTS];
        if (standing->limit != hit->ask.limit)
            continue;
        struct strategy_numbers *numbers = &standing->numbers;
        numbers->remaining += hit->ask.cost;
        if (numbers->remaining >= standing->limit->amount)
            *numbers = (struct strategy_numbers){standing->limit->amount, limits->now_us, limits->now_us};
    }
}

/* ---- what the client is told ---- */

/* "6m0s", "1h2m3.5s", "12ms": as Go prints durations, which is what OpenAI sends. */
static void print_go_duration(uint64_t us, struct strbuf *out)
{
    uint64_t ms = (us + 999) / 1000, s = ms / 1000;
    if (s == 0) {
        strbuf_printf(out, "%llums", (unsigned long long)ms);
        return;
    }
    if (s >= 3600)
        strbuf_printf(out, "%lluh", (unsigned long long)(s / 3600));
    if (s >= 60)
        strbuf_printf(out, "%llum", (unsigned long long)(s / 60 % 60));
    if (ms % 1000 == 0)
        strbuf_printf(out, "%llus", (unsigned long long)(s % 60));
    else
        strbuf_printf(out, "%llu.%03llus", (unsigned long long)(s % 60), (unsigned long long)(ms % 1000));
}

void limit_headers(const struct call *call, void (*add)(void *ctx, struct span name, struct span value), void *ctx)
{
    static const struct span names[2][3] = {
        [LIMIT_REQUESTS] = {SPAN("x-ratelimit-limit-requests"), SPAN("x-ratelimit-remaining-requests"),
                            SPAN("x-ratelimit-reset-requests")},
        [LIMIT_TOKENS] = {SPAN("x-ratelimit-limit-tokens"), SPAN("x-ratelimit-remaining-tokens"),
                          SPAN("x-ratelimit-reset-tokens")},
    };
    const struct call_limits *limits = call->limits;
    if (limits == NULL || !limits->headers)
        return;
    char text[64];
    struct strbuf buf;
    strbuf_init_fixed(&buf, text, sizeof(text));
#define ADD(name, ...)                                                                                                 \
    do {                                                                                                               \
        strbuf_reset(&buf);                                                                                            \
        __VA_ARGS__;                                                                                                   \
        add(ctx, (name), strbuf_span(&buf));                                                                           \
    } while (0)
    const struct standing *first = limits->standing[LIMIT_REQUESTS].limit != NULL ? &limits->standing[LIMIT_REQUESTS]
                                                                                  : &limits->standing[LIMIT_TOKENS];
    uint64_t now = limits->now_us, wall = clock_wall_us() - (clock_us() - now);
    ADD(SPAN("x-ratelimit-limit"), strbuf_u64(&buf, first->limit->amount));
    ADD(SPAN("x-ratelimit-remaining"), strbuf_u64(&buf, first->numbers.remaining));
    uint64_t reset = wall + (first->numbers.reset_us > now ? first->numbers.reset_us - now : 0);
    ADD(SPAN("x-ratelimit-reset"), strbuf_u64(&buf, (reset + 999999) / 1000000));
    for (size_t unit = 0; unit < 2; unit++) {
        const struct standing *standing = &limits->standing[unit];
        if (standing->limit == NULL)
            continue;
        uint64_t full = standing->numbers.full_us > now ? standing->numbers.full_us - now : 0;
        ADD(names[unit][0], strbuf_u64(&buf, standing->limit->amount));
        ADD(names[unit][1], strbuf_u64(&buf, standing->numbers.remaining));
        ADD(names[unit][2], print_go_duration(full, &buf));
    }
#undef ADD
}
