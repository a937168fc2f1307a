/* The Lua scripts in a real Redis, held to vectors.txt and to what the C implementation answers. */
#include "ratelimit/scripts_in_redis.h"
#include "ratelimit/vectors.h"

/* ---- vectors ---- */

static struct {
    struct store_ask ask;
    struct limit limit;
    struct redis_question questions[VECTOR_HITS_MAX];
    struct store_answer answers[VECTOR_HITS_MAX];
} held;

static void vector_limit(enum limit_strategy strategy, const struct limit *limit)
{
    held.limit = *limit;
    held.ask.strategy = strategy;
    held.ask.limit = &held.limit;
    held.ask.key = next_key();
}

static bool vector_hit(unsigned nth, uint64_t now, uint64_t cost, uint64_t *retry, struct strategy_numbers *numbers)
{
    struct redis_verdict verdict;
    held.ask.cost = cost;
    held.questions[nth] = question_of(&held.ask, 1);
    bool allowed = hit(&held.questions[nth], &now, &held.answers[nth], &verdict);
    *retry = held.answers[nth].retry_us;
    *numbers = held.answers[nth].numbers;
    return allowed;
}

static void vector_adjust(unsigned nth, uint64_t now, int64_t delta, struct strategy_numbers *numbers)
{
    struct redis_verdict verdict;
    struct store_answer look;
    settle(&held.questions[nth], &held.answers[nth], &delta, false, &now);
    /* A hit that costs nothing says where the limit stands. */
    held.ask.cost = 0;
    struct redis_question question = question_of(&held.ask, 1);
    hit(&question, &now, &look, &verdict);
    *numbers = look.numbers;
}

START_TEST(vectors)
{
    static const struct vectors_of in_redis = {vector_limit, vector_hit, vector_adjust};
    vectors_check(&in_redis);
}
END_TEST

/* ---- against the C implementation ---- */

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
        size_t bytes = STRATEGY_LOG_MAX * sizeof(struct strategy_log_entry);
        void *slots = aligned_alloc(STRATEGY_LOG_BYTES_MIN, bytes);
        struct strategy_state state = {0};
        uint64_t now = UINT64_C(1795250030000000);
        if (strategy == LIMIT_MOVING_WINDOW)
            strategy_log_init(&state.log, slots, bytes);
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
        free(slots);
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

int main(void)
{
    TCase *tcase = tcase_create("rules");
    tcase_add_test(tcase, vectors);
    tcase_add_loop_test(tcase, same_answers_as_the_memory_store, 0, 12);
    tcase_add_loop_test(tcase, same_answers_when_the_clock_jumps, 0, 8);
    tcase_add_test(tcase, same_answers_of_large_numbers);
    tcase_add_loop_test(tcase, same_answers_of_long_logs, 0, 2);
    return run_in_redis("redis_rules", tcase);
}
