/* Every vector of vectors.txt, and properties that hold whatever comes. */
#include "ratelimit/strategy.h"
#include "ratelimit/vectors.h"

#define MINUTE UINT64_C(60000000)

struct limiter {
    enum limit_strategy strategy;
    struct limit limit;
    struct strategy_state state;
};

static void open_limiter(struct limiter *l, enum limit_strategy strategy, uint64_t amount, uint64_t window_us)
{
    *l = (struct limiter){strategy, {.amount = amount, .window_us = window_us, .multiple = 1}, {0}};
    if (strategy == LIMIT_MOVING_WINDOW)
        strategy_log_init(&l->state.log, aligned_alloc(STRATEGY_LOG_BYTES_MIN, STRATEGY_LOG_BYTES_MIN),
                          STRATEGY_LOG_BYTES_MIN);
}

static void close_limiter(struct limiter *l)
{
    if (l->strategy == LIMIT_MOVING_WINDOW)
        free(strategy_log_slots(&l->state.log));
}

static void grow(struct limiter *l, uint64_t cost)
{
    size_t bytes = strategy_log_room(&l->state, &l->limit, cost);
    void *slots = strategy_log_slots(&l->state.log);
    if (bytes == strategy_log_bytes(&l->state.log))
        return;
    strategy_log_move(&l->state.log, aligned_alloc(STRATEGY_LOG_BYTES_MIN, bytes), bytes);
    free(slots);
}

/* Tests and, if allowed, commits. */
static bool hit(struct limiter *l, uint64_t now, uint64_t cost, uint64_t *retry, uint64_t *ticket)
{
    if (!strategy_allows(l->strategy, &l->state, &l->limit, now, cost, retry))
        return false;
    if (l->strategy == LIMIT_MOVING_WINDOW)
        grow(l, cost);
    *ticket = strategy_commit(l->strategy, &l->state, &l->limit, now, cost);
    return true;
}

/* ---- vectors ---- */

static struct {
    struct limiter limiter;
    uint64_t tickets[VECTOR_HITS_MAX];
} held;

static void look(uint64_t now, struct strategy_numbers *numbers)
{
    struct limiter *l = &held.limiter;
    strategy_look(l->strategy, &l->state, &l->limit, now, numbers);
}

static void vector_limit(enum limit_strategy strategy, const struct limit *limit)
{
    close_limiter(&held.limiter);
    open_limiter(&held.limiter, strategy, limit->amount, limit->window_us);
}

static bool vector_hit(unsigned nth, uint64_t now, uint64_t cost, uint64_t *retry, struct strategy_numbers *numbers)
{
    bool allowed = hit(&held.limiter, now, cost, retry, &held.tickets[nth]);
    look(now, numbers);
    return allowed;
}

static void vector_adjust(unsigned nth, uint64_t now, int64_t delta, struct strategy_numbers *numbers)
{
    struct limiter *l = &held.limiter;
    strategy_adjust(l->strategy, &l->state, &l->limit, now, held.tickets[nth], delta);
    look(now, numbers);
}

START_TEST(vectors)
{
    static const struct vectors_of ours = {vector_limit, vector_hit, vector_adjust};
    vectors_check(&ours);
    close_limiter(&held.limiter);
}
END_TEST

/* ---- properties ---- */

static uint64_t random_below(uint64_t limit)
{
    static uint64_t seed = 88172645463325252u;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

static const uint64_t amounts[] = {1, 2, 7, 60, 500, 20000};

/* The sums of what was admitted, over each window that ends with a hit. A log without room to grow must keep to it too.
 */
static void flood_moving(uint64_t amount, bool may_grow)
{
    enum { HITS = 4000 };
    static struct {
        uint64_t at, cost;
    } admitted[HITS];
    struct limiter l;
    uint64_t now = 12345, window = 0, retry;
    size_t count = 0, oldest = 0;

    open_limiter(&l, LIMIT_MOVING_WINDOW, amount, MINUTE);
    for (int i = 0; i < HITS; i++) {
        uint64_t cost = 1 + (random_below(4) == 0 ? random_below(amount) : 0);
        now += random_below(MINUTE / 20);
        if (!strategy_allows(l.strategy, &l.state, &l.limit, now, cost, &retry))
            continue;
        if (may_grow)
            grow(&l, cost);
        strategy_commit(l.strategy, &l.state, &l.limit, now, cost);
        admitted[count].at = now;
        admitted[count++].cost = cost;
        window += cost;
        for (; admitted[oldest].at + MINUTE <= now; oldest++)
            window -= admitted[oldest].cost;
        ck_assert_uint_le(window, amount);
        ck_assert_uint_le(strategy_log_count(&l.state.log), strategy_log_cap(&l.state.log));
        ck_assert(may_grow || strategy_log_bytes(&l.state.log) == STRATEGY_LOG_BYTES_MIN);
    }
    ck_assert_uint_gt(count, 60);
    close_limiter(&l);
}

START_TEST(moving_window_never_admits_more_in_any_window)
{
    flood_moving(amounts[_i], true);
    flood_moving(amounts[_i], false);
}
END_TEST

START_TEST(refused_is_admitted_at_its_retry_time_and_not_before)
{
    for (int strategy = 0; strategy < 3; strategy++) {
        struct limiter l;
        uint64_t now = UINT64_C(1795250030000000), retry, ticket, refusals = 0;
        open_limiter(&l, (enum limit_strategy)strategy, amounts[_i], MINUTE);
        for (int i = 0; i < 3000; i++) {
            uint64_t cost = 1 + random_below(amounts[_i]), again;
            now += random_below(MINUTE / 10);
            if (hit(&l, now, cost, &retry, &ticket)) {
                ck_assert_uint_eq(retry, now);
                continue;
            }
            refusals++;
            ck_assert_uint_gt(retry, now);
            ck_assert_uint_le(retry, now + 2 * MINUTE);
            ck_assert(!hit(&l, retry - 1, cost, &again, &ticket));
            ck_assert_uint_eq(again, retry);
            ck_assert(hit(&l, retry, cost, &again, &ticket));
            now = retry;
        }
        ck_assert_uint_gt(refusals, 100);
        close_limiter(&l);
    }
}
END_TEST

START_TEST(a_log_of_a_large_amount_stays_bounded)
{
    struct limiter l;
    uint64_t retry, ticket, admitted = 0;
    open_limiter(&l, LIMIT_MOVING_WINDOW, 200000, MINUTE);
    for (uint64_t i = 0; i < 300000; i++)
        admitted += hit(&l, 1000 + i * 400, 1, &retry, &ticket);
    ck_assert_uint_le(strategy_log_cap(&l.state.log), STRATEGY_LOG_MAX);
    ck_assert_uint_le(strategy_log_count(&l.state.log), STRATEGY_EXACT_MAX + 2);
    ck_assert_uint_eq(admitted, 300000); /* 150,000 a minute: rounding of times takes nothing from who stays below */
    for (uint64_t i = 0; i < 100000; i++)
        admitted += hit(&l, 1000 + 300000 * 400 + i, 1, &retry, &ticket);
    /* There was room for 50,000, and 250 of the old ones leave in that tenth of a second. */
    ck_assert_uint_le(admitted, 300000 + 50250);
    ck_assert_uint_ge(admitted, 300000 + 50230);
    close_limiter(&l);
}
END_TEST

/* What a settlement wants room for may have passed when it comes to be added: the log is as large as a wide one then,
 * and has to go on as one. */
START_TEST(a_log_that_grew_to_be_widened_goes_on_if_it_need_not)
{
    enum { HITS = 15000, COST = 1000000 };
    struct limiter l;
    struct strategy_numbers numbers;
    uint64_t now = MINUTE, retry, ticket;
    open_limiter(&l, LIMIT_MOVING_WINDOW, 2 * COST, MINUTE);
    ck_assert(hit(&l, now, COST, &retry, &ticket));
    now += 3750;
    for (int i = 0; i < HITS; i++)
        ck_assert(hit(&l, now += 3750, 1, &retry, &ticket));
    now = 2 * MINUTE; /* the first passes */
    grow(&l, 40000);
    strategy_adjust(l.strategy, &l.state, &l.limit, now, ticket, 40000);
    ck_assert_uint_le(strategy_log_cap(&l.state.log), STRATEGY_LOG_MAX);
    for (int i = 0; i < 60000; i++)
        ck_assert(hit(&l, now += 3750, 1, &retry, &ticket));
    strategy_look(l.strategy, &l.state, &l.limit, now, &numbers);
    ck_assert_uint_eq(2 * COST - numbers.remaining, MINUTE / 3750);
    close_limiter(&l);
}
END_TEST

START_TEST(every_refund_gives_all_back)
{
    for (int strategy = 0; strategy < 3; strategy++) {
        struct limiter l;
        uint64_t retry, ticket[40], now = MINUTE;
        struct strategy_numbers numbers;
        open_limiter(&l, (enum limit_strategy)strategy, 4000, MINUTE);
        for (int round = 0; round < 50; round++) {
            for (int i = 0; i < 40; i++)
                ck_assert(hit(&l, now += random_below(100000), 100, &retry, &ticket[i]));
            ck_assert(!hit(&l, now, 1, &retry, &ticket[0]));
            for (int i = 0; i < 40; i++)
                strategy_adjust(l.strategy, &l.state, &l.limit, now, ticket[i], -100);
            strategy_look(l.strategy, &l.state, &l.limit, now, &numbers);
            ck_assert_uint_eq(numbers.remaining, 4000);
            ck_assert_uint_eq(numbers.reset_us, now);
            ck_assert(strategy_idle(l.strategy, &l.state, MINUTE, now));
        }
        close_limiter(&l);
    }
}
END_TEST

START_TEST(the_newest_that_was_refunded_holds_up_nobody)
{
    struct limiter l;
    struct strategy_numbers numbers;
    uint64_t now = 1000 * MINUTE, retry, first, last;

    open_limiter(&l, LIMIT_MOVING_WINDOW, 3, MINUTE);
    ck_assert(hit(&l, now, 2, &retry, &first) && hit(&l, now + 10000000, 1, &retry, &last));
    strategy_look(l.strategy, &l.state, &l.limit, now + 10000000, &numbers);
    ck_assert_uint_eq(numbers.full_us, now + 10000000 + MINUTE);
    strategy_adjust(l.strategy, &l.state, &l.limit, now + 20000000, last, -1);
    strategy_look(l.strategy, &l.state, &l.limit, now + 20000000, &numbers);
    ck_assert_uint_eq(numbers.remaining, 1);
    ck_assert_uint_eq(numbers.full_us, now + MINUTE);
    ck_assert(!hit(&l, now + 20000000, 3, &retry, &last));
    ck_assert_uint_eq(retry, now + MINUTE);
    ck_assert(strategy_idle(l.strategy, &l.state, MINUTE, now + MINUTE));
    close_limiter(&l);
}
END_TEST

/* With amounts above STRATEGY_EXACT_MAX times are rounded up, so the newest may be ahead of what comes when the amount
 * has become less, as a replica's part does. */
START_TEST(a_log_keeps_its_order_when_the_amount_changes)
{
    static const uint64_t windows[] = {MINUTE, 60 * MINUTE, UINT64_C(1) << 32, 24 * 60 * MINUTE, UINT64_C(1) << 43};
    uint64_t tickets[64], costs[64], retry;

    for (int run = 0; run < 200; run++) {
        struct limiter l;
        uint64_t whole = STRATEGY_EXACT_MAX + 1 + random_below(60000), window = windows[run % 5],
                 now = random_below(window);
        uint64_t step = window / STRATEGY_EXACT_MAX;
        size_t kept = 0;
        open_limiter(&l, LIMIT_MOVING_WINDOW, whole, window);
        for (int i = 0; i < 400; i++) {
            if (random_below(8) == 0)
                l.limit.amount = whole / (1 + random_below(5));
            now += random_below(4) != 0 ? random_below(step / 2 + 2)
                                        : random_below(random_below(30) == 0 ? window : step * 4);
            uint64_t cost = 1 + random_below(random_below(10) == 0 ? 9000 : 300);
            size_t which = kept != 0 ? random_below(kept) : 0;
            if (random_below(3) == 0 && kept != 0) {
                strategy_adjust(l.strategy, &l.state, &l.limit, now, tickets[which],
                                random_below(2) == 0 ? 5 : -(int64_t)costs[which]);
                tickets[which] = tickets[--kept];
                costs[which] = costs[kept];
            } else if (hit(&l, now, cost, &retry, &tickets[kept < 64 ? kept : which])) {
                costs[kept < 64 ? kept : which] = cost;
                kept += kept < 64;
            }
            uint64_t sum = 0, last = l.state.log.oldest_us;
            for (uint32_t at = 0; at < strategy_log_count(&l.state.log); at++) {
                struct strategy_log_entry entry = strategy_log_at(&l.state.log, at);
                ck_assert((int64_t)(entry.at_us - last) >= 0);
                last = entry.at_us;
                sum += entry.cost;
            }
            ck_assert_uint_eq(sum, strategy_log_sum(&l.state.log));
            ck_assert(sum == 0 || last == strategy_log_newest_us(&l.state.log));
        }
        close_limiter(&l);
    }
}
END_TEST

START_TEST(a_refusal_ends_after_the_amount_has_become_less)
{
    struct limiter l;
    uint64_t day = 24 * 60 * MINUTE, step = day / STRATEGY_EXACT_MAX, now = 1000 * step + 100, retry, first, ticket;

    open_limiter(&l, LIMIT_MOVING_WINDOW, 20000, day);
    ck_assert(hit(&l, now, 200, &retry, &first));
    ck_assert(hit(&l, now + 6000000, 300, &retry, &ticket));
    l.limit.amount = 10000;
    ck_assert(hit(&l, now + 8000000, 100, &retry, &ticket));
    strategy_adjust(l.strategy, &l.state, &l.limit, now + 9000000, first, -200);
    ck_assert(hit(&l, now + 12000000, 200, &retry, &ticket));
    ck_assert(!hit(&l, now + 13000000, 9950, &retry, &ticket));
    /* 600 are used; all but 50 of them must have gone. */
    ck_assert_uint_eq(retry, now + 12000000 + day);
    close_limiter(&l);
}
END_TEST

START_TEST(idle_means_that_nothing_is_lost)
{
    for (int strategy = 0; strategy < 3; strategy++) {
        struct limiter l;
        struct strategy_numbers numbers;
        uint64_t retry, ticket, now = 5;
        open_limiter(&l, (enum limit_strategy)strategy, 50, MINUTE);
        ck_assert(strategy_idle(l.strategy, &l.state, MINUTE, now));
        for (int i = 0; i < 3000; i++) {
            now += random_below(random_below(8) == 0 ? 3 * MINUTE : MINUTE / 30);
            bool idle = strategy_idle(l.strategy, &l.state, MINUTE, now);
            strategy_look(l.strategy, &l.state, &l.limit, now, &numbers);
            if (idle)
                ck_assert_uint_eq(numbers.remaining, 50);
            hit(&l, now, 1 + random_below(20), &retry, &ticket);
            ck_assert(!strategy_idle(l.strategy, &l.state, MINUTE, now));
        }
        ck_assert(strategy_idle(l.strategy, &l.state, MINUTE, now + 2 * MINUTE));
        close_limiter(&l);
    }
}
END_TEST

/* Whatever the clock does, in a time that it says has passed no more is admitted than in that time and two windows. */
START_TEST(clocks_that_jump_neither_free_nor_freeze)
{
    for (int strategy = 0; strategy < 3; strategy++) {
        struct limiter l;
        uint64_t retry, ticket, now = 1000 * MINUTE, admitted = 0, passed = 0;
        open_limiter(&l, (enum limit_strategy)strategy, 10, MINUTE);
        for (int i = 0; i < 20000; i++) {
            if (random_below(50) == 0)
                now -= random_below(now / 2 < 5 * MINUTE ? now / 2 : 5 * MINUTE); /* set back: no time passes */
            uint64_t step = random_below(MINUTE / 100);
            now += step;
            passed += step;
            admitted += hit(&l, now, 1, &retry, &ticket);
        }
        uint64_t windows = passed / MINUTE;
        ck_assert_uint_le(admitted, (windows + 2) * 10);
        /* Setting back by less than the tolerance may hold each of the 400 jumps up for a second. */
        ck_assert_uint_ge(admitted, windows * 10 * 8 / 10);
        now /= 1000;
        ck_assert(hit(&l, now, 0, &retry, &ticket) || retry <= now + 2 * MINUTE);
        ck_assert(hit(&l, now + 2 * MINUTE, 10, &retry, &ticket));
        close_limiter(&l);
    }
}
END_TEST

START_TEST(any_numbers_are_safe)
{
    static const uint64_t edges[] = {0,          1,          UINT32_MAX,       INT64_MAX, UINT64_MAX, UINT64_MAX - 1,
                                     MINUTE - 1, 1ULL << 62, (1ULL << 62) - 1, 1ULL << 63};
    uint64_t tickets[64] = {0}, windows[] = {1, MINUTE, UINT64_C(3110400000000000)};
    for (int round = 0; round < 300; round++) {
        struct limiter l;
        struct strategy_numbers numbers;
        uint64_t retry;
        open_limiter(&l, (enum limit_strategy)(round % 3), round % 2 ? LIMIT_AMOUNT_MAX : random_below(20000),
                     windows[random_below(3)]);
        for (int i = 0; i < 200; i++) {
            uint64_t now = edges[random_below(10)] + random_below(3) - 1;
            uint64_t cost = random_below(2) ? edges[random_below(10)] : random_below(l.limit.amount + 2);
            bool allowed = hit(&l, now, cost, &retry, &tickets[i % 64]);
            ck_assert(!allowed || (cost <= l.limit.amount && l.limit.amount != 0));
            int64_t delta = (int64_t)edges[random_below(10)];
            if (random_below(3) == 0)
                strategy_adjust(l.strategy, &l.state, &l.limit, now, tickets[random_below(64)], delta);
            strategy_look(l.strategy, &l.state, &l.limit, now, &numbers);
            ck_assert_uint_le(numbers.remaining, l.limit.amount);
            ck_assert_uint_le(numbers.reset_us, numbers.full_us);
            strategy_idle(l.strategy, &l.state, l.limit.window_us, now);
        }
        close_limiter(&l);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("strategy");
    int count = (int)(sizeof(amounts) / sizeof(amounts[0]));
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, vectors);
    tcase_add_loop_test(tc, moving_window_never_admits_more_in_any_window, 0, count);
    tcase_add_loop_test(tc, refused_is_admitted_at_its_retry_time_and_not_before, 0, count);
    tcase_add_test(tc, a_log_of_a_large_amount_stays_bounded);
    tcase_add_test(tc, a_log_that_grew_to_be_widened_goes_on_if_it_need_not);
    tcase_add_test(tc, every_refund_gives_all_back);
    tcase_add_test(tc, the_newest_that_was_refunded_holds_up_nobody);
    tcase_add_test(tc, a_log_keeps_its_order_when_the_amount_changes);
    tcase_add_test(tc, a_refusal_ends_after_the_amount_has_become_less);
    tcase_add_test(tc, idle_means_that_nothing_is_lost);
    tcase_add_test(tc, clocks_that_jump_neither_free_nor_freeze);
    tcase_add_test(tc, any_numbers_are_safe);
    return run_suite("strategy", tc);
}
