/* The rules of the strategies, as pure functions over (state, limit, now, cost): no clock, no lock, no allocation. A
 * state belongs to one thread at a time. tests/unit/ratelimit/vectors.txt holds every implementation to the same
 * answers.
 *
 * With amount A, window W and a hit of cost c, which is refused if A is 0 or c > A, and consumes nothing if refused:
 *
 * - fixed_window: one count. The window opens at the first hit and ends W later, when the count starts again at 0; a
 *   count that was settled down to 0 closes it at once. A hit is allowed if count + c <= A.
 * - moving_window: a log of (time, cost). A hit is allowed if the costs of the last W (younger than W) and c are
 *   together <= A. Exact for amounts up to STRATEGY_EXACT_MAX. With more, times in the log are rounded up to the next
 *   multiple of ceil(W / STRATEGY_EXACT_MAX), which bounds the log; never more than A is admitted in any window.
 * - sliding_window_counter: two counts. Windows follow one another from the first hit on; after a window in which
 *   nothing is left of either count, the next hit starts anew. With the time `left` until the current window ends, used
 *   is floor(previous * left / W) + current (exact: the product needs more than 64 bits), and a hit is allowed if
 *   used + c <= A.
 *
 * Cost 0 is allowed while used <= A and changes nothing.
 *
 * Clocks that jump: a state has a time of its own, which never goes back. A `now` before the latest one counts as the
 * latest. If it is more than STRATEGY_SKEW_US before (the clock was set back, whereas workers differ by less), the
 * state's time also goes on from there at the clock's pace, so that what is left of a window lasts as long as it would
 * have: nothing is freed and nothing waits for the clock to catch up. */
#ifndef WEIR_RATELIMIT_STRATEGY_H
#define WEIR_RATELIMIT_STRATEGY_H

#include "ratelimit/limit.h"
#include "ratelimit/strategy_log.h"

#define STRATEGY_EXACT_MAX 16000
#define STRATEGY_SKEW_US UINT64_C(1000000)
#define STRATEGY_NOW_MAX (UINT64_C(1) << 62)          /* a later `now` counts as this one */
#define STRATEGY_COUNT_MAX UINT64_C(4000000000000000) /* where settled counts stop growing */
#define STRATEGY_NEVER UINT64_MAX                     /* retry time of what never fits */

/* Zero-initialised means nothing was consumed; for moving_window with a `log`, which the owner gives its memory. */
struct strategy_state {
    uint64_t _last_us;   /* state time: the latest seen */
    uint64_t _offset_us; /* state time minus the caller's clock; changes when that is set back */
    union {
        struct {
            uint64_t _start_us; /* state time at which the current window opened; means nothing while both are 0 */
            uint64_t _count;    /* consumed in the current window */
            uint64_t _previous; /* sliding_window_counter: consumed in the window before */
        };
        struct strategy_log log; /* moving_window */
    };
};

/* Where a limit stands, in the clock of `now`. */
struct strategy_numbers {
    uint64_t remaining;
    uint64_t reset_us; /* when `remaining` grows next; now if nothing is used */
    uint64_t full_us;  /* when all of the amount is available again; now if it is */
};

/* Whether a hit of this cost is allowed at `now_us`; consumes nothing. `*retry_us` is when it would fit if nothing else
 * came: `now_us` if allowed (or the latest time seen, if that is later), STRATEGY_NEVER if never. */
bool strategy_allows(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                     uint64_t now_us, uint64_t cost, uint64_t *retry_us);

/* Consumes a hit that strategy_allows allowed. Returns its ticket, for strategy_adjust. */
uint64_t strategy_commit(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                         uint64_t now_us, uint64_t cost);

/* Settles a hit of a cost of at least 1, once: adds `delta` to what it consumed, in the window in which it was made; no
 * effect if that has passed. A count stops at 0, and may exceed the amount: what was used was used. */
void strategy_adjust(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                     uint64_t now_us, uint64_t ticket, int64_t delta);

/* Fills in where the limit stands at `now_us`. */
void strategy_look(enum limit_strategy strategy, struct strategy_state *state, const struct limit *limit,
                   uint64_t now_us, struct strategy_numbers *numbers);

/* Has the processor fetch what a hit at `now_us` is likely to look at of the log. moving_window only. */
static inline void strategy_prefetch(const struct strategy_state *state, const struct limit *limit, uint64_t now_us)
{
    strategy_log_prefetch(&state->log, strategy_log_count(&state->log));
    if ((int64_t)(now_us + state->_offset_us - limit->window_us - state->log.oldest_us) >= 0)
        strategy_log_prefetch(&state->log, 0);
}

/* Whether nothing is consumed of what the state counts now. */
static inline bool strategy_unused(enum limit_strategy strategy, const struct strategy_state *state)
{
    return (strategy == LIMIT_MOVING_WINDOW ? strategy_log_sum(&state->log) : state->_count) == 0;
}

/* Whether nothing would be lost if the state were forgotten. `window_us` may be more than the limit's window. */
bool strategy_idle(enum limit_strategy strategy, struct strategy_state *state, uint64_t window_us, uint64_t now_us);

/* How many bytes the log should have before a commit of this cost, or an adjustment by it; what it has if it need not
 * grow. If it cannot grow, room is made by joining entries (see strategy_log_push). moving_window only. */
size_t strategy_log_room(const struct strategy_state *state, const struct limit *limit, uint64_t cost);

#endif
