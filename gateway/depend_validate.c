#include "base/strbuf.h"
#include "gateway/chat.h"
#include "gateway/depend.h"
#include <stdio.h>

static enum depend_result refuse(struct call *call, int status, const char *refusal, const char *param,
                                 const char *message, const char *detail)
{
    struct dialect_error error = {.status = status, .param = param, .message = message, .detail_json = detail};
    call_refuse(call, refusal, &error);
    return DEPEND_REFUSED;
}

/* application/json, application/…+json, with any parameters. A body without a type is taken at its word. */
static bool is_json_type(struct span type)
{
    const char *semicolon = type.len != 0 ? memchr(type.base, ';', type.len) : NULL;
    if (semicolon != NULL)
        type.len = (size_t)(semicolon - type.base);
    type = span_trim(type);
    return type.len == 0 || span_ieq(type, SPAN("application/json")) ||
           (type.len > 17 && span_ieq((struct span){type.base, 12}, SPAN("application/")) &&
            span_ieq(span_skip(type, type.len - 5), SPAN("+json")));
}

enum depend_result depend_validate(struct call *call)
{
    const struct body_descriptor *body = call->route->route.body;
    char message[200], detail[256];
    if (body == NULL)
        return DEPEND_NEXT;
    if (chat_refused(call))
        return DEPEND_REFUSED;
    if (!is_json_type(call->content_type))
        return refuse(call, 415, "content_type", NULL,
                      "The request body must be JSON: send Content-Type: application/json.", NULL);
    call_scan_body(call, body);
    if (call->scan == CALL_BAD_JSON) {
        const struct json_error *bad = &call->json_error;
        struct strbuf json;
        snprintf(message, sizeof(message), "We could not parse the JSON body of your request: %s (byte %zu).",
                 bad->message, bad->offset);
        strbuf_init_fixed(&json, detail, sizeof(detail));
        strbuf_printf(&json, "[{\"type\":\"json_invalid\",\"loc\":[\"body\",%zu],\"msg\":\"JSON decode error\",",
                      bad->offset);
        strbuf_puts(&json, "\"input\":{},\"ctx\":{\"error\":");
        strbuf_json(&json, span_of(bad->message));
        strbuf_puts(&json, "}}]");
        return refuse(call, 400, "invalid_json", NULL, message, strbuf_cstr(&json));
    }
    struct body_problem problem;
    if (!body_check(body, &call->root, call->fields, &problem))
        return refuse(call, 400, "invalid_body", problem.param, problem.message, problem.detail);
    if (call->model_len == 0)
        return refuse(call, 400, "invalid_body", "model", "'model' is too long or is not valid Unicode.", NULL);
    return DEPEND_NEXT;
}
