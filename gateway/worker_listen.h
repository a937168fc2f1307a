/* A worker's listening sockets: its share of the server's (see listener.h), and the connections that they bring.
 * Belongs to the worker's thread. */
#ifndef WEIR_GATEWAY_WORKER_LISTEN_H
#define WEIR_GATEWAY_WORKER_LISTEN_H

struct worker;

/* Makes the listening sockets, which accept nothing yet. */
void worker_listen_prepare(struct worker *worker);

/* Accepts connections from now on. Where descriptors run out, new ones wait until some are free again. */
void worker_listen_begin(struct worker *worker);

/* The worker has a new configuration: TLS is as it says at the addresses that it knows. Connections that there are stay
 * as they are. */
void worker_listen_take_site(struct worker *worker);

/* Accepts what waits, then listens no more; a second time does nothing. */
void worker_listen_end(struct worker *worker);

/* Frees all, after worker_listen_end and the last connection. */
void worker_listen_dispose(struct worker *worker);

#endif
