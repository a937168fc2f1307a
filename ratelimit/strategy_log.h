/* The log of a moving window: times and costs, oldest first, in a ring of slots. What every hit asks of it lies in the
 * log itself, which is part of its limit's state: most hits only write a slot. Whoever owns the slots' memory gives it,
 * and may replace it by more. Used by strategy.c; a store only allocates. No locks, no allocation.
 *
 *   slots: [ 7 ][ 8 ][   ][   ][ 3 ][ 4 ][ 5 ][ 6 ]      head -> 3, the oldest; count 6; 8 the newest
 *
 * A slot is a word of 44 bits of time and 20 of cost, as long as that is enough (nearly always); else two words. */
#ifndef WEIR_RATELIMIT_STRATEGY_LOG_H
#define WEIR_RATELIMIT_STRATEGY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRATEGY_LOG_BYTES_MIN 64 /* what a log starts with: a cache line of 8 slots, 4 if they are wide */
#define STRATEGY_LOG_MAX 16384    /* slots; one of them stays empty */
#define STRATEGY_LOG_COST_BITS 20 /* of a slot of one word */

struct strategy_log_entry {
    uint64_t at_us; /* state time; wraps, so only differences mean anything */
    uint64_t cost;
};

struct strategy_log {
    uint64_t
        oldest_us; /* the oldest entry's time; it has a cost, as has the newest. Means nothing while there is none */
    uint64_t sum : 52; /* of the costs; 0 only if there is no entry */
    uint64_t _count_low : 12;
    uint64_t _slots : 42; /* their address in units of STRATEGY_LOG_BYTES_MIN: addresses have 48 bits */
    uint64_t _count_high : 2;
    uint64_t _head : 14;
    uint64_t _cap_bits : 4; /* 2 to the power of it is the number of slots */
    uint64_t _wide : 1;     /* slots of two words, for sums of 2^20 and more and for windows above 2^43 microseconds */
    uint64_t _late : 1;     /* the newest may not be before the next push: it has to be looked at */
};

static inline uint32_t strategy_log_cap(const struct strategy_log *log)
{
    return UINT32_C(1) << log->_cap_bits;
}

static inline uint32_t strategy_log_count(const struct strategy_log *log)
{
    return (uint32_t)(log->_count_high << 12 | log->_count_low);
}

/* The memory of the slots, and its bytes. */
static inline void *strategy_log_slots(const struct strategy_log *log)
{
    return (void *)((uintptr_t)log->_slots * STRATEGY_LOG_BYTES_MIN);
}

static inline size_t strategy_log_bytes(const struct strategy_log *log)
{
    return (size_t)8 << log->_wide << log->_cap_bits;
}

/* An empty log over `bytes` of memory, a power of two from STRATEGY_LOG_BYTES_MIN on, aligned to that, of any content
 * (which is not touched). */
void strategy_log_init(struct strategy_log *log, void *slots, size_t bytes);

/* Moves the entries to other memory, of no fewer bytes. What they were in is the owner's again. */
void strategy_log_move(struct strategy_log *log, void *slots, size_t bytes);

/* How many bytes the log should have before something of this cost is pushed, or added to an entry, so that no entries
 * have to be joined: what it has, if that is enough. `entries_max`: it never needs more. */
size_t strategy_log_wanted(const struct strategy_log *log, uint64_t cost, uint64_t window_us, uint64_t entries_max);

/* Has the processor fetch what a push looks at. */
static inline void strategy_log_prefetch(const struct strategy_log *log)
{
    uint32_t next = (uint32_t)log->_head + strategy_log_count(log), mask = strategy_log_cap(log) - 1;
    const char *slots = strategy_log_slots(log);
    __builtin_prefetch(slots + (((size_t)(next - 1) & mask) << (3 + log->_wide)), 1);
    __builtin_prefetch(slots + (((size_t)next & mask) << (3 + log->_wide)), 1);
}

/* The i-th oldest entry; i < count. */
static inline struct strategy_log_entry strategy_log_at(const struct strategy_log *log, uint32_t i)
{
    uint32_t slot = ((uint32_t)log->_head + i) & (strategy_log_cap(log) - 1);
    if (log->_wide)
        return ((const struct strategy_log_entry *)strategy_log_slots(log))[slot];
    uint64_t word = ((const uint64_t *)strategy_log_slots(log))[slot];
    /* None is before the oldest. */
    uint64_t since = ((word >> STRATEGY_LOG_COST_BITS) - log->oldest_us) & (UINT64_MAX >> STRATEGY_LOG_COST_BITS);
    return (struct strategy_log_entry){log->oldest_us + since, word & ((UINT64_C(1) << STRATEGY_LOG_COST_BITS) - 1)};
}

/* Says that the next push is later than all before, so that it need not fetch the newest to find out. */
static inline void strategy_log_pass(struct strategy_log *log)
{
    log->_late = 0;
}

/* Takes out the entries that are `window_us` old at `t`, or older. */
void strategy_log_expire(struct strategy_log *log, uint64_t t, uint64_t window_us);

/* Adds a cost of at least 1 at a time; one before the newest entry's counts as that. The entries are of the last
 * `window_us`. A full log first drops entries without cost or, if there are none, joins neighbours at the later time:
 * costs then count for longer, by up to 2 * window_us divided by the slots, and never shorter. */
void strategy_log_push(struct strategy_log *log, uint64_t at_us, uint64_t cost, uint64_t window_us);

/* Adds `delta` to the cost of the entry that holds what was pushed for `at_us`: the oldest that is not before it.
 * Nothing if there is none. The cost stops at 0, the sum at `sum_max`. */
void strategy_log_adjust(struct strategy_log *log, uint64_t at_us, int64_t delta, uint64_t sum_max, uint64_t window_us);

#endif
