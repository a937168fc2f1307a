/* What the Lua scripts answer. Input: how many limits, for each its strategy and amount, how many places; the answer.
 */
#include "fuzz.h"
#include "ratelimit/redis_wire.h"

#define ASKS_MAX 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span reply = {(const char *)data, size};
    struct limit limits[ASKS_MAX];
    struct store_ask asks[ASKS_MAX];
    struct store_answer answers[ASKS_MAX];
    struct redis_verdict verdict;
    const uint64_t now_us = UINT64_C(1700000000000000);
    struct redis_question question = {.asks = asks, .count = fuzz_byte(&reply) % (ASKS_MAX + 1)};
    memset(answers, 0, sizeof(answers));
    for (size_t i = 0; i < question.count; i++) {
        unsigned strategy = fuzz_byte(&reply), amount = fuzz_byte(&reply);
        limits[i] = (struct limit){.amount = amount == 200 ? LIMIT_AMOUNT_MAX : amount,
                                   .window_us = UINT64_C(60000000) * (1 + strategy / 3),
                                   .multiple = 1,
                                   .granularity = LIMIT_MINUTE,
                                   .unit = amount % 2 != 0 ? LIMIT_TOKENS : LIMIT_REQUESTS};
        asks[i] = (struct store_ask){.key = {{strategy % 2, 1}},
                                     .limit = &limits[i],
                                     .strategy = (enum limit_strategy)(strategy % 3),
                                     .cost = amount % 5};
    }
    question.place_count = fuzz_byte(&reply) % (REDIS_PLACES_MAX + 1);
    for (size_t i = 0; i < question.place_count; i++)
        question.places[i].max = 1;
    char *bytes = fuzz_exact(reply);
    if (redis_wire_answer((struct span){bytes, reply.len}, &question, now_us, answers, &verdict)) {
        bool refused = false;
        MUST(verdict.place <= REDIS_PLACES_MAX);
        MUST(!verdict.admitted || verdict.place == REDIS_PLACES_MAX);
        for (size_t i = 0; verdict.place == REDIS_PLACES_MAX && i < question.count; i++) {
            MUST(answers[i].numbers.remaining <= limits[i].amount);
            MUST(answers[i].numbers.reset_us >= now_us && answers[i].numbers.full_us >= now_us);
            MUST(answers[i].retry_us >= now_us);
            refused = refused || !answers[i].allowed;
        }
        if (verdict.place == REDIS_PLACES_MAX)
            MUST(verdict.admitted != refused);
        if (refused)
            MUST(verdict.refused < question.count && !answers[verdict.refused].allowed);
    }
    free(bytes);
    return 0;
}
