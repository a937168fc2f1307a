/* Requests that wait for a place. Everything here is the slow path: somebody waits. */
#include "backends/fleet_own.h"
#include "base/clock.h"
#include <stdlib.h>

#define WAITER(entry) ((struct fleet_waiter *)((char *)(entry)-offsetof(struct fleet_waiter, _entry)))

static bool waits_for(void *ctx, struct queue_entry *entry)
{
    const struct fleet_waiter *waiter = WAITER(entry);
    for (size_t i = 0; i < waiter->_count; i++)
        if (waiter->_servers[i] == ctx)
            return true;
    return false;
}

static void forget_servers(struct fleet_waiter *waiter)
{
    for (size_t i = 0; i < waiter->_count; i++)
        fleet_server_release(waiter->_servers[i]);
    free(waiter->_servers);
    waiter->_servers = NULL;
    waiter->_count = 0;
}

/* The lock is held, the place is taken, the waiter is in no queue. */
static void grant(struct fleet *fleet, struct fleet_waiter *waiter, struct fleet_server *server)
{
    struct fleet_line *line = waiter->_line;
    uint64_t waited = clock_us() - waiter->_since_us;
    uint64_t average = atomic_load_explicit(&fleet->queue_time_us, memory_order_relaxed);
    atomic_store_explicit(&fleet->queue_time_us, average - average / 8 + waited / 8, memory_order_relaxed);
    atomic_fetch_sub(&fleet->waiting, 1);
    waiter->granted = fleet_server_retain(server);
    struct fleet_waiter **end = &line->_granted;
    bool first = *end == NULL;
    while (*end != NULL)
        end = &(*end)->_next;
    waiter->_next = NULL;
    *end = waiter;
    if (first)
        line->wake(line->ctx);
}

bool fleet_hand_over(struct fleet_server *server)
{
    struct fleet *fleet = server->fleet;
    struct queue_entry *entry = NULL;
    pthread_mutex_lock(&fleet->lock);
    enum fleet_standing standing = fleet_standing(server, clock_us());
    if (standing == FLEET_OPEN)
        entry = queue_take(&fleet->queue, waits_for, server);
    if (entry != NULL) {
        fleet_count_given(server);
        grant(fleet, WAITER(entry), server);
    }
    pthread_mutex_unlock(&fleet->lock);
    return entry != NULL;
}

/* With the lock held. */
static void offer(struct fleet_server *server)
{
    struct fleet *fleet = server->fleet;
    while (fleet->queue.waiting != 0 && fleet_take(server)) {
        struct queue_entry *entry = queue_take(&fleet->queue, waits_for, server);
        if (entry == NULL) {
            /* Not fleet_give_back, which takes the lock; whoever begins to wait now looks for a place itself. */
            atomic_fetch_sub(&server->_load, 1);
            return;
        }
        grant(fleet, WAITER(entry), server);
    }
}

void fleet_offer(struct fleet_server *server)
{
    pthread_mutex_lock(&server->fleet->lock);
    if (fleet_standing(server, clock_us()) == FLEET_OPEN)
        offer(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

void fleet_dispatch(struct fleet *fleet, uint64_t now_us)
{
    pthread_mutex_lock(&fleet->lock);
    for (size_t i = 0; i < fleet->set->count && fleet->queue.waiting != 0; i++)
        if (fleet_standing(fleet->set->servers[i], now_us) == FLEET_OPEN)
            offer(fleet->set->servers[i]);
    pthread_mutex_unlock(&fleet->lock);
}

bool fleet_wait(struct fleet *fleet, struct fleet_waiter *waiter, struct fleet_line *line,
                struct fleet_server *const *servers, size_t count, enum queue_class class, uint64_t key,
                uint64_t now_us)
{
    waiter->_line = line;
    waiter->_since_us = now_us;
    waiter->granted = NULL;
    waiter->_servers = malloc(count * sizeof(servers[0]));
    if (waiter->_servers == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        waiter->_servers[i] = fleet_server_retain(servers[i]);
    waiter->_count = count;
    pthread_mutex_lock(&fleet->lock);
    bool waits = queue_push(&fleet->queue, &waiter->_entry, class, key);
    if (waits) {
        atomic_fetch_add(&fleet->waiting, 1);
        /* A place may have come free since the caller looked. */
        for (size_t i = 0; i < count && queue_holds(&waiter->_entry); i++)
            if (fleet_standing(servers[i], now_us) == FLEET_OPEN)
                offer(servers[i]);
    }
    pthread_mutex_unlock(&fleet->lock);
    if (!waits)
        forget_servers(waiter);
    return waits;
}

void fleet_stop_waiting(struct fleet *fleet, struct fleet_waiter *waiter)
{
    if (waiter->_line == NULL)
        return;
    pthread_mutex_lock(&fleet->lock);
    if (queue_holds(&waiter->_entry)) {
        queue_remove(&fleet->queue, &waiter->_entry);
        atomic_fetch_sub(&fleet->waiting, 1);
    }
    struct fleet_server *granted = waiter->granted;
    waiter->granted = NULL;
    for (struct fleet_waiter **at = &waiter->_line->_granted; *at != NULL; at = &(*at)->_next)
        if (*at == waiter) {
            *at = waiter->_next;
            break;
        }
    pthread_mutex_unlock(&fleet->lock);
    waiter->_line = NULL;
    forget_servers(waiter);
    if (granted != NULL) {
        fleet_give_back(granted);
        fleet_server_release(granted);
    }
}

void fleet_deliver(struct fleet *fleet, struct fleet_line *line)
{
    for (;;) {
        pthread_mutex_lock(&fleet->lock);
        struct fleet_waiter *waiter = line->_granted;
        if (waiter != NULL)
            line->_granted = waiter->_next;
        pthread_mutex_unlock(&fleet->lock);
        if (waiter == NULL)
            return;
        waiter->_line = NULL;
        forget_servers(waiter);
        waiter->on_granted(waiter);
    }
}

size_t fleet_waiting(const struct fleet *fleet)
{
    return atomic_load_explicit(&fleet->waiting, memory_order_relaxed);
}

uint64_t fleet_queue_time_us(const struct fleet *fleet)
{
    return atomic_load_explicit(&fleet->queue_time_us, memory_order_relaxed);
}
