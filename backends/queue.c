#include "backends/queue.h"
#include <stdlib.h>

struct queue_lane {
    struct queue_lane *next, *prev; /* in the ring of its class */
    struct queue_entry *first, *last;
    enum queue_class class;
    uint64_t key;
};

void queue_init(struct queue *queue, size_t max)
{
    *queue = (struct queue){.max = max};
}

/* A ring is searched from its start: it is as long as there are keys that wait, which the queue's maximum bounds, and
 * only requests that wait anyway pay for it. */
static struct queue_lane *find_lane(const struct queue *queue, enum queue_class class, uint64_t key)
{
    struct queue_lane *lane = queue->classes[class].turn;
    for (size_t i = 0; i < queue->classes[class].lanes; i++, lane = lane->next)
        if (lane->key == key)
            return lane;
    return NULL;
}

static struct queue_lane *add_lane(struct queue *queue, enum queue_class class, uint64_t key)
{
    struct queue_lane *lane = calloc(1, sizeof(*lane)), *turn = queue->classes[class].turn;
    if (lane == NULL)
        abort();
    lane->class = class;
    lane->key = key;
    lane->next = lane->prev = lane;
    if (turn != NULL) { /* a newcomer's turn comes last */
        lane->next = turn;
        lane->prev = turn->prev;
        turn->prev->next = lane;
        turn->prev = lane;
    } else {
        queue->classes[class].turn = lane;
    }
    queue->classes[class].lanes++;
    return lane;
}

static void drop_lane(struct queue *queue, struct queue_lane *lane)
{
    enum queue_class class = lane->class;
    if (queue->classes[class].turn == lane)
        queue->classes[class].turn = lane->next != lane ? lane->next : NULL;
    lane->prev->next = lane->next;
    lane->next->prev = lane->prev;
    queue->classes[class].lanes--;
    free(lane);
}

bool queue_push(struct queue *queue, struct queue_entry *entry, enum queue_class class, uint64_t key)
{
    if (queue->waiting >= queue->max)
        return false;
    struct queue_lane *lane = find_lane(queue, class, key);
    if (lane == NULL)
        lane = add_lane(queue, class, key);
    entry->_lane = lane;
    entry->_next = NULL;
    entry->_prev = lane->last;
    *(lane->last != NULL ? &lane->last->_next : &lane->first) = entry;
    lane->last = entry;
    queue->waiting++;
    queue->classes[class].waiting++;
    return true;
}

void queue_remove(struct queue *queue, struct queue_entry *entry)
{
    struct queue_lane *lane = entry->_lane;
    if (lane == NULL)
        return;
    *(entry->_prev != NULL ? &entry->_prev->_next : &lane->first) = entry->_next;
    *(entry->_next != NULL ? &entry->_next->_prev : &lane->last) = entry->_prev;
    entry->_lane = NULL;
    queue->waiting--;
    if (--queue->classes[lane->class].waiting == 0)
        queue->classes[lane->class].passed_over = 0;
    if (lane->first == NULL)
        drop_lane(queue, lane);
}

static struct queue_entry *take_of_class(struct queue *queue, enum queue_class class,
                                         bool (*fits)(void *ctx, struct queue_entry *entry), void *ctx)
{
    struct queue_lane *lane = queue->classes[class].turn;
    for (size_t i = 0; i < queue->classes[class].lanes; i++, lane = lane->next) {
        for (struct queue_entry *entry = lane->first; entry != NULL; entry = entry->_next) {
            if (!fits(ctx, entry))
                continue;
            queue->classes[class].turn = lane->next;
            queue->classes[class].passed_over = 0;
            queue_remove(queue, entry);
            return entry;
        }
    }
    return NULL;
}

struct queue_entry *queue_take(struct queue *queue, bool (*fits)(void *ctx, struct queue_entry *entry), void *ctx)
{
    struct queue_entry *entry;
    for (int class = QUEUE_CLASSES - 1; class > 0; class --)
        if (queue->classes[class].passed_over >= QUEUE_PATIENCE &&
            (entry = take_of_class(queue, (enum queue_class) class, fits, ctx)) != NULL)
            return entry;
    for (int class = 0; class < QUEUE_CLASSES; class ++) {
        if ((entry = take_of_class(queue, (enum queue_class) class, fits, ctx)) == NULL)
            continue;
        for (int lower = class + 1; lower < QUEUE_CLASSES; lower++)
            queue->classes[lower].passed_over += queue->classes[lower].waiting != 0;
        return entry;
    }
    return NULL;
}
