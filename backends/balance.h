/* Which of several servers gets a request. Pure: an array of facts in, an index out; no I/O, no clock, no lock. What is
 * remembered from one choice to the next belongs to the caller and to one thread. */
#ifndef WEIR_BACKENDS_BALANCE_H
#define WEIR_BACKENDS_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum balance_policy {
    BALANCE_ROUND_ROBIN,     /* smooth and weighted */
    BALANCE_LEAST_REQUESTS,  /* fewest in flight for its weight; equals take turns */
    BALANCE_POWER_OF_TWO,    /* of two drawn by weight, the one with fewer in flight for its weight */
    BALANCE_CONSISTENT_HASH, /* the same server for the same key, within a bound on its load */
    BALANCE_PREFIX,          /* the server that has seen the longest part of the prompt, within the same bound */
    BALANCE_LATENCY,         /* peak-EWMA of the time to first token, times what is in flight */
};

/* What a key for consistent_hash is made of. */
enum balance_by { BALANCE_BY_KEY, BALANCE_BY_USER, BALANCE_BY_HEADER };

/* A server that may be chosen. */
struct balance_candidate {
    uint64_t hash;       /* of its name: the same in every process */
    uint32_t id;         /* as the prefix table knows it */
    uint32_t weight;     /* at least 1; in slow start less than its due. All in one unit. */
    uint32_t in_flight;  /* over all workers */
    uint64_t latency_us; /* its average as of now (balance_latency_now); 0: unknown */
    int64_t *turn;       /* smooth round robin's memory; 0 at first */
};

/* What is known of the request. */
struct balance_request {
    enum balance_policy policy;
    uint64_t key;  /* consistent_hash: a digest of the key */
    bool has_key;  /* else as least_requests */
    uint32_t warm; /* prefix: the id of the server that has seen most of the prompt; BALANCE_NOBODY: none */
    uint64_t random;
};
#define BALANCE_NOBODY UINT32_MAX

#define BALANCE_CANDIDATES_MAX 512

/* Chooses one of `count` candidates, at least 1 and at most BALANCE_CANDIDATES_MAX, in time linear in their number.
 * Returns its index. */
size_t balance_choose(const struct balance_request *request, const struct balance_candidate *candidates, size_t count);

/* An average that jumps up to a peak at once and comes down slowly (Finagle's peak EWMA): `sample_us` now, `average_us`
 * as of `since_us`. */
uint64_t balance_latency_add(uint64_t average_us, uint64_t since_us, uint64_t sample_us, uint64_t now_us);

/* The average as it counts now: it fades while nothing is heard, so that a slow server is tried again. */
uint64_t balance_latency_now(uint64_t average_us, uint64_t since_us, uint64_t now_us);

/* 64 bits of a hash of `len` bytes, the same on every machine; not for secrets. Four lanes wide for long input. */
uint64_t balance_hash(const void *bytes, size_t len, uint64_t seed);

/* Random enough for choices; *state must not be 0. */
uint64_t balance_random(uint64_t *state);

#endif
