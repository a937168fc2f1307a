/* Listening sockets that pass from one process to the next, so that nobody who connects in between is refused: an
 * upgrade starts the new program with the old one's sockets and waits until it serves; a supervisor keeps the sockets
 * while it starts the serving process again.
 *
 *      old  ── WEIR_HANDOVER: addresses and descriptors, the pipe ──▶  new
 *           ◀──────────────── one byte: it serves ─────────────────
 *           (drains)                                  or the pipe is closed: it has failed, the old one goes on
 *
 * Main thread and, for the sender's side, the one that handles signals. */
#ifndef WEIR_GATEWAY_HANDOVER_H
#define WEIR_GATEWAY_HANDOVER_H

#include "gateway/listener.h"
#include <sys/types.h>

/* ---- the process that takes over ---- */

#define HANDOVER_FORMER_MAX 16 /* processes that drain at the same time; any more nobody waits for */

enum handover_role {
    HANDOVER_RUN,   /* the command line decides */
    HANDOVER_SERVE, /* serve, for a supervisor */
    HANDOVER_CHECK, /* look at the configuration and end */
};

/* What was handed over to this process. Zero-initialised means nothing. */
struct handover {
    char *_text; /* the variable's value */
    int _ready;  /* the pipe to the process that waits; 0: none */
    enum handover_role role;
    bool logs; /* there is a log already, whose format log_set has been told: what goes wrong belongs there */
    pid_t old; /* the serving process of the supervisor whose place this process takes; 0: none */
    pid_t former[HANDOVER_FORMER_MAX]; /* of that supervisor: those that still drain; 0: none */
};

/* Reads the environment, and clears what it read. Nothing is handed over if the variable is not there or damaged. */
void handover_receive(struct handover *handover);

/* The sockets of an address, as the configuration writes it, which become the caller's; `fds` has room for `max`, and
 * any beyond are closed. Returns their number, 0 if there are none. */
size_t handover_take(struct handover *handover, const char *address, int *fds, size_t max);

/* Closes the sockets that nobody took. */
void handover_settle(struct handover *handover);

/* Tells the process that waits that this one serves. Once; nothing happens if nobody waits. */
void handover_ready(struct handover *handover);

/* Lets go of everything, the pipe included. */
void handover_dispose(struct handover *handover);

/* ---- the process that hands over ---- */

/* Remembers how this program was called, to call it again; before anything changes the arguments. */
void handover_remember(int argc, char **argv);

enum handover_state { HANDOVER_WAITING, HANDOVER_READY, HANDOVER_FAILED };

/* A process that was started. Zero-initialised means none. */
struct handover_child {
    pid_t pid;
    int _ready; /* the pipe; -1: closed */
    enum handover_role _role;
    uint64_t _give_up_us; /* clock_us() */
};

/* Starts this program anew, as it is on disk now, in a role, with the listeners' sockets. False with a message if no
 * process could be made. */
bool handover_start(struct handover_child *child, enum handover_role role, const struct listener *listeners,
                    size_t count, char *error, size_t error_size);

/* How the start goes, without waiting. Once it has FAILED, the process is gone and `error` says how it ended, of a
 * HANDOVER_CHECK it is READY when it has ended well; one that takes longer than a minute is killed. */
enum handover_state handover_look(struct handover_child *child, char *error, size_t error_size);

/* Ends a start that is still under way. */
void handover_cancel(struct handover_child *child);

/* Replaces this process's program, keeping its id; the new one finds the sockets, `old` and `former`. Returns only
 * on failure, with a message. */
void handover_replace(const struct listener *listeners, size_t count, pid_t old,
                      const pid_t former[HANDOVER_FORMER_MAX], char *error, size_t error_size);

#endif
