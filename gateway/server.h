/* The running gateway: listeners, workers, signals and the drain at the end. */
#ifndef WEIR_GATEWAY_SERVER_H
#define WEIR_GATEWAY_SERVER_H

#include "gateway/config.h"
#include "gateway/handover.h"

/* Serves until SIGTERM or SIGINT has been obeyed. Takes over the caller's reference to `config`; `options`, from which
 * it was made, must stay valid; `handover` is what the process before this one left. Returns the
 * process's exit status: 0 after a drain, 1 with one line on stderr if it could not start (a port in use, a certificate
 * that does not load). */
int server_run(struct config *config, const struct config_options *options, struct handover *handover);

#endif
