/* Handlers of the gateway's own routes. */
#ifndef WEIR_GATEWAY_HANDLE_META_H
#define WEIR_GATEWAY_HANDLE_META_H

#include "gateway/call.h"

void handle_index(struct call *call);   /* GET /: what there is */
void handle_livez(struct call *call);   /* GET /livez: 200 */
void handle_readyz(struct call *call);  /* GET /readyz, /health: 503 while draining; the backends in the body */
void handle_metrics(struct call *call); /* GET /metrics: to loopback, or where the route says public or wants a key */
void handle_version(struct call *call); /* GET /version */

#endif
