/* A new configuration for a running gateway: read and checked whole first; what is wrong changes nothing. What is right
 * goes to all workers and holds for the requests that come then, whereas those that run keep the old one. Addresses,
 * the number of workers and the sizes of stores take an upgrade (SIGUSR2) or a restart instead, which the log says. */
#ifndef WEIR_GATEWAY_RELOAD_H
#define WEIR_GATEWAY_RELOAD_H

#include <stdbool.h>
#include <stddef.h>

struct server;

/* Reads the configuration again, from where it came at the start. False, with a message, if it cannot be used. Both are
 * logged. Blocks for as long as files take to read; any thread. */
bool reload(struct server *server, char *error, size_t error_size);

#endif
