/* Private to the fleet: what its files share. */
#ifndef WEIR_BACKENDS_FLEET_OWN_H
#define WEIR_BACKENDS_FLEET_OWN_H

#include "backends/fleet.h"

/* What was known of a server in the fleet before this one, for an address that is still to be looked up. */
struct fleet_memory {
    char *name; /* of the server; owned; NULL: it has been recalled */
    uint32_t root_id, begun;
    uint64_t latency_us, latency_since_us;
    uint64_t ejections, pauses, recoveries;
    unsigned probed;
    bool draining;
    struct health health;
    struct model_names *names; /* counted; NULL: none */
    char names_problem[FLEET_PROBLEM_MAX];
};

struct fleet {
    const struct fleet_settings *settings;
    struct prefix_table *prefixes;
    pthread_mutex_t lock; /* guards the set's replacement, all servers' health, the queue and the lines */
    struct fleet_set *set;
    atomic_ullong version;
    uint32_t next_id;
    struct queue queue;
    atomic_size_t waiting;         /* in the queue */
    atomic_ullong queue_time_us;   /* average */
    struct fleet_memory *memories; /* see fleet_inherit; the lock guards them too */
    size_t memory_count;
};

/* With the lock held: makes known to all threads what they look at with each choice. */
void fleet_publish(struct fleet_server *server);

/* Gives a new place, before it joins, what fleet_inherit has kept for it. */
void fleet_recall(struct fleet_server *server);

/* With the lock held: what is kept for the addresses of a root is drained, or is not. */
void fleet_remember_draining(struct fleet *fleet, uint32_t root_id, bool draining);

/* Drops what nobody has recalled. */
void fleet_forget(struct fleet *fleet);

/* Ends a slow start whose time is over. */
void fleet_settle(struct fleet_server *server, uint64_t now_us);

/* Gives a taken place to a waiter instead of back. False if nobody waits for it. */
bool fleet_hand_over(struct fleet_server *server);

/* Gives free places of a server to those that wait for them. */
void fleet_offer(struct fleet_server *server);

/* A place went from one request to the next: the server has been given one more. */
void fleet_count_given(struct fleet_server *server);

#endif
