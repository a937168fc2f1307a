/* A thread's link to a Redis server: one asynchronous connection on the thread's loop, pipelined, bounded, never
 * waited for. It connects by itself and again whenever the connection is lost, after a back-off that grows, jittered,
 * from tens of milliseconds to half a second; greets (AUTH, CLIENT SETNAME, SELECT), makes sure that it has found a
 * master, and only then is up. With Sentinel it asks for the master first, each time.
 *
 *      redis_link_send ─▶ queue of the connection ─▶ on_reply(reply)
 *                    └──▶ false: down, or full       on_reply(NULL, why)   deadline, loss
 *
 * A command is embedded in its owner and belongs to the link from redis_link_send until on_reply or
 * redis_command_cancel. Redis may carry a command out although its deadline has passed or its connection was lost.
 * on_reply is never called from within redis_link_send. One thread. */
#ifndef WEIR_BASE_REDIS_LINK_H
#define WEIR_BASE_REDIS_LINK_H

#include "base/deadline.h"
#include "base/redis_url.h"
#include "base/span.h"
#include <h2o.h>
#include <hiredis/hiredis.h>

struct redis_link;
struct redis_command;

/* Why there is no reply; also the word in logs and metrics (redis_failure_name). */
enum redis_failure {
    REDIS_ANSWERED,
    REDIS_DOWN,    /* there is no connection */
    REDIS_FULL,    /* too much waits already */
    REDIS_LATE,    /* the deadline has passed */
    REDIS_LOST,    /* the connection was lost first */
    REDIS_REFUSED, /* the server will not serve: LOADING, OOM, MISCONF, READONLY, NOAUTH, BUSY … */
    REDIS_FAILURES,
};

typedef void (*redis_reply_cb)(struct redis_command *command, const redisReply *reply, enum redis_failure why);

struct redis_command {
    /* Once for each command that was sent: `reply` is valid during the call only and may be an error reply (that of a
     * wrong type, for instance); NULL says `why` there is none. */
    redis_reply_cb on_reply;
    struct redis_link *_link; /* NULL: not on its way */
    struct redis_command *_next, *_prev;
    struct redis_flight *_flight;
    uint64_t _late_us;
};

struct redis_link_settings {
    const struct redis_url *url; /* must outlive the link */
    const char *const *scripts;  /* Lua texts; static */
    size_t script_count;
    uint64_t timeout_us; /* of each command, from redis_link_send on; 0: 50 ms */
    size_t max_waiting;  /* commands; 0: 8192 */
    size_t max_bytes;    /* waiting to be written; 0: 16 MiB */
    const char *name;    /* for CLIENT SETNAME */
    /* The link came up, or went down (`why` says so in words, without secrets). Once for each change; the first call
     * is that it came up or that the first attempt failed. A steady connection that is lost and made anew by the next
     * attempt is no change. May be NULL. */
    void (*on_state)(void *ctx, bool up, const char *why);
    void *ctx;
};

/* Starts to connect; never fails. */
struct redis_link *redis_link_create(const struct redis_link_settings *settings, h2o_context_t *ctx,
                                     struct deadlines *deadlines);

/* Closes the connection; commands on their way are forgotten without a call. Not from within a callback of the link's.
 */
void redis_link_destroy(struct redis_link *link);

/* Whether commands can be sent. */
bool redis_link_up(const struct redis_link *link);

/* Sends a command of `count` pieces; they are copied. False, and `*why` says so, if it was not sent: then on_reply will
 * not be called. */
bool redis_link_send(struct redis_link *link, struct redis_command *command, const struct span *pieces, size_t count,
                     enum redis_failure *why);

/* Runs the settings' script number `script` with `key_count` keys, which are the first of `args` (EVALSHA; should the
 * server have lost the script, it is sent along and the command repeated within its deadline). */
bool redis_link_run(struct redis_link *link, struct redis_command *command, size_t script, const struct span *args,
                    size_t key_count, size_t count, enum redis_failure *why);

/* Commands are written when the loop has run its callbacks. Writes those that were sent so far at once: for what Redis
 * has to know before somebody else does. Calls nobody. */
void redis_link_flush(struct redis_link *link);

/* Forgets a command that is on its way: on_reply will not be called. Nothing happens if it is not. */
void redis_command_cancel(struct redis_command *command);

/* Added up since the start. */
struct redis_link_counts {
    uint64_t commands, connects;
    uint64_t failures[REDIS_FAILURES]; /* of commands */
};

/* Valid for as long as the link; written by its thread only, readable from others as approximations (relaxed atomics
 * inside the accessor). */
void redis_link_count(const struct redis_link *link, struct redis_link_counts *counts);

/* "answered", "down", "full", "late", "lost", "refused". */
const char *redis_failure_name(enum redis_failure failure);

#endif
