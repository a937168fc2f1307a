/* Reservations and places in a real Redis, and what stands there that is not ours. */
#include "ratelimit/scripts_in_redis.h"

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

/* A log whose times lie before what its clock is ahead of Redis's: times must not wrap around to long ago or never. */
START_TEST(times_of_an_answer_do_not_wrap_around)
{
    struct limit limit = {.amount = 2, .window_us = 60 * SECOND, .multiple = 1};
    struct store_ask ask = {.limit = &limit, .strategy = LIMIT_MOVING_WINDOW, .cost = 1};
    struct redis_question question = question_of(&ask, 1);
    for (int admitted = 0; admitted < 2; admitted++) {
        char text[9 + 96] = "";
        struct store_answer answer;
        struct redis_verdict verdict;
        const uint64_t now = UINT64_C(1) << 60;
        double last = 5, offset = 9e15, count = admitted ? 1 : 2;
        memcpy(text + 9, &last, sizeof(last));
        memcpy(text + 9 + 8, &offset, sizeof(offset));
        memcpy(text + 9 + 16, &count, sizeof(count));
        text[8] = (char)admitted;
        ck_assert(redis_wire_answer((struct span){text, sizeof(text)}, &question, now, &answer, &verdict));
        ck_assert_int_eq(verdict.admitted, admitted);
        ck_assert_uint_eq(answer.retry_us, now);
        ck_assert_uint_eq(answer.numbers.reset_us, now);
        ck_assert_uint_eq(answer.numbers.full_us, now);
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("leases");
    tcase_add_loop_test(tcase, reservations_count_until_they_are_settled, 0, 3);
    tcase_add_loop_test(tcase, reservations_of_the_dead_lapse, 0, 3);
    tcase_add_test(tcase, what_is_refused_takes_nothing);
    tcase_add_test(tcase, places_are_bounded_released_and_lapse);
    tcase_add_test(tcase, leases_are_renewed);
    tcase_add_test(tcase, foreign_values_count_as_nothing);
    tcase_add_test(tcase, answers_that_are_none_are_refused);
    tcase_add_test(tcase, times_of_an_answer_do_not_wrap_around);
    return run_in_redis("redis_leases", tcase);
}
