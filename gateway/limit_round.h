/* Between the files of limit.h. A route may have several limit steps; each makes a round: what applied, and what was
 * taken of it, from this process's memory or from Redis, until the call ends. One thread. */
#ifndef WEIR_GATEWAY_LIMIT_ROUND_H
#define WEIR_GATEWAY_LIMIT_ROUND_H

#include "gateway/depend.h"
#include "gateway/limit.h"
#include "ratelimit/redis_store.h"

/* What is being decided on; large, on the stack. */
struct limit_decision {
    struct call *call;
    uint64_t prompt_guess;
    bool common; /* keys are those of Redis */
    bool own;    /* the key's own limits are among them */
    size_t count;
    struct store_ask asks[STORE_ASKS_MAX];
    const struct config_limit *of[STORE_ASKS_MAX]; /* NULL: the key's own */
};

/* Everything that applies to the call at the step it is at. `common`: with keys for Redis, the same in all gateways;
 * else with this process's own secret. */
void limit_gather(struct limit_decision *decision, struct call *call, bool common);

/* What a call asks of max_streams. */
struct limit_places {
    size_t count;
    struct redis_place places[REDIS_PLACES_MAX];
    unsigned char which[REDIS_PLACES_MAX]; /* 0: the key's, 1: all together */
};

/* The places that max_streams counts and the call does not have yet; none for a message, which is under its socket's.
 * `common` as for limit_gather. */
void limit_places(const struct call *call, bool common, struct limit_places *places);

/* Where a limit of a round comes from. */
struct limit_source {
    const struct config_limit *of; /* NULL: the key's own */
    const struct limit *limit;     /* as configured */
};

struct limit_round {
    struct limit_round *next; /* of an earlier step */
    struct redis_hit *redis;  /* what it took is there; NULL: in memory */
    uint64_t now_us, prompt_guess;
    bool own;      /* see limit_decision */
    bool reserves; /* something in memory is to be settled, or given back, when the call ends */
    bool recycled; /* its memory will be */
    size_t count;
    struct store_ask *asks; /* parallel, behind the round */
    struct store_answer *answers;
    struct limit_source *sources;
    struct limit *shares;                        /* what is counted, if that is a replica's part */
    struct limit_places places;                  /* that it asked for */
    struct store_lease leases[REDIS_PLACES_MAX]; /* in memory */
};

/* Where the tightest limit of a unit stands, for headers. */
struct limit_standing {
    const struct limit *limit; /* as configured; NULL: none */
    struct strategy_numbers numbers;
};

struct call_limits {
    struct limit_standing standing[2]; /* by enum limit_unit */
    uint64_t now_us, prompt_guess;
    bool refused, headers;
    bool own_asked;             /* the key's own limits have been, by an earlier step */
    bool leased[2];             /* which places it has; see limit_places.which */
    struct limit_round *rounds; /* that were admitted */
};

/* A round over what applies, with nothing taken yet. It begins a struct of `size` bytes, of which no others are set. */
struct limit_round *limit_round_create(size_t size, const struct limit_decision *decision,
                                       const struct limit_places *places);
void limit_round_free(struct limit_round *round);

/* Gives back all that an admitted round took. */
void limit_round_undo(struct limit_round *round, struct worker *worker);

/* Takes an admitted round into the call's limits: DEPEND_NEXT. */
enum depend_result limit_admit(struct call *call, struct limit_round *round);

/* Refuses the call, gives back what earlier rounds took, and frees the round: because of its refused-th ask, or for
 * want of a place. DEPEND_REFUSED. */
enum depend_result limit_refuse(struct call *call, struct limit_round *round, size_t refused);
enum depend_result limit_refuse_place(struct call *call, struct limit_round *round);

/* Decides in memory: with `fallback` because Redis does not answer, each limit as its on_redis_failure says. */
enum depend_result limit_decide_in_memory(struct call *call, bool fallback);

/* Asks Redis; DEPEND_WAIT unless it is not there. */
enum depend_result limit_decide_in_redis(struct call *call);

#endif
