#include "gateway/handle_model.h"
#include "gateway/completion.h"

/* Refuses a call whose key may not use its model. */
static bool may_use_model(struct call *call)
{
    if (call_may_use_model(call))
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
