/* The Lua scripts in a real Redis, held to vectors.txt and to what the C implementation answers. */
#include "ratelimit/limit_scripts.h"
#include "ratelimit/redis_wire.h"
#include "redis_server.h"
#include <check.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>

#define PREFIX SPAN("t:")

static struct redis_server server;
static redisContext *redis;
static const char *const scripts[LIMIT_SCRIPTS] = {limit_script_hit, limit_script_settle, limit_script_tend};
static char shas[LIMIT_SCRIPTS][41];

static void connect_and_load(void)
{
    redis_server_prepare(&server);
    redis_server_start(&server, NULL);
    redis = redisConnectUnix(server.path);
    ck_assert(redis != NULL && redis->err == 0);
    for (int i = 0; i < LIMIT_SCRIPTS; i++) {
        redisReply *reply = redisCommand(redis, "SCRIPT LOAD %s", scripts[i]);
        ck_assert_msg(reply != NULL && reply->type == REDIS_REPLY_STRING, "script %d: %s", i,
                      reply != NULL ? reply->str : redis->errstr);
        strcpy(shas[i], reply->str);
        freeReplyObject(reply);
    }
}

static void disconnect(void)
{
    redisFree(redis);
    redis_server_dispose(&server);
}

static redisReply *run(enum limit_script script, const struct redis_wire *wire)
{
    const char *args[300];
    size_t lens[300];
    char count[16];
    snprintf(count, sizeof(count), "%zu", wire->key_count);
    args[0] = "EVALSHA";
    args[1] = shas[script];
    args[2] = count;
    for (size_t i = 0; i < 3; i++)
        lens[i] = strlen(args[i]);
    for (size_t i = 0; i < wire->count; i++) {
        args[3 + i] = wire->args[i].base;
        lens[3 + i] = wire->args[i].len;
    }
    redisReply *reply = redisCommandArgv(redis, (int)(3 + wire->count), args, lens);
    ck_assert_msg(reply != NULL && reply->type != REDIS_REPLY_ERROR, "%s", reply != NULL ? reply->str : redis->errstr);
    return reply;
}

/* A new id for each question, as the store makes them. */
static struct redis_question question_of(const struct store_ask *asks, size_t count)
{
    static uint64_t ids;
    struct redis_question question = {.asks = asks, .count = count};
    ids++;
    memcpy(question.id, &ids, sizeof(ids));
    return question;
}

static bool hit(const struct redis_question *question, const uint64_t *now, struct store_answer *answers,
                struct redis_verdict *verdict)
{
    struct redis_wire wire;
    redis_wire_hit(&wire, PREFIX, question, now);
    redisReply *reply = run(LIMIT_SCRIPT_HIT, &wire);
    ck_assert(
        redis_wire_answer((struct span){reply->str, reply->len}, question, now != NULL ? *now : 0, answers, verdict));
    freeReplyObject(reply);
    return verdict->admitted;
}

static void settle(const struct redis_question *question, const struct store_answer *answers, const int64_t *deltas,
                   bool end, const uint64_t *now)
{
    struct redis_wire wire;
    if (redis_wire_settle(&wire, PREFIX, question, answers, deltas, end, now))
        freeReplyObject(run(LIMIT_SCRIPT_SETTLE, &wire));
}

static long long ask_redis(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(redis, format, args);
    va_end(args);
    ck_assert(reply != NULL && reply->type != REDIS_REPLY_ERROR);
    long long value = reply->integer;
    freeReplyObject(reply);
    return value;
}

static void forget_all(void)
{
    ask_redis("FLUSHALL");
}

static struct key next_key(void)
{
    static uint64_t keys;
    return (struct key){{0x6b, ++keys}};
}

/* ---- vectors ---- */

static struct {
    struct store_ask ask;
    struct limit limit;
    char name[128];
    unsigned line, hits, vectors;
    struct redis_question questions[256];
    struct store_answer answers[256];
} reader;

static void expect_numbers(const struct store_answer *answer, uint64_t remaining, uint64_t reset, uint64_t full)
{
    const struct strategy_numbers *numbers = &answer->numbers;
    ck_assert_msg(numbers->remaining == remaining && numbers->reset_us == reset && numbers->full_us == full,
                  "line %u, %s: remaining %" PRIu64 " reset %" PRIu64 " full %" PRIu64, reader.line, reader.name,
                  numbers->remaining, numbers->reset_us, numbers->full_us);
}

static void read_limit(const char *text)
{
    struct limit_error error;
    size_t count, len = strcspn(text, " ");
    ck_assert(limit_strategy_parse((struct span){text, len}, &reader.ask.strategy));
    ck_assert(limit_parse(span_of(text + len), &reader.limit, 1, &count, &error));
    reader.ask.limit = &reader.limit;
    reader.ask.key = next_key();
    reader.hits = 0;
    reader.vectors++;
}

static void read_hit(const char *text)
{
    uint64_t now, cost, remaining, reset, full;
    char verdict_text[16], retry_text[32];
    struct redis_verdict verdict;
    ck_assert_int_eq(sscanf(text, "%" SCNu64 " %" SCNu64 " = %15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %31s", &now,
                            &cost, verdict_text, &remaining, &reset, &full, retry_text),
                     7);
    uint64_t retry = strcmp(retry_text, "never") == 0 ? STRATEGY_NEVER : strtoull(retry_text, NULL, 10);
    reader.ask.cost = cost;
    struct redis_question question = question_of(&reader.ask, 1);
    struct store_answer *answer = &reader.answers[reader.hits];
    bool allowed = hit(&question, &now, answer, &verdict);
    ck_assert_msg(allowed == (strcmp(verdict_text, "allowed") == 0) && answer->retry_us == retry,
                  "line %u, %s: allowed %d retry %" PRIu64, reader.line, reader.name, allowed, answer->retry_us);
    ck_assert_uint_lt(reader.hits, 255);
    reader.questions[reader.hits++] = question;
    expect_numbers(answer, remaining, reset, full);
}

static void read_adjust(const char *text)
{
    uint64_t now, remaining, reset, full;
    int64_t delta;
    unsigned which;
    struct redis_verdict verdict;
    struct store_answer look;
    ck_assert_int_eq(sscanf(text, "%" SCNu64 " %u %" SCNd64 " = %" SCNu64 " %" SCNu64 " %" SCNu64, &now, &which, &delta,
                            &remaining, &reset, &full),
                     6);
    ck_assert_uint_lt(which, reader.hits);
    settle(&reader.questions[which], &reader.answers[which], &delta, false, &now);
    /* A hit that costs nothing says where the limit stands. */
    reader.ask.cost = 0;
    struct redis_question question = question_of(&reader.ask, 1);
    hit(&question, &now, &look, &verdict);
    expect_numbers(&look, remaining, reset, full);
}

START_TEST(vectors)
{
    FILE *file = fopen(TEST_DATA "/ratelimit/vectors.txt", "r");
    char line[512];
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        reader.line++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (strncmp(line, "vector ", 7) == 0)
            snprintf(reader.name, sizeof(reader.name), "%.120s", line + 7);
        else if (strncmp(line, "limit ", 6) == 0)
            read_limit(line + 6);
        else if (strncmp(line, "hit ", 4) == 0)
            read_hit(line + 4);
        else if (strncmp(line, "adjust ", 7) == 0)
            read_adjust(line + 7);
        else
            ck_abort_msg("line %u: %s", reader.line, line);
    }
    fclose(file);
    ck_assert_uint_ge(reader.vectors, 90);
}
END_TEST

/* ---- against the C implementation ---- */

static uint64_t seed = 88172645463325252u;

static uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

#define SECOND UINT64_C(1000000)
#define START UINT64_C(1795250030000000)

#define PICK(array) ((array)[random_below(sizeof(array) / sizeof((array)[0]))])

static const uint64_t amounts[] = {1, 2, 7, 60, 500, 16000, 16001, 100000, 1000000, UINT64_C(1000000000000000)};
static const uint64_t seconds[] = {1, 60, 3600, 86400, 31104000, UINT64_C(3110400000)};

static uint64_t random_cost(uint64_t amount)
{
    uint64_t top = 1 + random_below(amount), costs[] = {0, 1, 1, 1, 1 + amount / 50, 1 + amount / 7, top, amount + 1};
    return PICK(costs);
}

static void expect_same(const struct store_answer *a, const struct store_answer *b, unsigned step)
{
    ck_assert_msg(a->allowed == b->allowed && a->retry_us == b->retry_us &&
                      a->numbers.remaining == b->numbers.remaining && a->numbers.reset_us == b->numbers.reset_us &&
                      a->numbers.full_us == b->numbers.full_us,
                  "step %u: C %d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 ", Lua %d %" PRIu64 " %" PRIu64
                  " %" PRIu64 " %" PRIu64,
                  step, a->allowed, a->numbers.remaining, a->numbers.reset_us, a->numbers.full_us, a->retry_us,
                  b->allowed, b->numbers.remaining, b->numbers.reset_us, b->numbers.full_us, b->retry_us);
}

struct past {
    struct redis_question question;
    struct store_ask asks[3];
    struct store_answer memory[3], redis[3];
    size_t count;
};

/* Settles one ask of a hit in both; the delta is never below what was reserved, as in the gateway. */
static void settle_both(struct store *store, struct past *past, uint64_t now)
{
    int64_t deltas[3] = {0};
    size_t i = random_below(past->count);
    uint64_t cost = past->asks[i].cost, used[] = {0, cost / 2, cost, cost + 1, cost * 3};
    if (cost == 0)
        return;
    deltas[i] = (int64_t)PICK(used) - (int64_t)cost;
    past->question.asks = past->asks;
    store_adjust(store, &past->asks[i], &past->memory[i].ticket, deltas[i], now);
    settle(&past->question, past->redis, deltas, false, &now);
    past->count = 0;
}

/* Requests with up to three limits of a few clients; the same client may meet one limit twice. */
static void compare_requests(unsigned steps)
{
    struct store *store = store_create((size_t)64 << 20);
    struct limit limits[8];
    struct key keys[8];
    enum limit_strategy strategies[8];
    static struct past past[64];
    uint64_t now = UINT64_C(1795250030000000) + random_below(1000000), slowest = UINT64_MAX;
    memset(past, 0, sizeof(past));
    for (int i = 0; i < 8; i++) {
        limits[i] = (struct limit){.amount = PICK(amounts), .window_us = PICK(seconds) * 1000000, .multiple = 1};
        strategies[i] = (enum limit_strategy)random_below(3);
        keys[i] = next_key();
        slowest = limits[i].window_us < slowest ? limits[i].window_us : slowest;
    }
    for (unsigned step = 0; step < steps; step++) {
        struct past *p = &past[random_below(64)];
        now += random_below(4) == 0 ? 0 : random_below(random_below(30) == 0 ? 3 * slowest : slowest / 8);
        if (p->count != 0 && random_below(2) == 0) {
            settle_both(store, p, now);
            continue;
        }
        p->count = 1 + random_below(3);
        for (size_t i = 0; i < p->count; i++) {
            size_t which = random_below(8);
            p->asks[i] = (struct store_ask){.key = keys[which],
                                            .limit = &limits[which],
                                            .strategy = strategies[which],
                                            .cost = random_cost(limits[which].amount)};
        }
        struct redis_verdict verdict;
        size_t refused = 0;
        p->question = question_of(p->asks, p->count);
        bool a = store_hit(store, p->asks, p->count, now, p->memory, &refused);
        bool b = hit(&p->question, &now, p->redis, &verdict);
        for (size_t i = 0; i < p->count; i++)
            expect_same(&p->memory[i], &p->redis[i], step);
        ck_assert_msg(a == b && (a || refused == verdict.refused), "step %u", step);
        if (!a)
            p->count = 0;
    }
    store_destroy(store);
}

START_TEST(same_answers_as_the_memory_store)
{
    seed += (uint64_t)_i * 7919;
    compare_requests(1500);
}
END_TEST

/* One limit, and a clock that jumps both ways. */
START_TEST(same_answers_when_the_clock_jumps)
{
    struct limit limit = {.amount = amounts[_i % 8], .window_us = UINT64_C(60000000), .multiple = 1};
    struct store_ask ask = {.limit = &limit};
    seed += (uint64_t)_i * 104729;
    for (int strategy = 0; strategy < 3; strategy++) {
        struct strategy_log *log = malloc(strategy_log_size(STRATEGY_LOG_MAX));
        struct strategy_state state = {0};
        uint64_t now = UINT64_C(1795250030000000);
        strategy_log_init(log, STRATEGY_LOG_MAX);
        if (strategy == LIMIT_MOVING_WINDOW)
            state.log = log;
        ask.strategy = (enum limit_strategy)strategy;
        ask.key = next_key();
        for (unsigned step = 0; step < 600; step++) {
            struct store_answer c = {0}, lua;
            struct redis_verdict verdict;
            uint64_t back[] = {1, STRATEGY_SKEW_US, STRATEGY_SKEW_US + 1, 30000000, 3600000000};
            now += random_below(6000000);
            if (random_below(12) == 0)
                now -= PICK(back);
            ask.cost = step == 0 ? 1 : random_cost(limit.amount); /* Redis knows no state that consumed nothing */
            struct redis_question question = question_of(&ask, 1);
            c.allowed = strategy_allows(ask.strategy, &state, &limit, now, ask.cost, &c.retry_us);
            if (c.allowed)
                strategy_commit(ask.strategy, &state, &limit, now, ask.cost);
            strategy_look(ask.strategy, &state, &limit, now, &c.numbers);
            hit(&question, &now, &lua, &verdict);
            expect_same(&c, &lua, step);
        }
        free(log);
    }
}
END_TEST

/* Products of more than 2^53: the counts of long windows and large amounts. */
START_TEST(same_answers_of_large_numbers)
{
    for (unsigned step = 0; step < 400; step++) {
        struct limit limit = {.amount = UINT64_C(1000000000000000), .window_us = PICK(seconds) * SECOND, .multiple = 1};
        struct store_ask ask = {.limit = &limit, .strategy = LIMIT_SLIDING_WINDOW_COUNTER, .key = next_key()};
        struct strategy_state state = {0};
        uint64_t now = START + random_below(SECOND), left = 0;
        for (int i = 0; i < 3; i++) {
            struct store_answer c = {0}, lua;
            struct redis_verdict verdict;
            struct redis_question question = question_of(&ask, 1);
            /* At last what just fits, or one more. */
            ask.cost = i == 2 ? left + step % 2 : 1 + random_below(limit.amount / (i == 0 ? 1 : 3));
            c.allowed = strategy_allows(ask.strategy, &state, &limit, now, ask.cost, &c.retry_us);
            if (c.allowed)
                strategy_commit(ask.strategy, &state, &limit, now, ask.cost);
            strategy_look(ask.strategy, &state, &limit, now, &c.numbers);
            hit(&question, &now, &lua, &verdict);
            expect_same(&c, &lua, step);
            left = c.numbers.remaining;
            now += i == 0 ? limit.window_us + random_below(limit.window_us) : 0;
        }
    }
}
END_TEST

/* Long logs: blocks that fill, expire, lose their entries and are walked. */
START_TEST(same_answers_of_long_logs)
{
    struct store *store = store_create((size_t)64 << 20);
    struct limit limit = {.amount = _i == 0 ? 2000 : 400000, .window_us = UINT64_C(60000000), .multiple = 1};
    struct store_ask ask = {.limit = &limit, .strategy = LIMIT_MOVING_WINDOW, .key = next_key()};
    static struct {
        struct store_answer memory, redis;
        struct redis_question question;
        uint64_t cost;
    } past[4096];
    uint64_t now = UINT64_C(1795250030000000);
    memset(past, 0, sizeof(past));
    for (unsigned step = 0; step < 12000; step++) {
        struct redis_verdict verdict;
        size_t which = random_below(4096), refused = 0;
        now += random_below(step % 4000 < 3600 ? 30000 : 90000);
        if (past[which].cost != 0) {
            uint64_t cost = past[which].cost, used[] = {0, 0, cost, cost * 2};
            int64_t delta = (int64_t)PICK(used) - (int64_t)cost;
            ask.cost = cost;
            past[which].question.asks = &ask;
            store_adjust(store, &ask, &past[which].memory.ticket, delta, now);
            settle(&past[which].question, &past[which].redis, &delta, false, &now);
            past[which].cost = 0;
        }
        ask.cost = random_below(50) == 0 ? 1 + random_below(limit.amount) : 1 + random_below(limit.amount / 1000);
        struct redis_question question = question_of(&ask, 1);
        bool a = store_hit(store, &ask, 1, now, &past[which].memory, &refused);
        hit(&question, &now, &past[which].redis, &verdict);
        expect_same(&past[which].memory, &past[which].redis, step);
        past[which].question = question;
        past[which].cost = a ? ask.cost : 0;
    }
    store_destroy(store);
}
END_TEST

/* ---- leases ---- */

static struct limit tokens = {.amount = 1000, .window_us = 3600 * SECOND, .multiple = 1, .unit = LIMIT_TOKENS};

/* What is left of the limit of `ask` at `now`. */
static uint64_t left_of(const struct store_ask *ask, uint64_t now)
{
    struct store_ask look = *ask;
    struct store_answer answer;
    struct redis_verdict verdict;
    look.cost = 0;
    struct redis_question question = question_of(&look, 1);
    hit(&question, &now, &answer, &verdict);
    return answer.numbers.remaining;
}

START_TEST(reservations_count_until_they_are_settled)
{
    struct store_ask ask = {.key = next_key(), .limit = &tokens, .strategy = (enum limit_strategy)_i, .cost = 600};
    struct store_answer answer, other;
    struct redis_verdict verdict;
    uint64_t now = START;
    struct redis_question first = question_of(&ask, 1), second = question_of(&ask, 1);
    int64_t delta = -500;
    ck_assert(hit(&first, &now, &answer, &verdict));
    ck_assert(!hit(&second, &now, &other, &verdict));
    settle(&first, &answer, &delta, true, &now);
    ck_assert_uint_eq(left_of(&ask, now), 900);
    ck_assert(hit(&second, &now, &other, &verdict));
    ck_assert_uint_eq(left_of(&ask, now), 300);
    delta = 100; /* more than was reserved */
    settle(&second, &other, &delta, true, &now);
    ck_assert_uint_eq(left_of(&ask, now), 200);
}
END_TEST

START_TEST(reservations_of_the_dead_lapse)
{
    struct store_ask ask = {.key = next_key(), .limit = &tokens, .strategy = (enum limit_strategy)_i, .cost = 600};
    struct store_answer answer, other;
    struct redis_verdict verdict;
    struct redis_question first = question_of(&ask, 1), second = question_of(&ask, 1);
    uint64_t now = START - SECOND;
    struct limit plain = tokens;
    struct store_ask steady = {.key = ask.key, .limit = &plain, .strategy = ask.strategy, .cost = 50};
    struct redis_question before = question_of(&steady, 1);
    plain.unit = LIMIT_REQUESTS; /* no reservation; a window that falls to nothing would end */
    ck_assert(hit(&before, &now, &answer, &verdict));
    now = START;
    ck_assert(hit(&first, &now, &answer, &verdict));
    now += 44 * SECOND;
    ck_assert(!hit(&second, &now, &other, &verdict));
    now += 1 * SECOND;
    ck_assert(hit(&second, &now, &other, &verdict));
    ck_assert_uint_eq(left_of(&ask, now), 350);
    /* It was not dead after all: what it used is added. */
    int64_t delta = -590;
    settle(&first, &answer, &delta, true, &now);
    ck_assert_uint_eq(left_of(&ask, now), 340);
    delta = -600;
    settle(&second, &other, &delta, true, &now);
    ck_assert_uint_eq(left_of(&ask, now), 940);
}
END_TEST

START_TEST(what_is_refused_takes_nothing)
{
    struct limit few = {.amount = 1, .window_us = 3600 * SECOND, .multiple = 1};
    struct store_ask asks[] = {{.key = next_key(), .limit = &tokens, .strategy = LIMIT_MOVING_WINDOW, .cost = 100},
                               {.key = next_key(), .limit = &few, .strategy = LIMIT_FIXED_WINDOW, .cost = 1}};
    struct store_answer answers[2];
    struct redis_verdict verdict;
    uint64_t now = START;
    struct redis_question question = question_of(asks, 2);
    question.place_count = 1;
    question.places[0] = (struct redis_place){next_key(), 2};
    ck_assert(hit(&question, &now, answers, &verdict));
    struct redis_question second = question_of(asks, 2);
    second.place_count = 1;
    second.places[0] = question.places[0];
    ck_assert(!hit(&second, &now, answers, &verdict));
    ck_assert_uint_eq(verdict.refused, 1);
    ck_assert_uint_eq(verdict.place, REDIS_PLACES_MAX);
    ck_assert_uint_eq(left_of(&asks[0], now), 900);
    ck_assert_int_eq(ask_redis("ZCARD t:s:%016llx%016llx", (unsigned long long)question.places[0].key.word[0],
                               (unsigned long long)question.places[0].key.word[1]),
                     1);
}
END_TEST

START_TEST(places_are_bounded_released_and_lapse)
{
    struct store_answer none;
    struct redis_verdict verdict;
    struct redis_place place = {next_key(), 2};
    struct redis_question questions[4];
    uint64_t now = START;
    for (int i = 0; i < 4; i++) {
        questions[i] = question_of(NULL, 0);
        questions[i].place_count = 1;
        questions[i].places[0] = place;
    }
    ck_assert(hit(&questions[0], &now, &none, &verdict) && hit(&questions[1], &now, &none, &verdict));
    ck_assert(!hit(&questions[2], &now, &none, &verdict));
    ck_assert_uint_eq(verdict.place, 0);
    settle(&questions[0], NULL, NULL, true, &now);
    settle(&questions[0], NULL, NULL, true, &now); /* twice is once */
    ck_assert(hit(&questions[2], &now, &none, &verdict) && !hit(&questions[3], &now, &none, &verdict));
    now += 14 * SECOND - 1;
    ck_assert(!hit(&questions[3], &now, &none, &verdict));
    now += 1;
    ck_assert(hit(&questions[3], &now, &none, &verdict));
}
END_TEST

START_TEST(leases_are_renewed)
{
    struct store_ask ask = {.key = next_key(), .limit = &tokens, .strategy = LIMIT_FIXED_WINDOW, .cost = 10};
    struct store_answer answer;
    struct redis_verdict verdict;
    struct redis_wire wire;
    struct redis_question question = question_of(&ask, 1);
    question.place_count = 1;
    question.places[0] = (struct redis_place){next_key(), 2};
    ck_assert(hit(&question, NULL, &answer, &verdict));
    ask_redis("ZADD t:r:%016llx%016llx 1000 other", (unsigned long long)ask.key.word[0],
              (unsigned long long)ask.key.word[1]);
    for (uint64_t gateway = 1; gateway <= 3; gateway++) {
        redis_wire_tend(&wire, PREFIX, gateway);
        ck_assert(redis_wire_tend_add(&wire, PREFIX, &question, &answer, true));
        redisReply *reply = run(LIMIT_SCRIPT_TEND, &wire);
        ck_assert_int_eq(reply->integer, (long long)gateway);
        freeReplyObject(reply);
    }
    ck_assert_int_eq(ask_redis("ZCARD t:s:%016llx%016llx", (unsigned long long)question.places[0].key.word[0],
                               (unsigned long long)question.places[0].key.word[1]),
                     1);
    ck_assert_int_eq(
        ask_redis("ZCARD t:r:%016llx%016llx", (unsigned long long)ask.key.word[0], (unsigned long long)ask.key.word[1]),
        2);
    int64_t delta = 0;
    settle(&question, &answer, &delta, true, NULL);
    ck_assert_int_eq(ask_redis("EXISTS t:s:%016llx%016llx", (unsigned long long)question.places[0].key.word[0],
                               (unsigned long long)question.places[0].key.word[1]),
                     0);
    /* What has lapsed stays away: it was given back. */
    ask_redis("DEL t:r:%016llx%016llx", (unsigned long long)ask.key.word[0], (unsigned long long)ask.key.word[1]);
    redis_wire_tend(&wire, PREFIX, 1);
    redis_wire_tend_add(&wire, PREFIX, &question, &answer, true);
    freeReplyObject(run(LIMIT_SCRIPT_TEND, &wire));
    ck_assert_int_eq(ask_redis("EXISTS t:r:%016llx%016llx", (unsigned long long)ask.key.word[0],
                               (unsigned long long)ask.key.word[1]),
                     0);
}
END_TEST

/* Whatever stands under a key: an answer or an error, and no more than the limit once it is ours. */
START_TEST(foreign_values_count_as_nothing)
{
    static const char *const values[] = {"", "x", "0123456789012345678901234567890123456789",
                                         "\xff\xff\xff\xff\xff\xff\xff\x7f"};
    struct limit limit = {.amount = 2, .window_us = 60 * SECOND, .multiple = 1};
    char huge[200];
    memset(huge, 0xff, sizeof(huge));
    for (int strategy = 0; strategy < 3; strategy++) {
        for (size_t v = 0; v < 7; v++) {
            struct store_ask ask = {
                .key = next_key(), .limit = &limit, .strategy = (enum limit_strategy)strategy, .cost = 1};
            struct store_answer answer;
            struct redis_verdict verdict;
            ask_redis("SET t:l:%016llx%016llx %b", (unsigned long long)ask.key.word[0],
                      (unsigned long long)ask.key.word[1], v < 4 ? values[v] : huge,
                      v < 4    ? strlen(values[v])
                      : v == 4 ? 40
                      : v == 5 ? 80
                               : sizeof(huge));
            for (int i = 0; i < 3; i++) {
                struct redis_question question = question_of(&ask, 1);
                ck_assert_int_eq(hit(&question, NULL, &answer, &verdict), i < 2);
            }
        }
    }
}
END_TEST

START_TEST(answers_that_are_none_are_refused)
{
    struct limit limit = {.amount = 2, .window_us = 60 * SECOND, .multiple = 1};
    struct store_ask asks[2] = {{.limit = &limit, .strategy = LIMIT_MOVING_WINDOW, .cost = 1},
                                {.limit = &limit, .strategy = LIMIT_FIXED_WINDOW, .cost = 1}};
    struct store_answer answers[2];
    struct redis_verdict verdict;
    struct redis_question question = question_of(asks, 2);
    for (size_t len = 0; len < 200; len++) {
        for (int round = 0; round < 20; round++) {
            char *text = malloc(len + 1); /* of the exact size, so that reading beyond is seen */
            for (size_t i = 0; i < len; i++)
                text[i] = (char)random_below(256);
            if (len > 8 && round % 2 == 0)
                text[8] = (char)random_below(2);
            bool good = redis_wire_answer((struct span){text, len}, &question, 1, answers, &verdict);
            ck_assert(!good || len == 9 + 96 + 40);
            free(text);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("redis_rules");
    TCase *tcase = tcase_create("vectors");
    if (system("command -v redis-server >/dev/null 2>&1") != 0) {
        fprintf(stderr, "SKIPPED: redis-server is not installed; the scripts were not tested\n");
        return 0;
    }
    tcase_add_unchecked_fixture(tcase, connect_and_load, disconnect);
    tcase_add_checked_fixture(tcase, forget_all, NULL);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, vectors);
    tcase_add_loop_test(tcase, same_answers_as_the_memory_store, 0, 12);
    tcase_add_loop_test(tcase, same_answers_when_the_clock_jumps, 0, 8);
    tcase_add_test(tcase, same_answers_of_large_numbers);
    tcase_add_loop_test(tcase, same_answers_of_long_logs, 0, 2);
    tcase_add_loop_test(tcase, reservations_count_until_they_are_settled, 0, 3);
    tcase_add_loop_test(tcase, reservations_of_the_dead_lapse, 0, 3);
    tcase_add_test(tcase, what_is_refused_takes_nothing);
    tcase_add_test(tcase, places_are_bounded_released_and_lapse);
    tcase_add_test(tcase, leases_are_renewed);
    tcase_add_test(tcase, foreign_values_count_as_nothing);
    tcase_add_test(tcase, answers_that_are_none_are_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
