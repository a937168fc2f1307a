/* All model servers of the process, with what the workers share about them: how much each has in flight, how fast it
 * answers, whether it may be given requests, and the requests that wait for a place.
 *
 *      fleet ── set (counted, replaced whole) ──▶ server (counted) ◀── pool member (each worker's connections to it)
 *        │                                           ▲
 *        └─ queue ──▶ waiter (in its call) ──────────┘ those that could serve it
 *
 * Threads: every function may be called from any thread, but for what is said of waiters. A request costs two atomic
 * operations on the server that it goes to, and no lock; the lock guards what is rare: failures, changes of state,
 * servers that come and go, and the queue while somebody waits in it.
 *
 * Servers are added and removed while requests run: a server goes when the set, the pools and the leases have let go of
 * it. */
#ifndef WEIR_BACKENDS_FLEET_H
#define WEIR_BACKENDS_FLEET_H

#include "backends/backend.h"
#include "backends/balance.h"
#include "backends/health.h"
#include "backends/model_names.h"
#include "backends/prefix.h"
#include "backends/queue.h"
#include "backends/retry.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define FLEET_SERVERS_MAX 256
#define FLEET_QUEUE_MAX_DEFAULT 1000
#define FLEET_PROBLEM_MAX 120

/* A model's name that stands for others, tried in this order. */
struct fleet_alias {
    char *name;
    struct fleet_step {
        char *model;
        char *backend; /* the name of the only one to ask; NULL: whoever serves the model */
    } * steps;
    size_t step_count;
    int line; /* in the file, for messages */
};

struct fleet_settings {
    enum balance_policy policy; /* default: round_robin */
    enum balance_by by;         /* of consistent_hash; default: key */
    char *header;               /* its name in lower case, for BALANCE_BY_HEADER; NULL otherwise */
    struct retry_settings retries;
    size_t queue_max;          /* default 1000; 0: nobody waits */
    uint64_t queue_timeout_us; /* default 30 s */
    uint64_t resolve_us;       /* how often the names of hosts are looked up; default 30 s; 0: with each connection */
    struct fleet_alias *aliases;
    size_t alias_count;
};

/* Sets every default; no aliases. */
void fleet_settings_init(struct fleet_settings *settings);

struct fleet;

/* One server. What is not atomic never changes, or is the fleet's own. A choice looks at all servers, so what it needs
 * stands in two cache lines: one that is written with each request, by all workers, and one that hardly ever is. */
struct fleet_server {
    /* Given so far in the high half, in flight in the low one, so that one operation does both. */
    _Alignas(64) atomic_ullong _load;
    atomic_ullong _latency_us, _latency_since_us;

    _Alignas(64)
        atomic_ullong _closed_until_us; /* not to be chosen before; ejected or paused; 0: nothing of the kind */
    atomic_ullong _slow_since_us;       /* 0: full weight */
    atomic_ullong _failing_until_us;    /* 0: not failing; see fleet_is_avoided */
    uint64_t hash;                      /* of the name */
    uint32_t id;                        /* never used twice */
    uint32_t weight, max_concurrent;    /* of the settings */
    atomic_uint _state;                 /* enum health_state */
    atomic_bool _draining;              /* no new requests */
    atomic_bool _attention;             /* health wants to hear of good news too */

    _Alignas(64) const struct backend_settings *settings;
    const char *name; /* of the settings, or with an address where a name has several */
    struct fleet *fleet;
    struct fleet_server *root; /* whose settings this one shares, as another address of it; NULL: they are its own */
    struct sockaddr_storage address; /* to connect to in place of the settings' host; see address_len */
    socklen_t address_len;           /* 0: the settings' host */
    atomic_bool retired;             /* of a root: it is to have no servers any more */
    atomic_uint _refs;
    void (*_release)(void *owner); /* lets go of the settings */
    void *_owner;
    atomic_ullong ejections, pauses, recoveries; /* counters for metrics */
    atomic_uint _probed;                         /* enum fleet_probe */
    atomic_bool leaving;                         /* drained, and to be removed once nothing is in flight */
    /* Guarded by the fleet's lock. */
    struct health _health;
    struct model_names *_names;             /* what it said that it serves; counted; NULL: nothing yet */
    char _names_problem[FLEET_PROBLEM_MAX]; /* why that may be out of date; "": it is not */
};

/* What the last series of probes has found. */
enum fleet_probe { FLEET_PROBE_NONE, FLEET_PROBE_UP, FLEET_PROBE_DOWN };

/* A set of servers as it was at one time. */
struct fleet_set {
    atomic_uint _refs;
    size_t count;
    struct fleet_server *servers[];
};

/* ---- making, and who is in it ---- */

/* An empty fleet; `settings` must outlive it. */
struct fleet *fleet_create(const struct fleet_settings *settings);

/* All servers leave. Pools, leases and waiters must be gone. */
void fleet_destroy(struct fleet *fleet);

const struct fleet_settings *fleet_settings(const struct fleet *fleet);

/* Adds a server, which serves from now on. `settings` stay until `release` is called with `owner` (NULL: they outlive
 * the fleet). `name` NULL: that of the settings. NULL if there are FLEET_SERVERS_MAX already; the caller then still
 * owns the settings. The result stays valid for as long as the server is in the fleet. */
struct fleet_server *fleet_add(struct fleet *fleet, const struct backend_settings *settings, const char *name,
                               void (*release)(void *owner), void *owner);

/* Adds a server with the settings of another one, `root`, at an address of its own (`len` 0: at the settings' host).
 * `drained`: it gets no requests, unless fleet_inherit has kept for this address that it does. */
struct fleet_server *fleet_add_place(struct fleet *fleet, struct fleet_server *root, const char *name,
                                     const struct sockaddr *address, socklen_t len, bool drained);

/* Takes over what another fleet knows of the servers that are in both: those that backend_settings_alike says are the
 * same, by name; those that are leaving aside. That is their health, latency, models and counters, and of all that have
 * the name of one whether they are drained; what they have in flight stays the other's. Addresses that a name is still
 * to be looked up for get theirs when they come. Once, before the fleet has requests; `from` may have them. */
void fleet_inherit(struct fleet *fleet, struct fleet *from, uint64_t now_us);

/* Whom `release` will be called with: what fleet_add was given, of a place what its root was. */
void *fleet_server_owner(const struct fleet_server *server);

/* Whether it is to be removed, or its name not to be looked up any more. */
bool fleet_server_is_leaving(const struct fleet_server *server);

/* No new request goes to this server; those that run go on. Of one that stands for a name that is still to be looked
 * up, none goes to the addresses that fleet_inherit knows either. */
void fleet_drain(struct fleet *fleet, struct fleet_server *server);

/* Ends that. */
void fleet_undrain(struct fleet *fleet, struct fleet_server *server);

/* No new request goes to this server, and once it is idle it is removed: its address is gone from the name. */
void fleet_leave(struct fleet_server *server);

/* Takes a server out. Those requests that run on it go on. */
void fleet_remove(struct fleet *fleet, struct fleet_server *server);

/* The present set, counted. fleet_version changes with each new set; reading it costs next to nothing. */
struct fleet_set *fleet_set_get(struct fleet *fleet);
void fleet_set_release(struct fleet_set *set);
uint64_t fleet_version(const struct fleet *fleet);

struct fleet_server *fleet_server_retain(struct fleet_server *server);
void fleet_server_release(struct fleet_server *server);

/* The prefix table; NULL unless the policy is BALANCE_PREFIX. */
struct prefix_table *fleet_prefixes(const struct fleet *fleet);

/* ---- what a choice sees ---- */

static inline uint32_t fleet_in_flight(const struct fleet_server *server)
{
    return (uint32_t)atomic_load_explicit(&server->_load, memory_order_relaxed);
}

/* Requests given so far, modulo 2^32. */
static inline uint32_t fleet_begun(const struct fleet_server *server)
{
    return (uint32_t)(atomic_load_explicit(&server->_load, memory_order_relaxed) >> 32);
}

enum fleet_standing {
    FLEET_OPEN,   /* may be chosen */
    FLEET_TRIAL,  /* ejected, and a trial is due: see fleet_begin_trial */
    FLEET_CLOSED, /* ejected or paused; only where nobody else is left */
    FLEET_LEAVING /* drained */
};

/* How a server stands at `now_us`. The first is the second's rarer half, for one that is ejected or paused. */
enum fleet_standing fleet_standing_closed(const struct fleet_server *server, uint64_t until_us, uint64_t now_us);
static inline enum fleet_standing fleet_standing(const struct fleet_server *server, uint64_t now_us)
{
    uint64_t until_us = atomic_load_explicit(&server->_closed_until_us, memory_order_relaxed);
    if (atomic_load_explicit(&server->_draining, memory_order_relaxed))
        return FLEET_LEAVING;
    return until_us == 0 ? FLEET_OPEN : fleet_standing_closed(server, until_us, now_us);
}

/* The weight as of now, in 1/HEALTH_FULL. */
uint32_t fleet_weight_slow(struct fleet_server *server, uint64_t since_us, uint64_t now_us);
static inline uint32_t fleet_weight(struct fleet_server *server, uint64_t now_us)
{
    uint64_t since_us = atomic_load_explicit(&server->_slow_since_us, memory_order_relaxed);
    return since_us == 0 ? server->weight * HEALTH_FULL : fleet_weight_slow(server, since_us, now_us);
}

/* Whether an open server is failing (see health.h) and therefore better left to requests that nobody else can serve. */
static inline bool fleet_is_avoided(const struct fleet_server *server)
{
    return atomic_load_explicit(&server->_failing_until_us, memory_order_relaxed) != 0;
}

/* Whether it is time for one of the others to try such a server. */
static inline bool fleet_try_is_due(const struct fleet_server *server, uint64_t now_us)
{
    return now_us >= atomic_load_explicit(&server->_failing_until_us, memory_order_relaxed);
}

/* Makes the caller's request that one; false if another was faster. Any thread. */
bool fleet_begin_try(struct fleet_server *server, uint64_t now_us);

static inline bool fleet_is_full(const struct fleet_server *server)
{
    return server->max_concurrent != 0 && fleet_in_flight(server) >= server->max_concurrent;
}

/* The average time to first token as of now; 0: unknown. */
uint64_t fleet_latency_us(const struct fleet_server *server, uint64_t now_us);

/* The state, for people; *until_us receives when an ejection or pause ends, 0 if there is none. "healthy", "failing",
 * "ejected", "trial", "slow_start", "paused" or "draining". */
const char *fleet_state(const struct fleet_server *server, uint64_t now_us, uint64_t *until_us);

/* ---- a request's place ---- */

/* Takes a place on a server. False if max_concurrent places are taken. */
bool fleet_take(struct fleet_server *server);

/* Gives it back: to a request that waits for it, if there is one. */
void fleet_give_back(struct fleet_server *server);

/* Makes the caller's request the trial of an ejected server. False if another was faster. */
bool fleet_begin_trial(struct fleet_server *server, uint64_t now_us);

/* ---- what became of requests ---- */

/* A request failed. `others` are all that could have served it, this one perhaps among them: the last of them that
 * stands is not ejected, but failing. `problem` is for the log. */
void fleet_failed(struct fleet_server *server, enum health_failure failure, struct fleet_server *const *others,
                  size_t count, const char *problem, uint64_t now_us);

/* The first token, or the head of an answer that is no failure, has come after `latency_us` (0: it is not to count for
 * the average). */
void fleet_answered(struct fleet_server *server, uint64_t latency_us, uint64_t now_us);

/* An answer that is no error is complete. */
void fleet_finished(struct fleet_server *server);

/* The server asked for a pause of `us` (0: of no certain length). */
void fleet_pause(struct fleet_server *server, uint64_t us, uint64_t now_us);

/* A trial has shown nothing. */
void fleet_trial_void(struct fleet_server *server, uint64_t now_us);

/* What a series of active probes has found; `problem` for the log. `up` brings an ejected server back, otherwise it is
 * ejected unless it is the last one standing for one of its models, and then failing. Told again and again while
 * probes fail, it keeps an ejected server from trials and a failing one from tries. */
void fleet_probed(struct fleet_server *server, bool up, const char *problem, uint64_t now_us);

/* ---- the models that a server says it serves ---- */

/* Its list of models is `names` now (the caller's count is taken over): settings->models hold no longer. */
void fleet_discovered(struct fleet_server *server, struct model_names *names);

/* It has been asked in vain: the last list stays. */
void fleet_discovery_failed(struct fleet_server *server, const char *problem);

/* Its list, counted; NULL: it has none, and settings->models hold. `problem` (may be NULL) receives why the list may be
 * out of date, "" if it is not. A new list is a new fleet_version. */
struct model_names *fleet_names(struct fleet_server *server, char *problem, size_t problem_size);

/* ---- waiting for a place ---- */

/* A request that waits. Its owner is one worker's thread; the fleet's lock guards what is marked. */
struct fleet_waiter {
    struct queue_entry _entry;    /* locked */
    struct fleet_waiter *_next;   /* locked: in its line */
    struct fleet_server *granted; /* locked until it is delivered: the place that it got; counted */
    struct fleet_line *_line;
    struct fleet_server **_servers; /* that could serve it; counted */
    size_t _count;
    uint64_t _since_us;
    void (*on_granted)(struct fleet_waiter *waiter);
};

/* Where a worker finds its waiters that got a place. `wake` is called from any thread, with the fleet's lock held, when
 * there is the first one; the worker then calls fleet_deliver on its own thread, soon. */
struct fleet_line {
    struct fleet_waiter *_granted; /* locked */
    void (*wake)(void *ctx);
    void *ctx;
};

/* Begins to wait for a place on one of `servers`, all of which were full a moment ago. False if the queue is full.
 * on_granted is called from fleet_deliver, at the earliest in the loop's next turn, with waiter->granted set: the place
 * is taken, and the caller's to give back; the reference is the caller's too. */
bool fleet_wait(struct fleet *fleet, struct fleet_waiter *waiter, struct fleet_line *line,
                struct fleet_server *const *servers, size_t count, enum queue_class class, uint64_t key,
                uint64_t now_us);

/* Stops waiting; a place that was granted meanwhile goes to the next. Nothing happens if it does not wait. */
void fleet_stop_waiting(struct fleet *fleet, struct fleet_waiter *waiter);

/* Calls on_granted of every waiter of the line that got a place. */
void fleet_deliver(struct fleet *fleet, struct fleet_line *line);

/* Gives places to those that wait, where there are any: to be called now and then while somebody waits, since a place
 * may also come from a server that comes back. */
void fleet_dispatch(struct fleet *fleet, uint64_t now_us);

/* Requests that wait; reading it costs next to nothing. */
size_t fleet_waiting(const struct fleet *fleet);

/* How long those that got a place lately had to wait, in microseconds, on average. */
uint64_t fleet_queue_time_us(const struct fleet *fleet);

#endif
