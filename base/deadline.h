/* Deadlines of arbitrary length for one thread: a binary heap of absolute times, driven by the thread's loop, which
 * waits no longer than deadlines_wait_ms() and then calls deadlines_run(). The entry is embedded in its owner and found
 * again by container-of; nothing is allocated per deadline once the heap has grown. */
#ifndef WEIR_BASE_DEADLINE_H
#define WEIR_BASE_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deadline;
typedef void (*deadline_cb)(struct deadline *deadline);

/* Zero-initialised means unarmed. */
struct deadline {
    deadline_cb cb;
    uint64_t _at_us;
    uint64_t _order; /* of arming: equal times fire first come, first served */
    size_t _index;   /* position in the heap + 1; 0 when unarmed */
};

struct deadlines {
    struct deadline **_heap;
    size_t _count, _cap;
    uint64_t _armed;      /* arms so far */
    uint64_t _running_us; /* the time of the run under way, 0 outside of one */
};

/* Prepares an empty set. */
void deadlines_init(struct deadlines *set);

/* Frees the set; the deadlines still in it are forgotten: neither called nor touched, so that
 * their owners may have gone before or may still disarm them later. Not from a callback. */
void deadlines_dispose(struct deadlines *set);

/* Arms `deadline` to fire at `at_us` (clock_us() time), or moves it if it is armed. Its cb must be set. O(log n). */
void deadline_arm(struct deadlines *set, struct deadline *deadline, uint64_t at_us);

/* Takes a deadline out; nothing happens if it is not armed. */
void deadline_disarm(struct deadlines *set, struct deadline *deadline);

static inline bool deadline_armed(const struct deadline *deadline)
{
    return deadline->_index != 0;
}

/* Calls, in order of time, every deadline that is due at `now_us`. Each is unarmed before its call and may be armed
 * again, or freed, in it; so may any other be armed, disarmed or (disarmed) freed. Deadlines armed for a time already
 * past during the run count as due at `now_us` and wait for the next run. */
void deadlines_run(struct deadlines *set, uint64_t now_us);

/* How long a loop may wait, in milliseconds, rounded up so that it never spins; `max_ms` when nothing is sooner
 * (negative: no limit, -1 is returned when nothing is armed). 0 when one is due. */
int deadlines_wait_ms(const struct deadlines *set, uint64_t now_us, int max_ms);

#endif
