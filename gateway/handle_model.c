#include "gateway/handle_model.h"
#include "gateway/completion.h"

static bool may_use_model(struct call *call)
{
    struct span model = call_model(call);
    const struct identity *identity = call->identity;
    if (identity == NULL || identity->model_count == 0)
        return true;
    if (!call->model_unsure && model.len != 0 && identity_may_use_model(identity, model))
        return true;
    /* What names no model may be about any, so a key that is held to some models needs the route's name in its list. */
    if (!call->model_unsure && model.len == 0 && identity->route_count != 0)
        return true;
    struct dialect_error error = {.status = 403,
                                  .code = "model_not_allowed",
                                  .param = "model",
                                  .message = "This API key may not use this model."};
    call_refuse(call, "model_not_allowed", &error);
    return false;
}

void handle_model(struct call *call)
{
    if (may_use_model(call))
        completion_start(call->completion, call);
}

void handle_pass(struct call *call)
{
    if (may_use_model(call))
        completion_start(call->completion, call);
}
