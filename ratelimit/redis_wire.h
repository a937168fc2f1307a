/* What is asked of the Lua scripts and what they answer, as bytes. Numbers go as doubles, little-endian, in one
 * argument: neither side prints or parses digits. Keys in Redis are
 *
 *     PREFIX "l:" DIGEST   a limit for a client     PREFIX "r:" DIGEST   its open reservations
 *     PREFIX "s:" DIGEST   places                   PREFIX "gateways"    who is there
 *
 * with 32 hexadecimal digits: of one size, whatever a client sends. Pure; any thread. */
#ifndef WEIR_RATELIMIT_REDIS_WIRE_H
#define WEIR_RATELIMIT_REDIS_WIRE_H

#include "ratelimit/store.h"

#define REDIS_PREFIX_MAX 64
#define REDIS_PLACES_MAX 2
#define REDIS_ID_LEN 16
#define REDIS_TEND_MAX 64 /* leases renewed at a time */

/* One of at most `max` places. */
struct redis_place {
    struct key key;
    uint64_t max;
};

/* All that applies to a request. */
struct redis_question {
    char id[REDIS_ID_LEN]; /* unique: leases are known by it */
    const struct store_ask *asks;
    size_t count; /* <= STORE_ASKS_MAX */
    struct redis_place places[REDIS_PLACES_MAX];
    size_t place_count;
};

/* What Redis answered. */
struct redis_verdict {
    bool admitted;
    size_t refused; /* not admitted: the ask that says no for the longest, if `place` is none */
    size_t place;   /* the place that was not free; REDIS_PLACES_MAX: none */
};

/* The arguments of a script: keys, then the rest. Large; lives on the stack and is not copied, since the spans point
 * into it. */
struct redis_wire {
    struct span args[2 * (STORE_ASKS_MAX + REDIS_TEND_MAX)];
    size_t count, key_count;
    char *_next;
    char _text[16 * 1024];
};

/* LIMIT_SCRIPT_HIT. `test_now_us`: NULL but in tests, which set the time. */
void redis_wire_hit(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                    const uint64_t *test_now_us);

/* Reads its answer; times are put into the clock of `now_us`. False if it is none. */
bool redis_wire_answer(struct span reply, const struct redis_question *question, uint64_t now_us,
                       struct store_answer *answers, struct redis_verdict *verdict);

/* LIMIT_SCRIPT_SETTLE of a hit that was admitted: adds deltas[i] to what the i-th ask consumed. With `end` its leases
 * end too; else they stay, and deltas of asks that reserve must be 0. False if there is nothing to say. */
bool redis_wire_settle(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                       const struct store_answer *answers, const int64_t *deltas, bool end,
                       const uint64_t *test_now_us);

/* LIMIT_SCRIPT_TEND for the gateway of this id. */
void redis_wire_tend(struct redis_wire *wire, struct span prefix, uint64_t gateway);

/* Adds the leases of a hit, its reservations only if `reservations`. False, with none added, if there is no room. */
bool redis_wire_tend_add(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                         const struct store_answer *answers, bool reservations);

/* Whether the hit of this ask is a reservation: it counts until it is settled, or for as long as its gateway lives. */
static inline bool redis_reserves(const struct store_ask *ask)
{
    return ask->limit->unit == LIMIT_TOKENS && ask->cost != 0;
}

#endif
