#include "ratelimit/strategy.h"
#include <assert.h>

static_assert(STRATEGY_COUNT_MAX < UINT64_C(1) << STRATEGY_LOG_SUM_BITS, "a log has so many bits for a sum");

/* The rules are written for all strategies, and compiled for each: with the strategy known, most of a rule falls away,
 * which shows in a decision. `call` is one of the functions below, its first argument the strategy. */
#define RULE static inline __attribute__((always_inline))
#define FOR_STRATEGY(strategy, call, ...)                                                                              \
    ((strategy) == LIMIT_FIXED_WINDOW    ? call(LIMIT_FIXED_WINDOW, __VA_ARGS__)                                       \
     : (strategy) == LIMIT_MOVING_WINDOW ? call(LIMIT_MOVING_WINDOW, __VA_ARGS__)                                      \
                                         : call(LIMIT_SLIDING_WINDOW_COUNTER, __VA_ARGS__))

/* ---- arithmetic ---- */

/* floor(a * b / c) for a result that fits. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t product;
    if (!__builtin_mul_overflow(a, b, &product))
        return product / c;
    return (uint64_t)((unsigned __int128)a * b / c);
}

/* The longest time left, at most `window`, at which floor(count * left / window) <= most; count >= 1. */
static uint64_t left_when(uint64_t count, uint64_t window, uint64_t most)
{
    if (count <= most)
        return window;
    uint64_t product;
    if (!__builtin_mul_overflow(most + 1, window, &product))
        return (product - 1) / count;
    return (uint64_t)(((unsigned __int128)(most + 1) * window - 1) / count);
}

static uint64_t add_capped(uint64_t value, uint64_t more)
{
    return more > STRATEGY_COUNT_MAX - value ? STRATEGY_COUNT_MAX : value + more;
}

static uint64_t add_signed(uint64_t value, int64_t delta)
{
    if (delta >= 0)
        return add_capped(value, (uint64_t)delta);
    uint64_t less = 0 - (uint64_t)delta;
    return value > less ? value - less : 0;
}

/* ---- time ---- */

/* Brings the state's clock to `now_us` and returns the state time. */
RULE uint64_t sync_clock(struct strategy_state *state, uint64_t now_us)
{
    uint64_t t = (now_us < STRATEGY_NOW_MAX ? now_us : STRATEGY_NOW_MAX) + state->_offset_us;
    if ((int64_t)(t - state->_last_us) < 0) {
        if (state->_last_us - t > STRATEGY_SKEW_US)
            state->_offset_us += state->_last_us - t;
        t = state->_last_us;
    }
    state->_last_us = t;
    return t;
}

/* Moves the state to `now_us`: what has passed is dropped. Returns the state time. */
RULE uint64_t advance(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                      uint64_t now_us)
{
    uint64_t t = sync_clock(state, now_us), window = limit->window_us;

    switch (strategy) {
    case LIMIT_FIXED_WINDOW:
        if (t - state->_start_us >= window)
            state->_count = 0;
        break;
    case LIMIT_MOVING_WINDOW:
        if (strategy_log_sum(&state->log) != 0 && (int64_t)(t - window - state->log.oldest_us) >= 0)
            strategy_log_expire(&state->log, t, window);
        break;
    case LIMIT_SLIDING_WINDOW_COUNTER:
        if (t - state->_start_us >= 2 * window) {
            state->_count = state->_previous = 0;
        } else if (t - state->_start_us >= window) {
            state->_previous = state->_count;
            state->_count = 0;
            state->_start_us += window;
        }
        break;
    }
    return t;
}

/* ---- what is used, and until when; the state is advanced to `t` ---- */

RULE uint64_t used(enum limit_strategy strategy, const struct strategy_state *state, const struct limit *limit,
                   uint64_t t)
{
    if (strategy == LIMIT_MOVING_WINDOW)
        return strategy_log_sum(&state->log);
    if (strategy == LIMIT_FIXED_WINDOW || state->_previous == 0)
        return state->_count;
    return mul_div(state->_previous, state->_start_us + limit->window_us - t, limit->window_us) + state->_count;
}

static uint64_t moving_fits_at(const struct strategy_state *state, const struct limit *limit, uint64_t t, uint64_t most)
{
    uint64_t count = strategy_log_sum(&state->log), at = t;

    if (count <= most)
        return t;
    if (count - most == 1) /* any cost is enough */
        return state->log.oldest_us + limit->window_us;
    if (most == 0) /* the newest that counts, without adding up all before it */
        return strategy_log_newest_us(&state->log) + limit->window_us;
    for (uint32_t i = 0; count > most && i < strategy_log_count(&state->log); i++) {
        struct strategy_log_entry entry = strategy_log_at(&state->log, i);
        count -= entry.cost;
        at = entry.at_us + limit->window_us;
    }
    return at;
}

static uint64_t sliding_fits_at(const struct strategy_state *state, const struct limit *limit, uint64_t t,
                                uint64_t most)
{
    uint64_t window = limit->window_us, end = state->_start_us + window;

    if (state->_count > most) /* it has to become the previous window's, and to decay */
        return end + window - left_when(state->_count, window, most);
    if (state->_previous == 0)
        return t;
    uint64_t left = left_when(state->_previous, window, most - state->_count);
    return left < end - t ? end - left : t;
}

/* The state time, `t` or later, at which no more than `most` is used if nothing else comes. */
RULE uint64_t fits_at(enum limit_strategy strategy, const struct strategy_state *state, const struct limit *limit,
                      uint64_t t, uint64_t most)
{
    switch (strategy) {
    case LIMIT_MOVING_WINDOW:
        return moving_fits_at(state, limit, t, most);
    case LIMIT_SLIDING_WINDOW_COUNTER:
        return sliding_fits_at(state, limit, t, most);
    case LIMIT_FIXED_WINDOW:
        break;
    }
    return state->_count > most ? state->_start_us + limit->window_us : t;
}

/* ---- the public half ---- */

RULE bool allows(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit, uint64_t now_us,
                 uint64_t cost, uint64_t *retry_us)
{
    uint64_t t = advance(strategy, state, limit, now_us);

    if (limit->amount == 0 || cost > limit->amount) {
        *retry_us = STRATEGY_NEVER;
        return false;
    }
    uint64_t most = limit->amount - cost;
    if (used(strategy, state, limit, t) <= most) {
        *retry_us = t - state->_offset_us;
        return true;
    }
    *retry_us = fits_at(strategy, state, limit, t, most) - state->_offset_us;
    return false;
}

bool strategy_allows(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                     uint64_t now_us, uint64_t cost, uint64_t *retry_us)
{
    return FOR_STRATEGY(strategy, allows, state, limit, now_us, cost, retry_us);
}

/* The time under which the log keeps what happens at `t`. */
static uint64_t log_time(const struct limit *limit, uint64_t t)
{
    if (limit->amount <= STRATEGY_EXACT_MAX)
        return t;
    uint64_t step = (limit->window_us + STRATEGY_EXACT_MAX - 1) / STRATEGY_EXACT_MAX;
    uint64_t past = t % step;
    return past == 0 ? t : t + (step - past);
}

RULE uint64_t commit(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                     uint64_t now_us, uint64_t cost)
{
    uint64_t t = advance(strategy, state, limit, now_us);

    if (cost == 0)
        return t;
    if (strategy == LIMIT_MOVING_WINDOW) {
        t = log_time(limit, t);
        uint64_t sum = strategy_log_sum(&state->log);
        cost = add_capped(sum, cost) - sum;
        if (cost != 0)
            strategy_log_push(&state->log, t, cost, limit->window_us);
        return t;
    }
    if (state->_count == 0 && (strategy == LIMIT_FIXED_WINDOW || state->_previous == 0))
        state->_start_us = t;
    state->_count = add_capped(state->_count, cost);
    return t;
}

uint64_t strategy_commit(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                         uint64_t now_us, uint64_t cost)
{
    return FOR_STRATEGY(strategy, commit, state, limit, now_us, cost);
}

void strategy_adjust(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                     uint64_t now_us, uint64_t ticket, int64_t delta)
{
    uint64_t t = advance(strategy, state, limit, now_us);

    switch (strategy) {
    case LIMIT_FIXED_WINDOW:
        if (state->_count != 0 && ticket - state->_start_us < limit->window_us)
            state->_count = add_signed(state->_count, delta);
        break;
    case LIMIT_MOVING_WINDOW:
        /* Its entry has gone when it is as old as the window; what stands after it is somebody else's. */
        if ((int64_t)(t - ticket) < (int64_t)limit->window_us)
            strategy_log_adjust(&state->log, ticket, delta, STRATEGY_COUNT_MAX, limit->window_us);
        break;
    case LIMIT_SLIDING_WINDOW_COUNTER:
        if (ticket - state->_start_us < limit->window_us) {
            if (state->_count != 0)
                state->_count = add_signed(state->_count, delta);
        } else if (state->_start_us - ticket <= limit->window_us && state->_previous != 0) {
            state->_previous = add_signed(state->_previous, delta);
        }
        break;
    }
}

RULE void look(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit, uint64_t now_us,
               struct strategy_numbers *numbers)
{
    uint64_t t = advance(strategy, state, limit, now_us);
    uint64_t amount = limit->amount, consumed = used(strategy, state, limit, t);
    uint64_t reset = t, full = t;

    numbers->remaining = amount > consumed ? amount - consumed : 0;
    if (consumed != 0) {
        /* `remaining` grows once no more than what then is missing is used. */
        uint64_t most = consumed < amount ? consumed : amount;
        reset = fits_at(strategy, state, limit, t, most != 0 ? most - 1 : 0);
        full = fits_at(strategy, state, limit, t, 0);
    }
    numbers->reset_us = reset - state->_offset_us;
    numbers->full_us = full - state->_offset_us;
}

void strategy_look(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                   uint64_t now_us, struct strategy_numbers *numbers)
{
    FOR_STRATEGY(strategy, look, state, limit, now_us, numbers);
}

bool strategy_idle(enum limit_strategy strategy, struct strategy_state *state, uint64_t window_us, uint64_t now_us)
{
    uint64_t t = sync_clock(state, now_us);

    switch (strategy) {
    case LIMIT_FIXED_WINDOW:
        return state->_count == 0 || t - state->_start_us >= window_us;
    case LIMIT_MOVING_WINDOW:
        /* What is younger than the oldest may be too, so that the log need not be looked at. */
        return strategy_log_sum(&state->log) == 0 ||
               ((int64_t)(t - state->log.oldest_us) >= (int64_t)window_us &&
                (int64_t)(t - strategy_log_newest_us(&state->log)) >= (int64_t)window_us);
    case LIMIT_SLIDING_WINDOW_COUNTER:
        break;
    }
    return (state->_count == 0 && state->_previous == 0) || t - state->_start_us >= 2 * window_us;
}

size_t strategy_log_room(const struct strategy_state *state, const struct limit *limit, uint64_t cost)
{
    return strategy_log_wanted(&state->log, cost, limit->window_us, limit->amount);
}
