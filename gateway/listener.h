/* The listening sockets. Each worker has a socket of its own for every address (SO_REUSEPORT: one shared socket spreads
 * connections unevenly); a unix socket is shared. Sockets may come from the process before this one: those beyond the
 * number of workers are shared out, since what the kernel has queued on them would be lost with them. */
#ifndef WEIR_GATEWAY_LISTENER_H
#define WEIR_GATEWAY_LISTENER_H

#include "gateway/config.h"
#include <stddef.h>
#include <sys/types.h>

struct handover;

struct listener {
    const struct config_listen *settings; /* of the configuration that it was opened with */
    int *fds;                             /* at least one for each worker; workers have copies of their own */
    size_t fd_count;
    char *unix_path;   /* removed at the end; NULL: none */
    dev_t unix_device; /* the file that was made */
    ino_t unix_inode;
    bool handed_over;  /* another process serves the address now, and the unix socket is its own */
    char display[160]; /* the address with its real port */
};

/* Binds and listens for `workers` workers, with the sockets that were handed over, if there are any. A second gateway
 * on the port is refused, not joined. False with a message that names the address and the remedy. */
bool listener_open(struct listener *listener, const struct config_listen *settings, unsigned workers,
                   struct handover *handover, char *error, size_t error_size);

/* Opens all addresses of a configuration, that of administration last, into a new array, which is the caller's (free)
 * together with those that were opened, whatever the result. */
bool listener_open_all(struct listener **listeners, size_t *count, const struct config *config,
                       struct handover *handover, char *error, size_t error_size);

/* Copies of the sockets that are a worker's; `fds` has room for `max`. Returns their number. */
size_t listener_share(const struct listener *listener, unsigned worker, unsigned workers, int *fds, size_t max);

/* Closes the sockets: nobody is accepted any more but by the workers that have copies. */
void listener_stop(struct listener *listener);

/* Closes what is still open and removes a unix socket. */
void listener_close(struct listener *listener);

#endif
