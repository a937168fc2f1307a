/* Looks after the servers of a fleet from one worker: asks those that want it for their health and for their models,
 * has names looked up (resolve.h), and removes those that are to leave once they are idle. One thread, the pool's.
 *
 * A question is a GET that must be answered in time; its body is bounded. The next one is asked an interval after the
 * last, give or take a tenth, so that many gateways do not ask in step. */
#ifndef WEIR_BACKENDS_PROBE_H
#define WEIR_BACKENDS_PROBE_H

#include "backends/pool.h"

struct prober;

/* Begins to look after the pool's fleet. Takes a count of the pool. */
struct prober *prober_create(struct pool *pool, struct deadlines *deadlines);

/* Stops; questions under way are cancelled. NULL is fine. */
void prober_destroy(struct prober *prober);

#endif
