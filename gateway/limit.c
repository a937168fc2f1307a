#include "base/clock.h"
#include "base/recycle.h"
#include "base/strbuf.h"
#include "gateway/completion.h"
#include "gateway/limit_round.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <stdlib.h>

#define COMPLETION_WEIGHT 16 /* of the average so far against the next answer */

/* ---- rounds ---- */

#define ROUND_MEMORY 1024 /* enough for a round in memory over five limits */

static __thread struct recycle recycled_rounds;
static __thread struct recycle recycled_limits;

struct limit_round *limit_round_create(size_t size, const struct limit_decision *decision,
                                       const struct limit_places *places)
{
    size_t count = decision->count;
    struct limit_round *round;
    size_t needed = size + count * (sizeof(round->asks[0]) + sizeof(round->answers[0]) + sizeof(round->sources[0]) +
                                    sizeof(round->shares[0]));
    bool recycled = needed <= ROUND_MEMORY;
    round = recycled ? recycle_take(&recycled_rounds, ROUND_MEMORY) : h2o_mem_alloc(needed);
    struct store_ask *asks = (struct store_ask *)((char *)round + size);
    struct store_answer *answers = (struct store_answer *)(asks + count);
    struct limit_source *sources = (struct limit_source *)(answers + count);
    *round = (struct limit_round){
        .now_us = clock_us(),
        .prompt_guess = decision->prompt_guess,
        .own = decision->own,
        .reserves = places->count != 0,
        .recycled = recycled,
        .count = count,
        .asks = asks,
        .answers = answers,
        .sources = sources,
        .shares = (struct limit *)(sources + count),
        .places = *places,
    };
    memcpy(asks, decision->asks, count * sizeof(asks[0]));
    for (size_t i = 0; i < count; i++) {
        const struct store_ask *ask = &decision->asks[i];
        sources[i] = (struct limit_source){.of = decision->of[i], .limit = ask->limit};
        round->reserves |= ask->limit->unit == LIMIT_TOKENS && ask->cost != 0;
    }
    return round;
}

void limit_round_free(struct limit_round *round)
{
    if (round->recycled)
        recycle_give(&recycled_rounds, round);
    else
        free(round);
}

void limit_round_undo(struct limit_round *round, struct worker *worker)
{
    if (round->redis != NULL) {
        int64_t deltas[STORE_ASKS_MAX];
        for (size_t i = 0; i < round->count; i++)
            deltas[i] = -(int64_t)round->asks[i].cost;
        redis_store_settle(worker->limits, round->redis, deltas);
        return;
    }
    struct store *store = worker->server->limits;
    for (size_t i = 0; i < round->count; i++)
        if (round->asks[i].cost != 0)
            store_adjust(store, &round->asks[i], &round->answers[i].ticket, -(int64_t)round->asks[i].cost, clock_us());
    for (size_t i = 0; i < round->places.count; i++)
        store_release(store, &round->leases[i]);
}

/* Gives back all that was taken for a call that is refused after all. */
static void take_back(struct call *call)
{
    while (call->limits->rounds != NULL) {
        struct limit_round *round = call->limits->rounds;
        call->limits->rounds = round->next;
        limit_round_undo(round, call->worker);
        limit_round_free(round);
    }
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

static enum depend_result refuse_over_limit(struct call *call, const struct limit_round *round, size_t at)
{
    char text[640], printed[100];
    struct strbuf limit;
    const struct config_limit *of = round->sources[at].of;
    strbuf_init_fixed(&limit, printed, sizeof(printed));
    limit_print(round->sources[at].limit, &limit);
    snprintf(text, sizeof(text), "Rate limit exceeded: %s",
             of != NULL && of->message != NULL ? of->message : strbuf_cstr(&limit));
    bool tokens = round->asks[at].limit->unit == LIMIT_TOKENS;
    uint64_t retry = round->answers[at].retry_us;
    if (retry != STRATEGY_NEVER)
        retry = retry > round->now_us ? retry - round->now_us : 0;
    telemetry_limit_refused(call->worker, of != NULL ? of->name : "key");
    return refuse(call, text, tokens ? "tokens" : "requests", "rate_limit_exceeded", retry);
}

/* ---- decided ---- */

/* The tightest limit of each unit speaks for all in the headers; one that refuses before all others. */
static void note_standing(struct call_limits *limits, const struct limit_round *round, size_t refused)
{
    limits->now_us = round->now_us;
    limits->prompt_guess = round->prompt_guess;
    for (size_t i = 0; i < round->count; i++) {
        if (round->sources[i].of != NULL && !round->sources[i].of->headers)
            continue;
        limits->headers = true;
        struct limit_standing *standing = &limits->standing[round->asks[i].limit->unit];
        const struct strategy_numbers *numbers = &round->answers[i].numbers;
        if (standing->limit == NULL || i == refused ||
            (numbers->remaining < standing->numbers.remaining && !limits->refused))
            *standing = (struct limit_standing){round->sources[i].limit, *numbers};
        if (i == refused)
            limits->refused = true;
    }
}

static struct call_limits *limits_of(struct call *call)
{
    if (call->limits == NULL) {
        call->limits = recycle_take(&recycled_limits, sizeof(*call->limits));
        *call->limits = (struct call_limits){.rounds = NULL};
    }
    return call->limits;
}

enum depend_result limit_admit(struct call *call, struct limit_round *round)
{
    struct call_limits *limits = limits_of(call);
    note_standing(limits, round, SIZE_MAX);
    limits->own_asked = limits->own_asked || round->own;
    for (size_t i = 0; i < round->places.count; i++)
        limits->leased[round->places.which[i]] = true;
    for (size_t i = 0; i < round->count; i++) {
        const struct config_limit *of = round->sources[i].of;
        if (i == 0 || of != round->sources[i - 1].of)
            telemetry_limit_allowed(call, of);
    }
    round->next = limits->rounds;
    limits->rounds = round;
    return DEPEND_NEXT;
}

enum depend_result limit_refuse(struct call *call, struct limit_round *round, size_t refused)
{
    struct call_limits *limits = limits_of(call);
    take_back(call);
    note_standing(limits, round, refused);
    enum depend_result result = refuse_over_limit(call, round, refused);
    limit_round_free(round);
    return result;
}

enum depend_result limit_refuse_place(struct call *call, struct limit_round *round)
{
    limits_of(call);
    take_back(call);
    limit_round_free(round);
    telemetry_limit_refused(call->worker, "max_streams");
    return refuse(call, "Too many requests at the same time for this API key or gateway.", "requests",
                  "concurrency_limit_exceeded", 1000000);
}

/* ---- in memory ---- */

static enum depend_result refuse_without_redis(struct call *call, const char *limit)
{
    struct dialect_error error = {.status = 503,
                                  .type = "server_error",
                                  .code = "limits_unavailable",
                                  .message = "The gateway cannot count requests at the moment."};
    if (call->limits != NULL)
        take_back(call);
    telemetry_limit_refused(call->worker, limit);
    call->record.refusal = error.code;
    call->transport->refuse(call, &error, 1, 0);
    return DEPEND_REFUSED;
}

static uint64_t part_of(uint64_t amount, unsigned gateways)
{
    uint64_t part = amount / gateways;
    return part != 0 || amount == 0 ? part : 1;
}

/* Leaves out what is let through without Redis. False, and the name of a limit that lets nothing through. */
static bool apply_failure(struct limit_decision *decision, const char **denied)
{
    size_t kept = 0;
    for (size_t i = 0; i < decision->count; i++) {
        const struct config_limit *of = decision->of[i];
        if (of != NULL && of->on_redis_failure == LIMIT_FAILURE_DENY) {
            *denied = of->name;
            return false;
        }
        if (of != NULL && of->on_redis_failure == LIMIT_FAILURE_ALLOW)
            continue;
        decision->of[kept] = of;
        decision->asks[kept++] = decision->asks[i];
    }
    decision->count = kept;
    return true;
}

/* Each of the gateways that share a limit counts its part while they cannot count together. What the whole would have
 * admitted costs no more than the part: it may be all of it. */
static void divide(struct limit_round *round, unsigned gateways)
{
    for (size_t i = 0; i < round->count; i++) {
        const struct limit *limit = round->sources[i].limit;
        struct limit *share = &round->shares[i];
        struct store_ask *ask = &round->asks[i];
        *share = *limit;
        share->amount = part_of(limit->amount, gateways);
        if (ask->cost > share->amount && ask->cost <= limit->amount)
            ask->cost = share->amount;
        ask->limit = share;
    }
    for (size_t i = 0; i < round->places.count; i++)
        round->places.places[i].max = part_of(round->places.places[i].max, gateways);
}

static bool lease(struct limit_round *round, struct server *server)
{
    if (round->places.count == 0)
        return true;
    struct span shared[] = {SPAN("max_streams, shared")};
    struct key share = key_make(&server->limit_secret, shared, 1);
    for (size_t i = 0; i < round->places.count; i++) {
        const struct redis_place *place = &round->places.places[i];
        if (!store_lease(server->limits, &place->key, &share, place->max, round->now_us, &round->leases[i])) {
            while (i-- != 0)
                store_release(server->limits, &round->leases[i]);
            return false;
        }
    }
    return true;
}

enum depend_result limit_decide_in_memory(struct call *call, bool fallback)
{
    struct limit_decision decision;
    struct limit_places places;
    struct server *server = call->worker->server;
    const char *denied;
    limit_gather(&decision, call, false);
    limit_places(call, false, &places);
    if (fallback && !apply_failure(&decision, &denied))
        return refuse_without_redis(call, denied);
    if (decision.count == 0 && places.count == 0)
        return DEPEND_NEXT;
    struct limit_round *round = limit_round_create(sizeof(*round), &decision, &places);
    if (fallback)
        divide(round, atomic_load_explicit(&server->gateways, memory_order_relaxed));
    if (!lease(round, server))
        return limit_refuse_place(call, round);
    size_t refused;
    if (round->count != 0 &&
        !store_hit(server->limits, round->asks, round->count, round->now_us, round->answers, &refused)) {
        for (size_t i = 0; i < places.count; i++)
            store_release(server->limits, &round->leases[i]);
        return limit_refuse(call, round, refused);
    }
    return limit_admit(call, round);
}

enum depend_result depend_limit(struct call *call)
{
    if (call->worker->server->limits == NULL)
        return DEPEND_NEXT;
    if (call->worker->limits != NULL)
        return limit_decide_in_redis(call);
    return limit_decide_in_memory(call, false);
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

static void settle_round(struct limit_round *round, struct worker *worker, uint64_t used)
{
    int64_t deltas[STORE_ASKS_MAX];
    for (size_t i = 0; i < round->count; i++) {
        const struct store_ask *ask = &round->asks[i];
        bool tokens = ask->limit->unit == LIMIT_TOKENS && ask->cost != 0;
        deltas[i] = tokens ? (int64_t)used - (int64_t)ask->cost : 0;
        if (round->redis == NULL && deltas[i] != 0)
            store_adjust(worker->server->limits, ask, &round->answers[i].ticket, deltas[i], clock_us());
    }
    if (round->redis != NULL)
        redis_store_settle(worker->limits, round->redis, deltas);
    for (size_t i = 0; round->redis == NULL && i < round->places.count; i++)
        store_release(worker->server->limits, &round->leases[i]);
}

void limit_settle(struct call *call)
{
    struct call_limits *limits = call->limits;
    if (limits == NULL)
        return;
    const struct call_record *record = &call->record;
    uint64_t used = tokens_used(call);
    while (limits->rounds != NULL) {
        struct limit_round *round = limits->rounds;
        limits->rounds = round->next;
        if (round->reserves || round->redis != NULL)
            settle_round(round, call->worker, used);
        limit_round_free(round);
    }
    if (record->usage.known && record->usage.completion != 0 && record->backend != NULL)
        call->worker->completion_average +=
            ((int64_t)record->usage.completion - (int64_t)call->worker->completion_average) / COMPLETION_WEIGHT;
    call->record.limited = limits->standing[LIMIT_REQUESTS].limit != NULL;
    call->record.limit_remaining = limits->standing[LIMIT_REQUESTS].numbers.remaining;
    recycle_give(&recycled_limits, limits);
    call->limits = NULL;
}

/* What the client is told, after a request was given back. */
static void raise_standing(struct limit_standing *standing, uint64_t cost, uint64_t now_us)
{
    standing->numbers.remaining += cost;
    if (standing->numbers.remaining >= standing->limit->amount)
        standing->numbers = (struct strategy_numbers){standing->limit->amount, now_us, now_us};
}

static void refund_round(struct limit_round *round, struct call *call)
{
    struct worker *worker = call->worker;
    struct limit_standing *standing = &call->limits->standing[LIMIT_REQUESTS];
    int64_t deltas[STORE_ASKS_MAX];
    for (size_t i = 0; i < round->count; i++) {
        const struct store_ask *ask = &round->asks[i];
        deltas[i] = ask->limit->unit == LIMIT_REQUESTS ? -(int64_t)ask->cost : 0;
        if (round->redis == NULL && deltas[i] != 0)
            store_adjust(worker->server->limits, ask, &round->answers[i].ticket, deltas[i], clock_us());
        if (deltas[i] != 0 && standing->limit == round->sources[i].limit)
            raise_standing(standing, ask->cost, round->now_us);
    }
    if (round->redis != NULL)
        redis_store_adjust(worker->limits, round->redis, deltas);
}

void limit_refund_hit(struct call *call)
{
    if (call->limits == NULL || call->site->config->count_hits)
        return;
    for (struct limit_round *round = call->limits->rounds; round != NULL; round = round->next)
        refund_round(round, call);
}
