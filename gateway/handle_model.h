/* Handlers of the routes that a model server answers. */
#ifndef WEIR_GATEWAY_HANDLE_MODEL_H
#define WEIR_GATEWAY_HANDLE_MODEL_H

#include "gateway/call.h"

/* A route with a body descriptor: the model is in the body. */
void handle_model(struct call *call);

/* Anything passed on as it is; the backend is found by a model in a JSON or multipart body, else it is the default one.
 */
void handle_pass(struct call *call);

#endif
