/* Private to the fleet: what its files share. */
#ifndef WEIR_BACKENDS_FLEET_OWN_H
#define WEIR_BACKENDS_FLEET_OWN_H

#include "backends/fleet.h"

struct fleet {
    const struct fleet_settings *settings;
    struct prefix_table *prefixes;
    pthread_mutex_t lock; /* guards the set's replacement, all servers' health, the queue and the lines */
    struct fleet_set *set;
    atomic_ullong version;
    uint32_t next_id;
    struct queue queue;
    atomic_size_t waiting;       /* in the queue */
    atomic_ullong queue_time_us; /* average */
};

/* Ends a slow start whose time is over. */
void fleet_settle(struct fleet_server *server, uint64_t now_us);

/* Gives a taken place to a waiter instead of back. False if nobody waits for it. */
bool fleet_hand_over(struct fleet_server *server);

/* Gives free places of a server to those that wait for them. */
void fleet_offer(struct fleet_server *server);

/* A place went from one request to the next: the server has been given one more. */
void fleet_count_given(struct fleet_server *server);

#endif
