/* Requests that wait for a place: three classes, in each of them a turn for every key that waits, in each key first
 * come, first served.
 *
 *     high    [key a: 1 2 3 …] [key b: 7]            one request of a key, then one of the next: a key with a thousand
 *     normal  [key c: 4 5]                           requests does not delay the others
 *     low     [key d: 6]
 *
 * A higher class goes first, but not for ever: a class that has been passed over QUEUE_PATIENCE times gets its turn.
 * Pure: no clock, no lock; whoever shares a queue locks it. Entries are embedded in what waits. */
#ifndef WEIR_BACKENDS_QUEUE_H
#define WEIR_BACKENDS_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum queue_class { QUEUE_HIGH, QUEUE_NORMAL, QUEUE_LOW, QUEUE_CLASSES };
#define QUEUE_PATIENCE 16

struct queue_lane;

/* Something that waits. Zero-initialised: it does not. */
struct queue_entry {
    struct queue_entry *_next, *_prev;
    struct queue_lane *_lane; /* NULL: not in a queue */
};

struct queue {
    struct {
        struct queue_lane *turn; /* a ring; the lane whose turn is next */
        size_t lanes, waiting;
        unsigned passed_over;
    } classes[QUEUE_CLASSES];
    size_t waiting, max;
};

/* An empty queue for at most `max` entries. */
void queue_init(struct queue *queue, size_t max);

/* Adds an entry at the end of its key's lane; `key` tells keys apart within a class. False if the queue is full. */
bool queue_push(struct queue *queue, struct queue_entry *entry, enum queue_class class, uint64_t key);

/* Takes an entry out, wherever it stands; nothing happens if it is in no queue. */
void queue_remove(struct queue *queue, struct queue_entry *entry);

static inline bool queue_holds(const struct queue_entry *entry)
{
    return entry->_lane != NULL;
}

/* Takes out the entry whose turn it is among those that `fits` accepts; NULL if it accepts none. Of a key's entries the
 * first that fits is taken, so that one that waits for a busy model does not hold up the others. */
struct queue_entry *queue_take(struct queue *queue, bool (*fits)(void *ctx, struct queue_entry *entry), void *ctx);

#endif
