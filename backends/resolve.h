/* Looks up the names of servers again and again, so that all addresses of a name are servers of their own. A name with
 * one address stays one server, which is connected to by name; with several, each address is a server called
 * "NAME [ADDRESS]" that shares the settings. An address that goes is drained, and removed once it is idle (probe.h);
 * a lookup that fails changes nothing. Lookups run on libh2o's threads. One thread, the pool's. */
#ifndef WEIR_BACKENDS_RESOLVE_H
#define WEIR_BACKENDS_RESOLVE_H

#include "backends/pool.h"

#define RESOLVE_ADDRESSES_MAX 64 /* of a name */

struct resolver;

/* The pool must outlive it. */
struct resolver *resolver_create(struct pool *pool, struct deadlines *deadlines);
void resolver_destroy(struct resolver *resolver);

/* Begins with servers that are new in the fleet, and ends with those that were retired: to be called now and then. */
void resolver_follow(struct resolver *resolver);

#endif
