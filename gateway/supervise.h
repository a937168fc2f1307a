/* The supervisor: a small process without threads that holds the listening sockets and keeps one serving process
 * running. If that dies, the next one finds the connections that have queued meanwhile. Signals go to the serving
 * process, but for SIGUSR2: then the supervisor becomes the new program, starts a serving process of it, and drains the
 * old one once that serves. */
#ifndef WEIR_GATEWAY_SUPERVISE_H
#define WEIR_GATEWAY_SUPERVISE_H

#include "gateway/config.h"
#include "gateway/handover.h"

/* Supervises until the serving process has ended as it was told to. Takes over the caller's reference to `config`.
 * Returns the process's exit status. */
int supervise_run(struct config *config, struct handover *handover);

/* The new program cannot run with its configuration, whereas the old one still serves: supervises that and tells what
 * is wrong; never gives it up. Returns the exit status once it has ended. */
int supervise_old(struct handover *handover, const char *problem);

#endif
