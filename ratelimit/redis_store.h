/* Limits and leases over Redis, for gateways that share them: what store.h is for one process. The answers are the same
 * (strategy.h), the clock is Redis's, and a request's limits and places are decided on by one script in one round trip:
 * all are taken, or none. One for each link, on its thread.
 *
 * What a gateway holds lapses when the gateway dies: places after 14 seconds and reservations (hits on tokens) after
 * 45, unless they are renewed, which the store does for every hit from its answer until it is settled. A hit on
 * requests is no lease: it was made, whatever becomes of the gateway.
 *
 *      redis_store_hit ─▶ on_answer(admitted) ─▶ renewed … ─▶ redis_store_settle
 *                   │  └▶ on_answer(refused, or no answer)
 *                   └───▶ false: Redis is not there */
#ifndef WEIR_RATELIMIT_REDIS_STORE_H
#define WEIR_RATELIMIT_REDIS_STORE_H

#include "base/redis_link.h"
#include "ratelimit/redis_wire.h"
#include <stdatomic.h>

struct redis_store;

struct redis_store_settings {
    struct redis_link *link;     /* must outlive the store */
    struct deadlines *deadlines; /* of the link's thread */
    size_t first_script;         /* the number that the link has LIMIT_SCRIPT_HIT under; the others follow */
    struct span prefix;          /* of all keys, at most REDIS_PREFIX_MAX bytes; must outlive the store */
    uint64_t gateway;            /* random; all stores of a process have the same */
    atomic_uint *gateways;       /* shared by them: how many there were when last counted, this one included */
};

/* All that applies to a request and what is decided on it. Embedded in its owner, who keeps it, its asks and answers in
 * place until it is refused or settled. */
struct redis_hit {
    struct redis_question question; /* set by the owner, but for its id */
    struct store_answer *answers;   /* room for one for each ask */
    /* Once, unless redis_store_hit said false, and never from within it. `why` other than REDIS_ANSWERED: nobody knows
     * whether it was admitted; what it took of places and reservations lapses, what it took of requests is lost. The
     * owner may be freed in it, or ask again, unless the hit was admitted: then it has to be settled. */
    void (*on_answer)(struct redis_hit *hit, enum redis_failure why);
    struct redis_verdict verdict; /* valid if answered */
    uint64_t answered_us;         /* the clock that the answers' times are in, as it was then */
    struct redis_command _command;
    struct redis_store *_store;
    struct redis_hit *_next, *_prev; /* in a list of the store's */
    struct redis_list *_list;
    bool _adjusted;    /* which may not have been written yet */
    uint64_t _due_us;  /* to be renewed */
    uint64_t _open_us; /* its reservations were last renewed */
};

/* A store that holds nothing yet; the settings are copied, what they point to is not. Never NULL. On the link's thread,
 * like all of them. */
struct redis_store *redis_store_create(const struct redis_store_settings *settings);

/* Answers what still waits with REDIS_DOWN, and forgets what is held. Before the link is destroyed. */
void redis_store_destroy(struct redis_store *store);

/* Asks. False, and `*why` says so, if Redis is not there to be asked; then on_answer is not called. */
bool redis_store_hit(struct redis_store *store, struct redis_hit *hit, enum redis_failure *why);

/* Adds deltas[i] to what the i-th ask of an admitted hit consumed; 0 for those that reserve. May be called any number
 * of times before it is settled. Nothing is waited for; if Redis is gone nothing happens. */
void redis_store_adjust(struct redis_store *store, struct redis_hit *hit, const int64_t *deltas);

/* Settles an admitted hit: adds deltas[i] to what each ask consumed, ends its reservations, gives its places back. As
 * for redis_store_adjust nothing is waited for. The hit may be freed. */
void redis_store_settle(struct redis_store *store, struct redis_hit *hit, const int64_t *deltas);

#endif
