/* What the process remembers of the addresses that connect to it: how many connections each has, how often its keys
 * were wrong, whether it floods. One table for all workers, under a lock, of fixed size: an address that finds no room,
 * because all others in its place are connected, is not held to anything but the bounds that hold for all together.
 * IPv6 counts by /64. The unspecified address (a unix socket's peer) is never held to anything. */
#ifndef WEIR_GATEWAY_CLIENTS_H
#define WEIR_GATEWAY_CLIENTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct clients;

enum clients_verdict {
    CLIENTS_ADMITTED,
    CLIENTS_TOO_MANY, /* it has as many connections as it may */
    CLIENTS_PENALTY,  /* it has flooded before, and waits */
};

/* Remembers nobody yet. Any thread may use it; NULL is fine to destroy. */
struct clients *clients_create(void);
void clients_destroy(struct clients *clients);

/* A connection from `address`. Unless it is admitted, nothing is counted. Any thread, as all that follow. */
enum clients_verdict clients_enter(struct clients *clients, const struct in6_addr *address, unsigned per_address,
                                   uint64_t now_us);

/* A connection that was admitted ends. */
void clients_leave(struct clients *clients, const struct in6_addr *address);

/* A connection from `address` was closed for flooding. Five of them in quick succession, then one every ten seconds,
 * shut the address out for ten seconds. */
void clients_flooded(struct clients *clients, const struct in6_addr *address, uint64_t now_us);

/* Counts a request whose key was wrong or missing. Returns 0 if it may be told so; else, after twenty of them and one a
 * second, the seconds after which it may try again. */
unsigned clients_key_failed(struct clients *clients, const struct in6_addr *address, uint64_t now_us);

#endif
