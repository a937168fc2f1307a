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
/* Entries of one window differ by less than half of what the time in such a slot can say. */
#define STRATEGY_LOG_NARROW_WINDOW_MAX (UINT64_C(1) << 43)

struct strategy_log_entry {
    uint64_t at_us; /* state time; wraps, so only differences mean anything */
    uint64_t cost;
};

/* The words are packed by hand, and always written whole: a field written by itself would hold up whoever then reads
 * the word, until all that was written before has reached memory. */
struct strategy_log {
    uint64_t
        oldest_us; /* the oldest entry's time; it has a cost, as has the newest. Means nothing while there is none */
    /* 52 bits: the costs' sum, 0 only if there is no entry; 12: the count's lower bits. While the slots are narrow the
     * sum has 20 bits, and the 32 above it say by how many microseconds the newest entry is later than the oldest, so
     * that it need not be fetched; all ones: the log knows. */
    uint64_t _sum;
    /* 42 bits: the slots' address in units of STRATEGY_LOG_BYTES_MIN (addresses have 48 bits); 2: the count's upper
     * bits; 14: the head; 4: the number of slots is 2 to the power of it; 1: slots of two words, for sums of 2^20 and
     * more and for windows above 2^43 microseconds. */
    uint64_t _ring;
};

#define STRATEGY_LOG_SUM_BITS 52
#define STRATEGY_LOG_SPAN_AT STRATEGY_LOG_COST_BITS
#define STRATEGY_LOG_SPAN_UNKNOWN UINT32_MAX
#define STRATEGY_LOG_COUNT_AT 42
#define STRATEGY_LOG_HEAD_AT 44
#define STRATEGY_LOG_CAP_AT 58
#define STRATEGY_LOG_WIDE (UINT64_C(1) << 62)

static inline bool strategy_log_wide(const struct strategy_log *log)
{
    return (log->_ring & STRATEGY_LOG_WIDE) != 0;
}

static inline uint64_t strategy_log_sum(const struct strategy_log *log)
{
    unsigned bits = strategy_log_wide(log) ? STRATEGY_LOG_SUM_BITS : STRATEGY_LOG_SPAN_AT;
    return log->_sum & ((UINT64_C(1) << bits) - 1);
}

static inline uint32_t strategy_log_count(const struct strategy_log *log)
{
    return (uint32_t)(log->_sum >> STRATEGY_LOG_SUM_BITS | (log->_ring >> STRATEGY_LOG_COUNT_AT & 3) << 12);
}

static inline uint32_t strategy_log_head(const struct strategy_log *log)
{
    return (uint32_t)(log->_ring >> STRATEGY_LOG_HEAD_AT) & 0x3fff;
}

static inline uint32_t strategy_log_cap(const struct strategy_log *log)
{
    return UINT32_C(1) << (log->_ring >> STRATEGY_LOG_CAP_AT & 15);
}

/* The memory of the slots, and its bytes. */
static inline void *strategy_log_slots(const struct strategy_log *log)
{
    return (void *)(uintptr_t)((log->_ring & ((UINT64_C(1) << STRATEGY_LOG_COUNT_AT) - 1)) * STRATEGY_LOG_BYTES_MIN);
}

static inline size_t strategy_log_bytes(const struct strategy_log *log)
{
    return (size_t)strategy_log_cap(log) * 8 << strategy_log_wide(log);
}

/* Whether slots of one word do not do any longer, with this cost and window. */
static inline bool strategy_log_too_narrow(const struct strategy_log *log, uint64_t cost, uint64_t window_us)
{
    return !strategy_log_wide(log) && (strategy_log_sum(log) + cost >= UINT64_C(1) << STRATEGY_LOG_COST_BITS ||
                                       window_us > STRATEGY_LOG_NARROW_WINDOW_MAX);
}

/* An empty log over `bytes` of memory, a power of two from STRATEGY_LOG_BYTES_MIN on, aligned to that, of any content
 * (which is not touched). */
void strategy_log_init(struct strategy_log *log, void *slots, size_t bytes);

/* Moves the entries to other memory, of no fewer bytes, at most 16 for each of STRATEGY_LOG_MAX slots. What they were
 * in is the owner's again. */
void strategy_log_move(struct strategy_log *log, void *slots, size_t bytes);

/* How many bytes the log should have before something of this cost is pushed, or added to an entry, so that no entries
 * have to be joined: what it has, if that is enough. `entries_max`: it never needs more. */
size_t strategy_log_wanted(const struct strategy_log *log, uint64_t cost, uint64_t window_us, uint64_t entries_max);

/* Has the processor fetch the slot of the i-th oldest entry; i <= count, so that of the next push too. */
static inline void strategy_log_prefetch(const struct strategy_log *log, uint32_t i)
{
    uint32_t slot = (strategy_log_head(log) + i) & (strategy_log_cap(log) - 1);
    __builtin_prefetch((char *)strategy_log_slots(log) + ((size_t)slot * 8 << strategy_log_wide(log)), 1);
}

/* The i-th oldest entry; i < count. */
static inline struct strategy_log_entry strategy_log_at(const struct strategy_log *log, uint32_t i)
{
    uint32_t slot = (strategy_log_head(log) + i) & (strategy_log_cap(log) - 1);
    if (strategy_log_wide(log))
        return ((const struct strategy_log_entry *)strategy_log_slots(log))[slot];
    uint64_t word = ((const uint64_t *)strategy_log_slots(log))[slot];
    /* None is before the oldest. */
    uint64_t since = ((word >> STRATEGY_LOG_COST_BITS) - log->oldest_us) & (UINT64_MAX >> STRATEGY_LOG_COST_BITS);
    return (struct strategy_log_entry){log->oldest_us + since, word & ((UINT64_C(1) << STRATEGY_LOG_COST_BITS) - 1)};
}

/* Whether how much later the newest entry is than the oldest is known without the slots. */
static inline bool strategy_log_knows_span(const struct strategy_log *log)
{
    return !strategy_log_wide(log) && (uint32_t)(log->_sum >> STRATEGY_LOG_SPAN_AT) != STRATEGY_LOG_SPAN_UNKNOWN;
}

/* The newest entry's time; there is one. */
static inline uint64_t strategy_log_newest_us(const struct strategy_log *log)
{
    if (strategy_log_knows_span(log))
        return log->oldest_us + (uint32_t)(log->_sum >> STRATEGY_LOG_SPAN_AT);
    return strategy_log_at(log, strategy_log_count(log) - 1).at_us;
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
