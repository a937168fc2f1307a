/* What the process is told by signals: SIGTERM and SIGINT drain it and, the second time, end it at once; SIGHUP reads
 * the configuration again; SIGUSR2 starts the program anew and drains this one once the new one serves. A thread of its
 * own waits for them. */
#ifndef WEIR_GATEWAY_SIGNALS_H
#define WEIR_GATEWAY_SIGNALS_H

struct server;

/* Blocks the signals for this thread and all that it will make. */
void signals_block(void);

/* Starts the thread that obeys them. The server must have all its workers. */
void signals_start(struct server *server);

/* Ends the thread, once server->ended is set. */
void signals_stop(void);

#endif
