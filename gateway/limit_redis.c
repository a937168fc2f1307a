#include "gateway/limit_round.h"
#include "gateway/redis_scripts.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"

/* A round whose limits are in Redis. */
struct redis_round {
    struct limit_round super;
    struct call *call;     /* NULL: it has left while Redis was asked */
    struct site *site;     /* counted, once it has: the limits are in it */
    struct worker *worker; /* once it has */
    struct call_job job;
    unsigned refusals; /* by Redis, so far */
    struct redis_hit hit;
};

static void on_leave(struct call_job *job);
static void on_answer(struct redis_hit *hit, enum redis_failure why);

void limit_redis_start(struct worker *worker)
{
    if (worker->redis == NULL || worker->server->limits == NULL)
        return;
    struct redis_store_settings settings = {.link = worker->redis,
                                            .deadlines = &worker->deadlines,
                                            .first_script = REDIS_SCRIPT_LIMIT_HIT,
                                            .prefix = span_of(worker->server->first->redis.prefix),
                                            .gateway = worker->server->gateway,
                                            .gateways = &worker->server->gateways};
    worker->limits = redis_store_create(&settings);
}

void limit_redis_stop(struct worker *worker)
{
    redis_store_destroy(worker->limits);
    worker->limits = NULL;
}

/* Sends the round's question; false, with nothing changed, if it cannot be asked now. */
static bool ask(struct call *call, struct redis_round *round, enum redis_failure *why)
{
    if (!redis_store_hit(call->worker->limits, &round->hit, why))
        return false;
    round->job.end = on_leave;
    call->job = &round->job;
    return true;
}

static struct redis_round *make_round(struct call *call, const struct limit_decision *decision,
                                      const struct limit_places *places)
{
    struct limit_round *super = limit_round_create(sizeof(struct redis_round), decision, places);
    struct redis_round *round = (struct redis_round *)super;
    memset((char *)round + sizeof(*super), 0, sizeof(*round) - sizeof(*super));
    round->call = call;
    struct redis_hit *hit = super->redis = &round->hit;
    hit->question.asks = super->asks;
    hit->question.count = super->count;
    memcpy(hit->question.places, places->places, sizeof(places->places));
    hit->question.place_count = places->count;
    hit->answers = super->answers;
    hit->on_answer = on_answer;
    return round;
}

enum depend_result limit_decide_in_redis(struct call *call)
{
    struct limit_decision decision;
    struct limit_places places;
    enum redis_failure why;
    if (!redis_link_up(call->worker->redis)) {
        telemetry_limit_fallback(call->worker, REDIS_DOWN);
        return limit_decide_in_memory(call, true);
    }
    limit_gather(&decision, call, true);
    limit_places(call, true, &places);
    if (decision.count == 0 && places.count == 0)
        return DEPEND_NEXT;
    struct redis_round *round = make_round(call, &decision, &places);
    if (!ask(call, round, &why)) {
        limit_round_free(&round->super);
        telemetry_limit_fallback(call->worker, why);
        return limit_decide_in_memory(call, true);
    }
    return DEPEND_WAIT;
}

/* The client has left, or the gateway ends. What Redis takes for it is given back when the answer comes. */
static void on_leave(struct call_job *job)
{
    struct redis_round *round = H2O_STRUCT_FROM_MEMBER(struct redis_round, job, job);
    round->site = site_retain(round->call->site);
    round->worker = round->call->worker;
    round->call = NULL;
}

/* Whether what an earlier call gave back could have made room. Requests are given back for cache hits only. */
static bool may_have_room(const struct call *call, const struct redis_round *round)
{
    const struct redis_verdict *verdict = &round->hit.verdict;
    const struct config *config = call->site->config;
    return verdict->place != REDIS_PLACES_MAX || round->super.asks[verdict->refused].limit->unit == LIMIT_TOKENS ||
           (config->cache.on && !config->count_hits);
}

/* Redis takes what is ready of its connections' input in rounds, and answers after each. What a client's last call gave
 * back may lie unread while the client's next question, over another connection, is answered in a round that had begun
 * before; and stand behind that question, when it is repeated, in the next one. So a refusal counts when it comes three
 * times. */
static bool ask_again(struct call *call, struct redis_round *round)
{
    enum redis_failure why;
    if (round->refusals == 3 || !may_have_room(call, round))
        return false;
    return ask(call, round, &why);
}

static enum depend_result conclude(struct call *call, struct redis_round *round, enum redis_failure why)
{
    const struct redis_verdict *verdict = &round->hit.verdict;
    if (why != REDIS_ANSWERED) {
        limit_round_free(&round->super);
        telemetry_limit_fallback(call->worker, why);
        return limit_decide_in_memory(call, true);
    }
    /* Times in the answers are those of its arrival. */
    round->super.now_us = round->hit.answered_us;
    if (verdict->admitted)
        return limit_admit(call, &round->super);
    round->refusals++;
    if (ask_again(call, round))
        return DEPEND_WAIT;
    if (verdict->place != REDIS_PLACES_MAX)
        return limit_refuse_place(call, &round->super);
    return limit_refuse(call, &round->super, verdict->refused);
}

static void on_answer(struct redis_hit *hit, enum redis_failure why)
{
    struct redis_round *round = H2O_STRUCT_FROM_MEMBER(struct redis_round, hit, hit);
    struct call *call = round->call;
    if (call == NULL) {
        struct site *site = round->site;
        if (why == REDIS_ANSWERED && hit->verdict.admitted)
            limit_round_undo(&round->super, round->worker);
        limit_round_free(&round->super);
        site_release(site);
        return;
    }
    call->job = NULL;
    /* The call may end within either. */
    if (conclude(call, round, why) == DEPEND_NEXT)
        call_run(call);
}
