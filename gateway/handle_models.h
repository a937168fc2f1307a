/* GET /v1/models: what all backends serve, as far as the key may use it. */
#ifndef WEIR_GATEWAY_HANDLE_MODELS_H
#define WEIR_GATEWAY_HANDLE_MODELS_H

#include "gateway/call.h"

/* Asks those backends whose configuration does not name all their models, and merges the answers with the names that
 * are configured. A backend that fails, or answers something else, adds nothing. */
void handle_models(struct call *call);

#endif
