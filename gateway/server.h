/* The running gateway: listeners, workers, signals and the drain at the end. */
#ifndef WEIR_GATEWAY_SERVER_H
#define WEIR_GATEWAY_SERVER_H

#include "gateway/config.h"

/* Serves until SIGTERM, SIGINT or SIGHUP has been obeyed. Takes over the caller's reference to `config`. Returns the
 * process's exit status: 0 after a drain, 1 with one line on stderr if it could not start (a port in use, a certificate
 * that does not load). */
int server_run(struct config *config);

#endif
