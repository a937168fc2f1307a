#include "ratelimit/strategy_log.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Times wrap with their clock: later by less than half of all values is later. */
static bool is_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

static void set_bits(uint64_t *word, unsigned at, unsigned bits, uint64_t value)
{
    uint64_t mask = ((UINT64_C(1) << bits) - 1) << at;
    *word = (*word & ~mask) | value << at;
}

static void set_count(struct strategy_log *log, uint32_t count)
{
    set_bits(&log->_sum, STRATEGY_LOG_SUM_BITS, 12, count & 4095);
    set_bits(&log->_ring, STRATEGY_LOG_COUNT_AT, 2, count >> 12);
}

static void set_head(struct strategy_log *log, uint32_t head)
{
    set_bits(&log->_ring, STRATEGY_LOG_HEAD_AT, 14, head);
}

/* Notes how much later than the oldest entry the newest is, where there is room to. */
static void set_span(struct strategy_log *log, uint64_t span_us)
{
    if (!strategy_log_wide(log))
        set_bits(&log->_sum, STRATEGY_LOG_SPAN_AT, 32,
                 span_us < STRATEGY_LOG_SPAN_UNKNOWN ? span_us : STRATEGY_LOG_SPAN_UNKNOWN);
}

/* ---- slots ---- */

static uint32_t slot_of(const struct strategy_log *log, uint32_t i)
{
    return (strategy_log_head(log) + i) & (strategy_log_cap(log) - 1);
}

static void set(struct strategy_log *log, uint32_t i, struct strategy_log_entry entry)
{
    uint32_t slot = slot_of(log, i);
    if (strategy_log_wide(log))
        ((struct strategy_log_entry *)strategy_log_slots(log))[slot] = entry;
    else
        ((uint64_t *)strategy_log_slots(log))[slot] = entry.at_us << STRATEGY_LOG_COST_BITS | entry.cost;
}

static void drop_oldest(struct strategy_log *log)
{
    set_head(log, slot_of(log, 1));
    set_count(log, strategy_log_count(log) - 1);
}

/* Notes the oldest entry, after the older end has changed. Those without a cost have been settled, and nobody asks for
 * them again. */
static void note_oldest(struct strategy_log *log)
{
    while (strategy_log_count(log) != 0) {
        struct strategy_log_entry oldest = strategy_log_at(log, 0);
        if (oldest.cost != 0) {
            if (strategy_log_knows_span(log))
                log->_sum -= (oldest.at_us - log->oldest_us) << STRATEGY_LOG_SPAN_AT;
            log->oldest_us = oldest.at_us;
            break;
        }
        drop_oldest(log);
    }
}

/* ---- room ---- */

void strategy_log_init(struct strategy_log *log, void *slots, size_t bytes)
{
    uint64_t units = (uint64_t)(uintptr_t)slots / STRATEGY_LOG_BYTES_MIN;
    if (units >> STRATEGY_LOG_COUNT_AT != 0)
        abort(); /* no system gives such addresses to who does not ask for them */
    assert((uintptr_t)slots % STRATEGY_LOG_BYTES_MIN == 0 && bytes >= STRATEGY_LOG_BYTES_MIN);
    uint64_t cap_bits = (uint64_t)__builtin_ctzll(bytes / sizeof(uint64_t));
    *log = (struct strategy_log){._ring = units | cap_bits << STRATEGY_LOG_CAP_AT};
}

/* Makes the slots wide: there are half as many then. The sum has all of its bits. */
static void halve(struct strategy_log *log)
{
    set_bits(&log->_sum, STRATEGY_LOG_SPAN_AT, 32, 0);
    log->_ring = (log->_ring | STRATEGY_LOG_WIDE) - (UINT64_C(1) << STRATEGY_LOG_CAP_AT);
}

size_t strategy_log_wanted(const struct strategy_log *log, uint64_t cost, uint64_t window_us, uint64_t entries_max)
{
    bool widens = strategy_log_too_narrow(log, cost, window_us);
    uint32_t count = strategy_log_count(log), cap = strategy_log_cap(log) >> widens;
    size_t bytes = strategy_log_bytes(log);

    for (; count >= cap && cap < STRATEGY_LOG_MAX && cap < entries_max; cap *= 2)
        bytes *= 2;
    return bytes;
}

static void drop_empty(struct strategy_log *log)
{
    uint32_t count = strategy_log_count(log), kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct strategy_log_entry entry = strategy_log_at(log, i);
        if (entry.cost != 0)
            set(log, kept++, entry);
    }
    set_count(log, kept);
}

/* Joins entries whose times lie in one step, at the latest of them; of one window, so many and one remain. As steps are
 * always the same, no cost is put off by more than one, however often this happens. */
static void join_steps(struct strategy_log *log, uint64_t window_us, uint32_t steps)
{
    uint64_t step = window_us / steps + 1;
    uint32_t count = strategy_log_count(log), kept = 0;
    struct strategy_log_entry last = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        struct strategy_log_entry entry = strategy_log_at(log, i);
        if (kept != 0 && last.at_us / step == entry.at_us / step) {
            entry.cost += last.cost;
            kept--;
        }
        set(log, kept++, entry);
        last = entry;
    }
    set_count(log, kept);
}

/* Makes room: `most` entries remain at most, which is at least half of the slots. */
static void squeeze(struct strategy_log *log, uint32_t most, uint64_t window_us)
{
    if (strategy_log_count(log) > most)
        drop_empty(log);
    if (strategy_log_count(log) > most)
        join_steps(log, window_us, (most + 1) / 2);
    while (strategy_log_count(log) > most) { /* times of more than a window, when a limit was given a shorter one */
        struct strategy_log_entry oldest = strategy_log_at(log, 0), second = strategy_log_at(log, 1);
        second.cost += oldest.cost;
        set(log, 1, second);
        drop_oldest(log);
    }
    note_oldest(log);
}

static void reverse(uint64_t *words, uint32_t count)
{
    for (uint32_t i = 0; i < count / 2; i++) {
        uint64_t word = words[i];
        words[i] = words[count - 1 - i];
        words[count - 1 - i] = word;
    }
}

/* Gives each entry two words, in the same memory. */
static void widen(struct strategy_log *log, uint64_t window_us)
{
    struct strategy_log_entry *wide = strategy_log_slots(log);
    uint64_t *words = strategy_log_slots(log);
    uint32_t cap = strategy_log_cap(log);

    squeeze(log, cap / 2, window_us);
    uint32_t head = strategy_log_head(log);
    if (head != 0) { /* turns the ring until the oldest comes first */
        reverse(words, head);
        reverse(words + head, cap - head);
        reverse(words, cap);
        set_head(log, 0);
    }
    for (uint32_t i = strategy_log_count(log); i-- != 0;) /* the last first: what is to be read yet lies before it */
        wide[i] = strategy_log_at(log, i);
    halve(log);
}

void strategy_log_move(struct strategy_log *log, void *slots, size_t bytes)
{
    struct strategy_log from = *log;
    uint32_t count = strategy_log_count(&from), first = strategy_log_cap(&from) - strategy_log_head(&from);
    size_t slot = (size_t)8 << strategy_log_wide(&from);

    strategy_log_init(log, slots, bytes);
    if (strategy_log_wide(&from))
        halve(log);
    log->oldest_us = from.oldest_us;
    log->_sum = from._sum;
    set_count(log, count);
    if (first > count)
        first = count;
    memcpy(slots, (char *)strategy_log_slots(&from) + strategy_log_head(&from) * slot, first * slot);
    memcpy((char *)slots + first * slot, strategy_log_slots(&from), (count - first) * slot);
    /* Only slots that were to be widened are so many: what made them so may have passed by the next push. There would
     * be more than a head can tell apart. */
    if (strategy_log_cap(log) > STRATEGY_LOG_MAX)
        widen(log, 0); /* nothing is joined: no more than half of the slots are in use */
}

/* ---- entries ---- */

void strategy_log_expire(struct strategy_log *log, uint64_t t, uint64_t window_us)
{
    while (strategy_log_count(log) != 0) {
        struct strategy_log_entry oldest = strategy_log_at(log, 0);
        if (is_before(t - window_us, oldest.at_us))
            break;
        log->_sum -= oldest.cost;
        drop_oldest(log);
    }
    note_oldest(log);
}

void strategy_log_push(struct strategy_log *log, uint64_t at_us, uint64_t cost, uint64_t window_us)
{
    if (strategy_log_too_narrow(log, cost, window_us))
        widen(log, window_us);
    uint32_t count = strategy_log_count(log), most = strategy_log_cap(log);
    if (most >= STRATEGY_LOG_MAX)
        most = STRATEGY_LOG_MAX - 1;
    if (count == 0) {
        log->oldest_us = at_us;
    } else if (!is_before(strategy_log_newest_us(log), at_us)) {
        struct strategy_log_entry newest = strategy_log_at(log, count - 1);
        newest.cost += cost;
        set(log, count - 1, newest);
        log->_sum += cost;
        return;
    }
    if (count == most) {
        squeeze(log, count - 1, window_us);
        count = strategy_log_count(log);
    }
    set(log, count, (struct strategy_log_entry){at_us, cost});
    set_count(log, count + 1);
    set_span(log, at_us - log->oldest_us);
    log->_sum += cost;
}

/* The index of the oldest entry that is not before a time; the count if there is none. */
static uint32_t find(const struct strategy_log *log, uint64_t at_us)
{
    uint32_t low = 0, high = strategy_log_count(log);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_before(strategy_log_at(log, middle).at_us, at_us))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void strategy_log_adjust(struct strategy_log *log, uint64_t at_us, int64_t delta, uint64_t sum_max, uint64_t window_us)
{
    if (delta > 0 && strategy_log_too_narrow(log, (uint64_t)delta, window_us))
        widen(log, window_us);
    uint32_t i = find(log, at_us), count = strategy_log_count(log);
    if (i == count)
        return;
    struct strategy_log_entry entry = strategy_log_at(log, i);
    uint64_t room = sum_max - strategy_log_sum(log), less = 0 - (uint64_t)delta;
    log->_sum -= entry.cost;
    if (delta >= 0)
        entry.cost += (uint64_t)delta < room ? (uint64_t)delta : room;
    else
        entry.cost -= less < entry.cost ? less : entry.cost;
    set(log, i, entry);
    log->_sum += entry.cost;
    while (count != 0 && strategy_log_at(log, count - 1).cost == 0)
        count--;
    set_count(log, count);
    if (count != 0)
        set_span(log, strategy_log_at(log, count - 1).at_us - log->oldest_us);
    note_oldest(log);
}
