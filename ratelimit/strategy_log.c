#include "ratelimit/strategy_log.h"

/* Times wrap with their clock: later by less than half of all values is later. */
static bool is_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

void strategy_log_init(struct strategy_log *log, uint32_t cap)
{
    log->cap = cap;
    log->_head = log->count = 0;
}

void strategy_log_copy(struct strategy_log *to, struct strategy_log *from)
{
    for (uint32_t i = 0; i < from->count; i++)
        to->_entries[i] = *strategy_log_at(from, i);
    to->_head = 0;
    to->count = from->count;
}

uint64_t strategy_log_expire(struct strategy_log *log, uint64_t t, uint64_t window_us)
{
    uint64_t sum = 0;
    while (log->count != 0) {
        struct strategy_log_entry *oldest = strategy_log_at(log, 0);
        if (is_before(t - window_us, oldest->at_us))
            break;
        sum += oldest->cost;
        log->_head = (log->_head + 1) & (log->cap - 1);
        log->count--;
    }
    return sum;
}

void strategy_log_drop_settled(struct strategy_log *log)
{
    while (log->count != 0 && strategy_log_at(log, 0)->cost == 0) {
        log->_head = (log->_head + 1) & (log->cap - 1);
        log->count--;
    }
}

static void drop_empty(struct strategy_log *log)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < log->count; i++)
        if (strategy_log_at(log, i)->cost != 0)
            *strategy_log_at(log, kept++) = *strategy_log_at(log, i);
    log->count = kept;
}

/* Joins entries whose times lie in one step, at the latest of them. As they are of one window, half of the log is free
 * afterwards; and as steps are always the same, no cost is put off by more than one, however often this happens. */
static void join_steps(struct strategy_log *log, uint64_t window_us)
{
    uint64_t step = window_us / (log->cap / 2) + 1;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < log->count; i++) {
        struct strategy_log_entry entry = *strategy_log_at(log, i);
        if (kept != 0 && strategy_log_at(log, kept - 1)->at_us / step == entry.at_us / step)
            entry.cost += strategy_log_at(log, --kept)->cost;
        *strategy_log_at(log, kept++) = entry;
    }
    log->count = kept;
}

void strategy_log_push(struct strategy_log *log, uint64_t at_us, uint64_t cost, uint64_t window_us)
{
    if (log->count != 0) {
        struct strategy_log_entry *newest = strategy_log_at(log, log->count - 1);
        if (newest->cost == 0 && is_before(newest->at_us, at_us))
            newest->at_us = at_us;
        if (!is_before(newest->at_us, at_us)) {
            newest->cost += cost;
            return;
        }
    }
    if (log->count == log->cap)
        drop_empty(log);
    if (log->count == log->cap)
        join_steps(log, window_us);
    if (log->count == log->cap) { /* times of more than a window, when a limit was given a shorter one */
        struct strategy_log_entry oldest = *strategy_log_at(log, 0);
        log->_head = (log->_head + 1) & (log->cap - 1);
        log->count--;
        strategy_log_at(log, 0)->cost += oldest.cost;
    }
    *strategy_log_at(log, log->count++) = (struct strategy_log_entry){at_us, cost};
}

struct strategy_log_entry *strategy_log_find(struct strategy_log *log, uint64_t at_us)
{
    uint32_t low = 0, high = log->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_before(strategy_log_at(log, middle)->at_us, at_us))
            low = middle + 1;
        else
            high = middle;
    }
    return low < log->count ? strategy_log_at(log, low) : NULL;
}
