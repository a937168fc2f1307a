#include "ratelimit/store.h"
#include "run_suite.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND UINT64_C(1000000)
#define MINUTE (60 * SECOND)
#define NOW UINT64_C(1795250030000000)

static const struct key_secret secret = {{1, 2}};
static const enum limit_strategy strategies[] = {LIMIT_FIXED_WINDOW, LIMIT_MOVING_WINDOW, LIMIT_SLIDING_WINDOW_COUNTER};

/* An ask of a limit "AMOUNT per WINDOW" named `name` for one client. */
static struct store_ask make_ask(const char *name, const struct limit *limit, enum limit_strategy strategy,
                                 const char *client, uint64_t cost)
{
    struct key digest = key_of_limit(&secret, span_of(name), limit, strategy);
    struct key value = key_of_client(&secret, SPAN("client"), span_of(client));
    return (struct store_ask){key_for(&digest, &value), key_of_share(&secret, span_of(name), limit, strategy), limit,
                              strategy, cost};
}

static struct limit make_limit(uint64_t amount, uint64_t window_us)
{
    return (struct limit){.amount = amount, .window_us = window_us, .multiple = 1, .granularity = LIMIT_MINUTE};
}

static uint64_t remaining(struct store *store, const struct store_ask *ask, uint64_t now)
{
    struct strategy_numbers numbers;
    store_look(store, ask, now, &numbers);
    return numbers.remaining;
}

static struct store_counts count(struct store *store)
{
    struct store_counts counts;
    store_count(store, &counts);
    return counts;
}

START_TEST(all_or_nothing)
{
    struct store *store = store_create(0);
    struct limit wide = make_limit(100, MINUTE), narrow = make_limit(3, MINUTE), slow = make_limit(3, 60 * MINUTE);
    struct store_ask asks[] = {make_ask("wide", &wide, strategies[_i], "a", 1),
                               make_ask("narrow", &narrow, strategies[_i], "a", 1),
                               make_ask("slow", &slow, strategies[_i], "a", 1)};
    struct store_answer answers[3];
    size_t refused = 99;

    for (unsigned i = 0; i < 3; i++) {
        ck_assert(store_hit(store, asks, 3, NOW, answers, &refused));
        ck_assert_uint_eq(refused, 99);
        ck_assert_uint_eq(answers[0].numbers.remaining, 99 - i);
        ck_assert_uint_eq(answers[1].numbers.remaining, 2 - i);
        ck_assert(answers[0].allowed && answers[1].allowed && answers[2].allowed && !answers[0].shared);
    }
    for (unsigned i = 0; i < 20; i++) {
        ck_assert(!store_hit(store, asks, 3, NOW + i, answers, &refused));
        ck_assert_uint_eq(refused, 2); /* the one that refuses for the longest */
        ck_assert(answers[0].allowed && !answers[1].allowed && !answers[2].allowed);
        ck_assert_uint_eq(answers[0].numbers.remaining, 97);
        ck_assert_uint_gt(answers[2].retry_us, NOW + MINUTE);
        ck_assert_uint_ge(answers[1].retry_us, NOW + MINUTE);
        ck_assert_uint_le(answers[1].retry_us, NOW + 2 * MINUTE);
    }
    /* Two of the three, in the other order. */
    struct store_ask reversed[] = {asks[1], asks[0]};
    ck_assert(!store_hit(store, reversed, 2, NOW + 30, answers, &refused));
    ck_assert_uint_eq(refused, 0);
    ck_assert_uint_eq(remaining(store, &asks[0], NOW + 30), 97);
    ck_assert(store_hit(store, asks, 1, NOW + 30, answers, NULL));
    ck_assert(store_hit(store, asks, 0, NOW + 30, answers, NULL));
    store_destroy(store);
}
END_TEST

START_TEST(a_refused_stranger_leaves_nothing_behind)
{
    struct store *store = store_create(0);
    struct limit wide = make_limit(100, MINUTE), none = make_limit(0, MINUTE);
    struct store_answer answers[2];
    size_t refused;

    for (int i = 0; i < 1000; i++) {
        char client[32];
        snprintf(client, sizeof(client), "%d", i);
        struct store_ask asks[] = {make_ask("w", &wide, strategies[_i], client, i % 2 ? 1 : 101),
                                   make_ask("n", &none, strategies[_i], client, 1)};
        ck_assert(!store_hit(store, asks, 2, NOW, answers, &refused));
        ck_assert_uint_eq(answers[1].retry_us, STRATEGY_NEVER);
        asks[0].cost = 0;
        ck_assert(store_hit(store, asks, 1, NOW, answers, &refused));
        ck_assert_uint_eq(answers[0].numbers.remaining, 100);
    }
    ck_assert_uint_eq(count(store).entries, 0);
    store_destroy(store);
}
END_TEST

START_TEST(one_key_twice_in_a_request_pays_twice)
{
    struct store *store = store_create(0);
    struct limit limit = make_limit(5, MINUTE);
    struct store_ask ask = make_ask("l", &limit, strategies[_i], "a", 1), asks[] = {ask, ask};
    struct store_answer answers[2];

    asks[0].cost = 2;
    ck_assert(store_hit(store, asks, 2, NOW, answers, NULL));
    ck_assert_uint_eq(answers[0].numbers.remaining, 2);
    ck_assert_uint_eq(answers[1].numbers.remaining, 2);
    ck_assert(!store_hit(store, asks, 2, NOW, answers, NULL));
    ck_assert(answers[0].allowed && !answers[1].allowed);
    asks[0].cost = asks[1].cost = UINT64_MAX;
    ck_assert(!store_hit(store, asks, 2, NOW, answers, NULL));
    ck_assert_uint_eq(remaining(store, &ask, NOW), 2);
    /* New, twice, and refused. */
    asks[0] = asks[1] = make_ask("l", &limit, strategies[_i], "b", 3);
    ck_assert(!store_hit(store, asks, 2, NOW, answers, NULL));
    ck_assert_uint_eq(count(store).entries, 1);
    store_destroy(store);
}
END_TEST

START_TEST(reservations_are_settled)
{
    struct store *store = store_create(0);
    struct limit limit = make_limit(1000, MINUTE);
    struct store_ask ask = make_ask("l", &limit, strategies[_i], "a", 600), other = ask;
    struct store_answer answer, second;

    other.key.word[0]++;
    ck_assert(store_hit(store, &ask, 1, NOW, &answer, NULL));
    ck_assert(!store_hit(store, &ask, 1, NOW, &second, NULL));
    store_adjust(store, &ask, &answer.ticket, -500, NOW + SECOND);
    ck_assert_uint_eq(remaining(store, &ask, NOW + SECOND), 900);
    ck_assert(store_hit(store, &ask, 1, NOW + SECOND, &second, NULL));
    store_adjust(store, &ask, &second.ticket, 5000, NOW + 2 * SECOND);
    ck_assert_uint_eq(remaining(store, &ask, NOW + 2 * SECOND), 0);
    store_adjust(store, &other, &second.ticket, 5000, NOW + 2 * SECOND); /* no such key */
    ck_assert_uint_eq(remaining(store, &other, NOW), 1000);
    ck_assert(store_hit(store, &ask, 1, NOW + 5 * MINUTE, &second, NULL));
    store_adjust(store, &ask, &answer.ticket, -600, NOW + 5 * MINUTE);
    ck_assert_uint_eq(remaining(store, &ask, NOW + 5 * MINUTE), 400);
    store_destroy(store);
}
END_TEST

/* Hits with a new client each time until clients have to share; returns the number of clients. */
static int flood(struct store *store, const struct limit *limit, enum limit_strategy strategy, uint64_t now, int from,
                 uint64_t *shared_admitted)
{
    struct store_answer answer;
    int i, shared = 0;
    *shared_admitted = 0;
    for (i = from; i < from + 200000 && shared < 4000; i++) {
        char client[32];
        snprintf(client, sizeof(client), "%d", i);
        struct store_ask ask = make_ask("l", limit, strategy, client, 1);
        bool admitted = store_hit(store, &ask, 1, now, &answer, NULL);
        ck_assert(admitted || answer.shared);
        shared += answer.shared;
        *shared_admitted += admitted && answer.shared;
    }
    return i - from;
}

START_TEST(fresh_keys_push_nobody_out_and_share_one_limit)
{
    size_t max = 1024 * 1024;
    struct store *store = store_create(max);
    struct limit limit = make_limit(5, MINUTE), other = make_limit(7, MINUTE);
    struct store_ask victims[100], late = make_ask("other", &other, strategies[_i], "late", 1);
    struct store_answer answer;
    uint64_t admitted;

    for (int i = 0; i < 100; i++) {
        char client[32];
        snprintf(client, sizeof(client), "victim %d", i);
        victims[i] = make_ask("l", &limit, strategies[_i], client, 5);
        ck_assert(store_hit(store, &victims[i], 1, NOW, &answer, NULL));
    }
    int clients = flood(store, &limit, strategies[_i], NOW + SECOND, 0, &admitted);
    ck_assert(clients < 200000 && clients > 4000 + 4000); /* the store holds some thousands first */
    ck_assert_uint_eq(admitted, 5);                       /* one state for all that found no room */
    struct store_counts counts = count(store);
    ck_assert_uint_le(counts.bytes, max);
    ck_assert_uint_ge(counts.overflows, 4000);
    ck_assert_uint_eq(counts.evictions, 0);
    for (int i = 0; i < 100; i++) {
        victims[i].cost = 1;
        ck_assert(!store_hit(store, &victims[i], 1, NOW + 2 * SECOND, &answer, NULL));
        ck_assert(!answer.shared);
    }
    /* Another limit's shared state is another. */
    for (int i = 0; i < 7; i++)
        ck_assert(store_hit(store, &late, 1, NOW + 2 * SECOND, &answer, NULL));
    ck_assert(!store_hit(store, &late, 1, NOW + 2 * SECOND, &answer, NULL));

    /* Once they have expired there is room again, within the same bytes. */
    int again = flood(store, &limit, strategies[_i], NOW + 3 * MINUTE, 1000000, &admitted);
    ck_assert_int_gt(again, 4000 + 4000);
    counts = count(store);
    ck_assert_uint_le(counts.bytes, max);
    ck_assert_uint_gt(counts.evictions, 4000);
    store_destroy(store);
}
END_TEST

START_TEST(expired_entries_go_as_others_come)
{
    struct store *store = store_create(1024 * 1024);
    struct limit limit = make_limit(5, SECOND);
    struct store_answer answer;

    for (int i = 0; i < 100000; i++) { /* a thousand a second: some thousands are alive */
        char client[32];
        snprintf(client, sizeof(client), "%d", i);
        struct store_ask ask = make_ask("l", &limit, strategies[_i], client, 1);
        ck_assert(store_hit(store, &ask, 1, NOW + (uint64_t)i * 1000, &answer, NULL));
        ck_assert(!answer.shared);
    }
    ck_assert_uint_lt(count(store).entries, 5000);
    store_destroy(store);
}
END_TEST

START_TEST(settling_what_was_shared)
{
    struct store *store = store_create(0);
    struct limit limit = make_limit(100000, MINUTE), one = make_limit(1, MINUTE);
    struct store_answer answer = {0};
    struct store_ask ask;
    uint64_t admitted;

    flood(store, &one, strategies[_i], NOW, 0, &admitted);
    /* Until one is found whose shard is full. */
    for (int i = 0; i < 1000 && !answer.shared; i++) {
        char client[32];
        snprintf(client, sizeof(client), "client %d", i);
        ask = make_ask("tokens", &limit, strategies[_i], client, 100);
        ck_assert(store_hit(store, &ask, 1, NOW, &answer, NULL));
    }
    ck_assert(answer.shared);
    uint64_t before = answer.numbers.remaining;
    store_adjust(store, &ask, &answer.ticket, -60, NOW + SECOND);
    ask.cost = 1;
    ck_assert(store_hit(store, &ask, 1, NOW + SECOND, &answer, NULL));
    ck_assert(answer.shared);
    ck_assert_uint_eq(answer.numbers.remaining, before + 60 - 1);
    store_destroy(store);
}
END_TEST

/* A log that outgrows its share keeps the limit, in fewer entries. */
START_TEST(a_log_has_a_maximum_too)
{
    size_t max = 256 * 1024;
    struct store *store = store_create(max);
    struct limit limit = make_limit(15000, MINUTE);
    struct store_ask ask = make_ask("l", &limit, LIMIT_MOVING_WINDOW, "a", 1);
    struct store_answer answer;
    unsigned admitted = 0;

    for (uint64_t i = 0; i < 20000; i++)
        admitted += store_hit(store, &ask, 1, NOW + i * 1000, &answer, NULL);
    ck_assert_uint_eq(admitted, 15000);
    ck_assert_uint_le(count(store).bytes, max);
    ck_assert(!store_hit(store, &ask, 1, NOW + MINUTE - 1, &answer, NULL));
    ck_assert(!store_hit(store, &ask, 1, answer.retry_us - 1, &answer, NULL));
    ck_assert(store_hit(store, &ask, 1, answer.retry_us, &answer, NULL));
    ck_assert_uint_lt(answer.retry_us, NOW + MINUTE + MINUTE / 100);
    store_destroy(store);
}
END_TEST

START_TEST(leases)
{
    struct store *store = store_create(0);
    struct key key = {{1, 1}}, share = {{2, 2}};
    struct store_lease held[4], more, none = {0};

    ck_assert(!store_lease(store, &key, &share, 0, NOW, &more));
    for (int i = 0; i < 3; i++)
        ck_assert(store_lease(store, &key, &share, 3, NOW, &held[i]));
    ck_assert(!store_lease(store, &key, &share, 3, NOW, &more));
    store_release(store, &more);
    store_release(store, &none);
    ck_assert(!store_lease(store, &key, &share, 3, NOW + 1000 * MINUTE, &more)); /* they do not expire */
    ck_assert(store_lease(store, &key, &share, 4, NOW, &held[3]));
    for (int i = 0; i < 2; i++)
        store_release(store, &held[1]); /* the second time nothing happens */
    ck_assert(!store_lease(store, &key, &share, 3, NOW, &more));
    store_release(store, &held[0]);
    ck_assert(store_lease(store, &key, &share, 3, NOW, &held[0]));
    ck_assert_uint_eq(count(store).entries, 1);
    for (int i = 0; i < 4; i++)
        store_release(store, &held[i]);
    ck_assert_uint_eq(count(store).entries, 0);
    store_destroy(store);
}
END_TEST

START_TEST(leases_survive_a_flood_and_share_when_there_is_no_room)
{
    struct store *store = store_create(0);
    struct limit limit = make_limit(5, MINUTE);
    struct key key = {{1, 1}}, share = {{2, 2}};
    struct store_lease held, more[1000];
    uint64_t admitted;
    unsigned taken = 0, shared = 0;

    ck_assert(store_lease(store, &key, &share, 1, NOW, &held));
    flood(store, &limit, LIMIT_FIXED_WINDOW, NOW, 0, &admitted);
    ck_assert(!store_lease(store, &key, &share, 1, NOW, &more[0]));
    for (uint64_t i = 0; i < 1000; i++) {
        struct key fresh = {{i + 10, i}};
        taken += store_lease(store, &fresh, &share, 2, NOW, &more[i]);
        shared += more[i]._shared;
    }
    ck_assert_uint_eq(shared, 2);
    ck_assert_uint_lt(taken, 1000);
    for (int i = 0; i < 1000; i++)
        store_release(store, &more[i]);
    store_release(store, &held);
    ck_assert(store_lease(store, &key, &share, 1, NOW, &held));
    store_release(store, &held);
    store_destroy(store);
}
END_TEST

/* ---- threads ---- */

struct hammer {
    struct store *store;
    const struct store_ask *asks;
    size_t count;
    unsigned admitted;
    int step;
};

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    for (uint64_t i = 0; i < 20000; i++) {
        struct store_answer answers[2];
        /* In the other order every other time: no order of asks may deadlock. */
        struct store_ask asks[2] = {h->asks[i % 2], h->asks[1 - i % 2]};
        struct store_lease lease;
        bool admitted = store_hit(h->store, asks, h->count, NOW + i, answers, NULL);
        h->admitted += admitted;
        if (admitted && i % 8 == 0)
            store_adjust(h->store, &asks[0], &answers[0].ticket, 0, NOW + i);
        if (store_lease(h->store, &h->asks[0].key, &h->asks[0].share, 1, NOW + i, &lease))
            store_release(h->store, &lease);
    }
    return NULL;
}

START_TEST(threads_admit_exactly_the_limit)
{
    struct store *store = store_create(0);
    struct limit narrow = make_limit(9000, MINUTE), wide = make_limit(100000, MINUTE);
    struct store_ask asks[] = {make_ask("narrow", &narrow, strategies[_i], "a", 1),
                               make_ask("wide", &wide, strategies[_i], "a", 1)};
    struct hammer hammers[3];
    pthread_t threads[3];
    unsigned admitted = 0;

    for (int i = 0; i < 3; i++) {
        hammers[i] = (struct hammer){.store = store, .asks = asks, .count = 2};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, &hammers[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        admitted += hammers[i].admitted;
    }
    ck_assert_uint_eq(admitted, 9000);
    ck_assert_uint_eq(remaining(store, &asks[1], NOW + SECOND), 100000 - 9000);
    ck_assert_uint_eq(count(store).entries, 2);
    store_destroy(store);
}
END_TEST

static void *crowd(void *arg)
{
    struct hammer *h = arg;
    struct store_ask asks[2] = {h->asks[0], h->asks[1]};
    struct store_answer answers[2];
    for (uint64_t i = 0; i < 30000; i++) {
        for (int k = 0; k < 2; k++) {
            asks[k].key.word[0] = (i * 2 + (uint64_t)k) * UINT64_C(0x9e3779b97f4a7c15);
            asks[k].key.word[1] = asks[k].key.word[0] >> 17;
        }
        h->admitted += store_hit(h->store, asks, 2, NOW + i * 100 * (uint64_t)h->step, answers, NULL);
        if (i % 1000 == 0)
            count(h->store);
    }
    return NULL;
}

START_TEST(threads_with_many_keys_in_a_full_store)
{
    struct store *store = store_create(0);
    struct limit limit = make_limit(2, SECOND);
    struct store_ask asks[] = {make_ask("a", &limit, strategies[_i], "", 1),
                               make_ask("b", &limit, strategies[(_i + 1) % 3], "", 1)};
    struct hammer hammers[2];
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        hammers[i] = (struct hammer){.store = store, .asks = asks, .step = i + 1};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, crowd, &hammers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_gt(hammers[0].admitted + hammers[1].admitted, 100);
    ck_assert_uint_le(count(store).bytes, STORE_BYTES_MIN);
    ck_assert_uint_gt(count(store).evictions, 0);
    store_destroy(store);
}
END_TEST

/* Against one state for each key: any mix of keys and limits, all-or-nothing, exactly. */
START_TEST(random_requests_agree_with_single_states)
{
    enum { CLIENTS = 5, LIMITS = 3 };
    struct store *store = store_create(STORE_BYTES_DEFAULT);
    struct limit limits[LIMITS] = {make_limit(4, SECOND), make_limit(20, 10 * SECOND), make_limit(300, MINUTE)};
    static struct strategy_state states[CLIENTS][LIMITS];
    uint64_t now = NOW;
    unsigned seed = 5, refusals = 0;

    memset(states, 0, sizeof(states));
    for (int c = 0; c < CLIENTS; c++)
        for (int l = 0; l < LIMITS && strategies[_i] == LIMIT_MOVING_WINDOW; l++) {
            strategy_log_init(&states[c][l].log, aligned_alloc(STRATEGY_LOG_BYTES_MIN, 8192), 8192);
        }
    for (int i = 0; i < 20000; i++) {
        unsigned client = (unsigned)rand_r(&seed) % CLIENTS, count_asks = 1 + (unsigned)rand_r(&seed) % LIMITS;
        char name[] = {(char)('0' + client), '\0'};
        struct store_ask asks[LIMITS];
        struct store_answer answers[LIMITS];
        bool expected = true;
        uint64_t retry;
        now += (unsigned)rand_r(&seed) % 200000;
        for (unsigned l = 0; l < count_asks; l++) {
            asks[l] = make_ask("l", &limits[l], strategies[_i], name, (unsigned)rand_r(&seed) % 4);
            expected &= strategy_allows(strategies[_i], &states[client][l], &limits[l], now, asks[l].cost, &retry);
        }
        ck_assert_int_eq(store_hit(store, asks, count_asks, now, answers, NULL), expected);
        for (unsigned l = 0; l < count_asks; l++) {
            struct strategy_numbers numbers;
            if (expected)
                strategy_commit(strategies[_i], &states[client][l], &limits[l], now, asks[l].cost);
            strategy_look(strategies[_i], &states[client][l], &limits[l], now, &numbers);
            ck_assert_uint_eq(answers[l].numbers.remaining, numbers.remaining);
            ck_assert_uint_eq(answers[l].numbers.reset_us, numbers.reset_us);
            ck_assert_uint_eq(answers[l].numbers.full_us, numbers.full_us);
        }
        refusals += !expected;
    }
    ck_assert_uint_gt(refusals, 1000);
    ck_assert_uint_lt(refusals, 19000);
    for (int c = 0; c < CLIENTS; c++)
        for (int l = 0; l < LIMITS && strategies[_i] == LIMIT_MOVING_WINDOW; l++)
            free(strategy_log_slots(&states[c][l].log));
    store_destroy(store);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("store");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, all_or_nothing, 0, 3);
    tcase_add_loop_test(tc, a_refused_stranger_leaves_nothing_behind, 0, 3);
    tcase_add_loop_test(tc, one_key_twice_in_a_request_pays_twice, 0, 3);
    tcase_add_loop_test(tc, reservations_are_settled, 0, 3);
    tcase_add_loop_test(tc, fresh_keys_push_nobody_out_and_share_one_limit, 0, 3);
    tcase_add_loop_test(tc, expired_entries_go_as_others_come, 0, 3);
    tcase_add_loop_test(tc, settling_what_was_shared, 0, 3);
    tcase_add_test(tc, a_log_has_a_maximum_too);
    tcase_add_test(tc, leases);
    tcase_add_test(tc, leases_survive_a_flood_and_share_when_there_is_no_room);
    tcase_add_loop_test(tc, threads_admit_exactly_the_limit, 0, 3);
    tcase_add_loop_test(tc, threads_with_many_keys_in_a_full_store, 0, 3);
    tcase_add_loop_test(tc, random_requests_agree_with_single_states, 0, 3);
    return run_suite("store", tc);
}
