#include "base/deadline.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>

#define FIRST_CAP 64

void deadlines_init(struct deadlines *set)
{
    *set = (struct deadlines){0};
}

void deadlines_dispose(struct deadlines *set)
{
    free(set->_heap);
    *set = (struct deadlines){0};
}

static bool sooner(const struct deadline *a, const struct deadline *b)
{
    return a->_at_us != b->_at_us ? a->_at_us < b->_at_us : a->_order < b->_order;
}

static void place(struct deadlines *set, size_t slot, struct deadline *deadline)
{
    set->_heap[slot] = deadline;
    deadline->_index = slot + 1;
}

/* Puts `deadline` at `slot`, which is free, or as far above or below it as the order of the heap demands. */
static void settle(struct deadlines *set, size_t slot, struct deadline *deadline)
{
    while (slot != 0 && sooner(deadline, set->_heap[(slot - 1) / 2])) {
        place(set, slot, set->_heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * slot + 1;
        if (child >= set->_count)
            break;
        if (child + 1 < set->_count && sooner(set->_heap[child + 1], set->_heap[child]))
            child++;
        if (!sooner(set->_heap[child], deadline))
            break;
        place(set, slot, set->_heap[child]);
        slot = child;
    }
    place(set, slot, deadline);
}

/* An entry that outlived its set still carries an index. */
static bool holds(const struct deadlines *set, const struct deadline *deadline)
{
    size_t slot = deadline->_index - 1;
    return deadline->_index != 0 && slot < set->_count && set->_heap[slot] == deadline;
}

static void grow(struct deadlines *set)
{
    size_t cap = set->_cap != 0 ? set->_cap * 2 : FIRST_CAP;
    struct deadline **heap = reallocarray(set->_heap, cap, sizeof(*heap));
    if (heap == NULL)
        abort();
    set->_heap = heap;
    set->_cap = cap;
}

void deadline_arm(struct deadlines *set, struct deadline *deadline, uint64_t at_us)
{
    assert(deadline->cb != NULL);
    /* During a run a past time sorts behind all that the run still has to call: see deadlines_run. */
    deadline->_at_us = at_us < set->_running_us ? set->_running_us : at_us;
    deadline->_order = ++set->_armed;
    size_t slot;
    if (holds(set, deadline)) {
        slot = deadline->_index - 1;
    } else {
        if (set->_count == set->_cap)
            grow(set);
        slot = set->_count++;
    }
    settle(set, slot, deadline);
}

void deadline_disarm(struct deadlines *set, struct deadline *deadline)
{
    size_t slot = deadline->_index - 1;
    bool held = holds(set, deadline);
    deadline->_index = 0;
    if (!held)
        return;
    struct deadline *last = set->_heap[--set->_count];
    if (last != deadline)
        settle(set, slot, last);
}

void deadlines_run(struct deadlines *set, uint64_t now_us)
{
    uint64_t outer_us = set->_running_us;
    uint64_t limit = set->_armed;
    set->_running_us = now_us;
    /* What is armed from here on has an order above `limit` and a time of at least `now_us`, so once such a one is on
     * top, nothing that was due when the run began is left. */
    while (set->_count != 0) {
        struct deadline *first = set->_heap[0];
        if (first->_at_us > now_us || first->_order > limit)
            break;
        deadline_disarm(set, first);
        first->cb(first);
    }
    set->_running_us = outer_us;
}

int deadlines_wait_ms(const struct deadlines *set, uint64_t now_us, int max_ms)
{
    uint64_t max = max_ms < 0 ? INT_MAX : (uint64_t)max_ms;
    if (set->_count == 0)
        return max_ms < 0 ? -1 : max_ms;
    uint64_t at_us = set->_heap[0]->_at_us;
    if (at_us <= now_us)
        return 0;
    uint64_t wait_us = at_us - now_us;
    uint64_t wait_ms = wait_us / 1000 + (wait_us % 1000 != 0);
    return (int)(wait_ms < max ? wait_ms : max);
}
