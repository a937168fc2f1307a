/* The listening sockets. Each worker has a socket of its own for every address (SO_REUSEPORT: one shared socket spreads
 * connections unevenly); a unix socket is shared. */
#ifndef WEIR_GATEWAY_LISTENER_H
#define WEIR_GATEWAY_LISTENER_H

#include "gateway/config.h"
#include <openssl/ssl.h>
#include <stddef.h>
#include <sys/types.h>

struct listener {
    const struct config_listen *settings;
    int fds[CONFIG_WORKERS_MAX]; /* one for each worker; -1: none */
    SSL_CTX *tls;                /* NULL: clear text */
    char *unix_path;             /* removed at the end; NULL: none */
    dev_t unix_device;           /* the file that was made */
    ino_t unix_inode;
    char display[160]; /* the address with its real port */
};

/* Binds and listens for `workers` workers. A second gateway on the port is refused, not joined. False with a message
 * that names the address and the remedy. */
bool listener_open(struct listener *listener, const struct config_listen *settings, unsigned workers, char *error,
                   size_t error_size);

/* Closes what is still open and removes a unix socket. */
void listener_close(struct listener *listener);

#endif
