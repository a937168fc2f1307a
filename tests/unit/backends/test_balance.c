#include "backends/balance.h"
#include "run_suite.h"
#include <stdio.h>

#define SERVERS_MAX 100

static struct balance_candidate candidates[SERVERS_MAX];
static int64_t turns[SERVERS_MAX];
static unsigned counts[SERVERS_MAX];
static size_t server_count;

static void servers(const unsigned *weights, size_t count)
{
    server_count = count;
    for (size_t i = 0; i < count; i++) {
        char name[16];
        int len = snprintf(name, sizeof(name), "server-%zu", i);
        turns[i] = 0;
        counts[i] = 0;
        candidates[i] = (struct balance_candidate){
            .hash = balance_hash(name, (size_t)len, 0), .id = (uint32_t)i, .weight = weights[i], .turn = &turns[i]};
    }
}

#define SERVERS(...)                                                                                                   \
    servers((const unsigned[]){__VA_ARGS__}, sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned))

static size_t choose(struct balance_request request)
{
    size_t chosen = balance_choose(&request, candidates, server_count);
    ck_assert_uint_lt(chosen, server_count);
    counts[chosen]++;
    return chosen;
}

static void assert_share(size_t i, unsigned of, double share, double tolerance)
{
    ck_assert_msg((double)counts[i] / of > share - tolerance && (double)counts[i] / of < share + tolerance,
                  "server %zu got %u of %u, expected %.3f", i, counts[i], of, share);
}

START_TEST(round_robin_is_smooth_and_exact)
{
    char order[32] = "";
    SERVERS(5, 1, 1);
    for (size_t i = 0; i < 7; i++)
        order[i] = (char)('a' + choose((struct balance_request){.policy = BALANCE_ROUND_ROBIN}));
    ck_assert_str_eq(order, "aabacaa"); /* as nginx has it */
    for (int i = 7; i < 700; i++)
        choose((struct balance_request){.policy = BALANCE_ROUND_ROBIN});
    ck_assert_uint_eq(counts[0], 500);
    ck_assert_uint_eq(counts[1], 100);
    ck_assert_uint_eq(counts[2], 100);
}
END_TEST

/* Requests of unequal servers: server i is twice as slow as server i - 1; each choice is a moment. */
static void run(enum balance_policy policy, unsigned rounds, const unsigned *duration)
{
    static unsigned ends[SERVERS_MAX][4096];
    uint64_t state = 42;
    for (unsigned now = 0; now < rounds; now++) {
        for (size_t i = 0; i < server_count; i++)
            for (unsigned j = 0; j < candidates[i].in_flight;) {
                if (ends[i][j] > now)
                    j++;
                else
                    ends[i][j] = ends[i][--candidates[i].in_flight];
            }
        size_t chosen = choose((struct balance_request){.policy = policy, .random = balance_random(&state)});
        ends[chosen][candidates[chosen].in_flight++] = now + duration[chosen];
    }
}

START_TEST(least_requests_follows_the_speed_of_servers)
{
    SERVERS(1, 1, 1);
    run(BALANCE_LEAST_REQUESTS, 7000, (const unsigned[]){10, 20, 40});
    assert_share(0, 7000, 4.0 / 7, 0.03);
    assert_share(1, 7000, 2.0 / 7, 0.03);
    assert_share(2, 7000, 1.0 / 7, 0.03);
}
END_TEST

START_TEST(least_requests_gives_idle_equals_turns_by_weight)
{
    SERVERS(3, 1);
    for (int i = 0; i < 400; i++)
        choose((struct balance_request){.policy = BALANCE_LEAST_REQUESTS});
    ck_assert_uint_eq(counts[0], 300);
    candidates[0].in_flight = 4;
    candidates[1].in_flight = 1;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_LEAST_REQUESTS}), 1);
    candidates[0].in_flight = 2; /* for its weight less */
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_LEAST_REQUESTS}), 0);
}
END_TEST

START_TEST(power_of_two_spreads_by_weight_and_spares_the_slow)
{
    uint64_t state = 7;
    SERVERS(2, 1, 1);
    for (int i = 0; i < 40000; i++)
        choose((struct balance_request){.policy = BALANCE_POWER_OF_TWO, .random = balance_random(&state)});
    assert_share(0, 40000, 0.5, 0.02); /* all idle: the first draw decides */
    assert_share(1, 40000, 0.25, 0.02);
    SERVERS(1, 1, 1);
    run(BALANCE_POWER_OF_TWO, 7000, (const unsigned[]){10, 20, 200});
    ck_assert_uint_gt(counts[0], counts[1]);
    ck_assert_uint_gt(counts[1], 2 * counts[2]);
    SERVERS(1, 1);
    candidates[0].in_flight = 9;
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(
            choose((struct balance_request){.policy = BALANCE_POWER_OF_TWO, .random = balance_random(&state)}), 1);
}
END_TEST

static size_t by_key(uint64_t key)
{
    return choose((struct balance_request){
        .policy = BALANCE_CONSISTENT_HASH, .key = balance_hash(&key, sizeof(key), 0), .has_key = true});
}

START_TEST(consistent_hash_is_sticky_and_shares_by_weight)
{
    SERVERS(1, 2, 1, 4);
    for (uint64_t key = 0; key < 40000; key++)
        ck_assert_uint_eq(by_key(key), by_key(key));
    for (size_t i = 0; i < 4; i++)
        assert_share(i, 80000, candidates[i].weight / 8.0, 0.01);
}
END_TEST

START_TEST(consistent_hash_moves_only_the_keys_of_a_server_that_goes)
{
    size_t before[5000], moved = 0;
    SERVERS(1, 1, 1, 1, 1);
    for (uint64_t key = 0; key < 5000; key++)
        before[key] = by_key(key);
    server_count = 4;
    for (uint64_t key = 0; key < 5000; key++) {
        size_t now = by_key(key);
        if (before[key] != 4)
            ck_assert_uint_eq(now, before[key]);
        else
            moved++;
    }
    ck_assert_uint_gt(moved, 800);
    ck_assert_uint_lt(moved, 1200);
}
END_TEST

START_TEST(consistent_hash_bounds_the_load_of_a_popular_key)
{
    SERVERS(1, 1, 1, 1);
    for (int i = 0; i < 400; i++)
        candidates[by_key(1)].in_flight++;
    for (size_t i = 0; i < 4; i++)
        ck_assert_uint_le(candidates[i].in_flight, 127); /* 5/4 of 100, and a little for the last ones */
}
END_TEST

START_TEST(without_a_key_the_least_loaded_is_chosen)
{
    SERVERS(1, 1);
    candidates[0].in_flight = 1;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_CONSISTENT_HASH}), 1);
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_PREFIX, .warm = BALANCE_NOBODY}), 1);
}
END_TEST

START_TEST(prefix_prefers_the_warm_server_within_the_bound)
{
    SERVERS(1, 1, 1);
    candidates[2].in_flight = 1;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_PREFIX, .warm = 2}), 2);
    candidates[2].in_flight = 20;
    ck_assert_uint_ne(choose((struct balance_request){.policy = BALANCE_PREFIX, .warm = 2}), 2);
    candidates[0].in_flight = candidates[1].in_flight = 18;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_PREFIX, .warm = 2}), 2);
    ck_assert_uint_ne(choose((struct balance_request){.policy = BALANCE_PREFIX, .warm = 77}), 2); /* who has left */
}
END_TEST

START_TEST(latency_prefers_the_fast_and_tries_the_unknown)
{
    SERVERS(1, 1, 1);
    candidates[0].latency_us = 200000;
    candidates[1].latency_us = 50000;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_LATENCY}), 2); /* nothing is known of it */
    candidates[2].in_flight = 1;
    ck_assert_uint_eq(choose((struct balance_request){.policy = BALANCE_LATENCY}), 1);
    candidates[2].latency_us = 100000;
    for (int i = 0; i < 300; i++)
        candidates[choose((struct balance_request){.policy = BALANCE_LATENCY})].in_flight++;
    /* in proportion to speed: 1/200, 1/50, 1/100 of a second */
    ck_assert_uint_gt(candidates[1].in_flight, candidates[2].in_flight + 50);
    ck_assert_uint_gt(candidates[2].in_flight, candidates[0].in_flight + 20);
}
END_TEST

START_TEST(latency_jumps_up_and_fades)
{
    uint64_t average = balance_latency_add(0, 0, 50000, 1000000);
    ck_assert_uint_eq(average, 50000);
    average = balance_latency_add(average, 1000000, 900000, 1100000);
    ck_assert_uint_eq(average, 900000);
    uint64_t better = balance_latency_add(average, 1100000, 50000, 1200000);
    ck_assert_uint_lt(better, average);
    ck_assert_uint_gt(better, 700000);
    ck_assert_uint_eq(balance_latency_now(0, 0, 99), 0);
    ck_assert_uint_lt(balance_latency_now(900000, 1000000, 31000000), 300000);
    ck_assert_uint_gt(balance_latency_now(900000, 1000000, 1000000), 800000);
}
END_TEST

START_TEST(hashes_depend_on_every_byte_and_on_the_length)
{
    unsigned char bytes[200] = {0};
    for (size_t len = 0; len < sizeof(bytes); len++) {
        uint64_t hash = balance_hash(bytes, len, 5);
        ck_assert_uint_ne(hash, balance_hash(bytes, len + 1 <= sizeof(bytes) ? len + 1 : 0, 5));
        ck_assert_uint_ne(hash, balance_hash(bytes, len, 6));
        for (size_t i = 0; i < len; i++) {
            bytes[i] ^= 1;
            ck_assert_uint_ne(hash, balance_hash(bytes, len, 5));
            bytes[i] ^= 1;
        }
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("balance");

    tcase_add_test(tests, round_robin_is_smooth_and_exact);
    tcase_add_test(tests, least_requests_follows_the_speed_of_servers);
    tcase_add_test(tests, least_requests_gives_idle_equals_turns_by_weight);
    tcase_add_test(tests, power_of_two_spreads_by_weight_and_spares_the_slow);
    tcase_add_test(tests, consistent_hash_is_sticky_and_shares_by_weight);
    tcase_add_test(tests, consistent_hash_moves_only_the_keys_of_a_server_that_goes);
    tcase_add_test(tests, consistent_hash_bounds_the_load_of_a_popular_key);
    tcase_add_test(tests, without_a_key_the_least_loaded_is_chosen);
    tcase_add_test(tests, prefix_prefers_the_warm_server_within_the_bound);
    tcase_add_test(tests, latency_prefers_the_fast_and_tries_the_unknown);
    tcase_add_test(tests, latency_jumps_up_and_fades);
    tcase_add_test(tests, hashes_depend_on_every_byte_and_on_the_length);
    return run_suite("balance", tests);
}
