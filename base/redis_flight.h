/* The two halves of a link: redis_link.c makes the connection and watches it, redis_flight.c sends commands on it and
 * hands out what comes back. Internal to the two; one thread. */
#ifndef WEIR_BASE_REDIS_FLIGHT_H
#define WEIR_BASE_REDIS_FLIGHT_H

#include "base/redis_conn.h"
#include "base/redis_link.h"
#include "base/strbuf.h"
#include <stdatomic.h>

struct redis_sentinel;

#define REDIS_SHA_DIGITS 40
#define REDIS_HOST_MAX 255

enum link_state {
    LINK_RESTING,
    LINK_ASKING, /* the Sentinels */
    LINK_CONNECTING,
    LINK_GREETING,
    LINK_UP,
    LINK_STALLED, /* connected, but it answers too late: only PINGs are sent */
};

/* What hiredis keeps for each reply that it awaits. Outlives its command if that is late or cancelled. */
struct redis_flight {
    struct redis_pending pending;
    struct redis_link *link;
    struct redis_command *command; /* NULL: nobody waits; a PING of the link's own */
    uint64_t ping_us;              /* when a PING was sent; 0: it is none */
    struct link_script *script;    /* NULL: a plain command */
    unsigned tries;                /* of a script */
    bool is_eval;
    size_t pieces, size; /* of `rest` */
    char rest[];         /* a script's command behind the script: number of keys, keys, arguments */
};

struct link_script {
    struct span text;
    char sha[REDIS_SHA_DIGITS + 1];
    unsigned evals; /* on their way; what is sent after one may rely on the script */
};

struct redis_link {
    struct redis_link_settings settings;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    enum link_state state;
    struct redis_conn *conn;
    struct redis_sentinel *sentinel; /* NULL: a fixed address */
    char host[REDIS_HOST_MAX + 1];
    uint16_t port;
    struct deadline step; /* the end of the rest, of the greeting; the next tick when up */
    struct deadline late; /* of the first command */
    struct redis_command *first, *last;
    size_t flights, held; /* replies awaited; bytes of their rests */
    uint64_t quiet_us;    /* since when nothing is heard although something is awaited */
    uint64_t in_time_us;  /* when a command was answered in time */
    unsigned late_count;  /* since then */
    uint64_t attempt_us, up_us, watched_us, back_off_us;
    bool told, told_up, pinging;
    bool lost; /* and it was not told yet: the next attempt decides */
    struct link_script *scripts;
    struct strbuf scratch;
    _Atomic uint64_t commands, connects, failures[REDIS_FAILURES];
};

/* ---- redis_flight.c ---- */

/* Prepares what it needs of a fresh link. */
void redis_flight_init(struct redis_link *link);

/* Ends the waiting of all commands with that. Commands must not be sendable any more. */
void redis_flight_fail_all(struct redis_link *link, enum redis_failure why);

/* Forgets all commands without a call. */
void redis_flight_forget_all(struct redis_link *link);

/* Sends a PING of the link's own; one at a time. */
void redis_flight_ping(struct redis_link *link, uint64_t now_us);

/* ---- redis_link.c ---- */

/* The connection is lost or of no use. */
void redis_link_lose(struct redis_link *link, const char *why);

/* It answers in time (again), or not in time. */
void redis_link_come_up(struct redis_link *link);
void redis_link_stall(struct redis_link *link);

/* Counts one more: one writer, others may read. */
static inline void redis_link_tally(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

#endif
