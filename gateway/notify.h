/* What a service manager is told: the protocol of systemd's sd_notify(3), datagrams to the socket that NOTIFY_SOCKET
 * names, and the watchdog of sd_watchdog_enabled(3). Does nothing where the environment names no socket. */
#ifndef WEIR_GATEWAY_NOTIFY_H
#define WEIR_GATEWAY_NOTIFY_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct server;

/* Sends assignments, one a line: "READY=1", "STOPPING=1", "MAINPID=123". Any thread. Never blocks: a manager that does
 * not read misses one. Returns whether it was sent. */
bool notify_send(const char *state);

/* Says that the configuration is being read again; "READY=1" ends it. */
void notify_reloading(void);

/* Sets the environment right for this process and those that will take over from it: they are watched like this one,
 * or not at all. Before any thread. */
void notify_begin(void);

/* The watchdog's period, in microseconds, if it is this process that is watched; 0: nobody watches. */
uint64_t notify_watchdog_us(void);

/* Waits for a signal for at most `at_most_us` microseconds, 0: for ever; meanwhile sends "WATCHDOG=1" at half the
 * watchdog's period, as long as the loop of every worker turns: a gateway that hangs is started again. Returns the
 * signal, or -1 when the time is up. For the thread that waits for signals. */
int notify_wait_signal(const struct server *server, const sigset_t *set, uint64_t at_most_us);

#endif
