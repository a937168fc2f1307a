/* The log of a moving window: times and costs, oldest first, in a ring of a fixed capacity that whoever owns the memory
 * may replace by a larger one. Used by strategy.c; a store only allocates it. No locks, no allocation.
 *
 *   entries: [ 7 ][ 8 ][   ][   ][ 3 ][ 4 ][ 5 ][ 6 ]      head -> 3, the oldest; count 6; 8 the newest
 */
#ifndef WEIR_RATELIMIT_STRATEGY_LOG_H
#define WEIR_RATELIMIT_STRATEGY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRATEGY_LOG_MIN 4     /* entries a log starts with */
#define STRATEGY_LOG_MAX 16384 /* entries; capacities are powers of two */

struct strategy_log_entry {
    uint64_t at_us; /* state time; wraps, so only differences mean anything */
    uint64_t cost;
};

struct strategy_log {
    uint32_t cap, _head, count;
    struct strategy_log_entry _entries[];
};

/* Bytes of a log of `cap` entries. */
static inline size_t strategy_log_size(uint32_t cap)
{
    return sizeof(struct strategy_log) + cap * sizeof(struct strategy_log_entry);
}

/* The i-th oldest entry; i < count. */
static inline struct strategy_log_entry *strategy_log_at(struct strategy_log *log, uint32_t i)
{
    return &log->_entries[(log->_head + i) & (log->cap - 1)];
}

/* The place in the ring of the next push. */
static inline uint32_t strategy_log_next_slot(const struct strategy_log *log)
{
    return (log->_head + log->count) & (log->cap - 1);
}

/* An empty log over strategy_log_size(cap) bytes; `cap` a power of two. */
void strategy_log_init(struct strategy_log *log, uint32_t cap);

/* Copies the entries of `from` into the empty log `to` of no smaller capacity. */
void strategy_log_copy(struct strategy_log *to, struct strategy_log *from);

/* Takes out the entries that are `window_us` old at `t`, or older; returns their costs' sum. */
uint64_t strategy_log_expire(struct strategy_log *log, uint64_t t, uint64_t window_us);

/* Takes out the oldest entries for as long as they have no cost. */
void strategy_log_drop_settled(struct strategy_log *log);

/* Adds a cost at a time; one before the newest entry's counts as that. A full log first drops entries without cost or,
 * if there are none, joins neighbours at the later time: costs then count for longer, by up to 2 * window_us / cap, and
 * never shorter. */
void strategy_log_push(struct strategy_log *log, uint64_t at_us, uint64_t cost, uint64_t window_us);

/* The entry that holds what was pushed for `at_us`: the oldest that is not before it. NULL if there is none. */
struct strategy_log_entry *strategy_log_find(struct strategy_log *log, uint64_t at_us);

#endif
