#include "gateway/call.h"
#include "gateway/admin.h"
#include "gateway/chat.h"
#include "gateway/depend.h"
#include "gateway/multipart.h"
#include "gateway/realtime.h"
#include <stdlib.h>

struct span call_header(const struct call *call, struct span name)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (span_eq(call->headers[i].name, name))
            return call->headers[i].value;
    return SPAN_NONE;
}

bool call_subprotocol(const struct call *call, size_t *cursor, struct span *protocol)
{
    /* The cursor is a header's index, and an offset in its value. */
    size_t at = *cursor >> 32, offset = *cursor & UINT32_MAX;
    for (; at < call->header_count; at++, offset = 0) {
        struct span rest = span_skip(call->headers[at].value, offset);
        if (!span_eq(call->headers[at].name, SPAN("sec-websocket-protocol")) || rest.len == 0)
            continue;
        const char *comma = memchr(rest.base, ',', rest.len);
        rest.len = comma != NULL ? (size_t)(comma - rest.base) : rest.len;
        *protocol = span_trim(rest);
        *cursor = at << 32 | (offset + rest.len + 1);
        return true;
    }
    return false;
}

void call_scan_body(struct call *call, const struct body_descriptor *descriptor)
{
    if (call->scan != CALL_NOT_SCANNED)
        return;
    struct span names[BODY_FIELDS_MAX];
    for (size_t i = 0; i < descriptor->field_count; i++)
        names[i] = descriptor->fields[i].name;
    if (!json_scan(call->body, names, descriptor->field_count, call->fields, &call->root, &call->json_error)) {
        call->scan = CALL_BAD_JSON;
        call->model_unsure = true;
        return;
    }
    call->scan = CALL_SCANNED;
    const struct json_value *model = &call->fields[BODY_MODEL];
    long n = model->type == JSON_STRING ? json_string_decode(model->raw, call->model, sizeof(call->model)) : 0;
    call->model_len = n > 0 ? (size_t)n : 0;
    call->model_unsure = model->duplicate || (model->type != JSON_MISSING && n <= 0);
}

static void read_multipart_model(struct call *call)
{
    struct span model;
    enum multipart_result result = multipart_field(call->content_type, call->body, SPAN("model"), &model);
    call->scan = CALL_SCANNED;
    if (result == MULTIPART_FOUND && model.len != 0 && model.len <= sizeof(call->model)) {
        memcpy(call->model, model.base, model.len);
        call->model_len = model.len;
    } else if (result != MULTIPART_NONE) {
        call->model_unsure = true;
    }
}

struct span call_model(struct call *call)
{
    if (call->body.len != 0 && call->scan == CALL_NOT_SCANNED) {
        if (multipart_is_form(call->content_type))
            read_multipart_model(call);
        else
            call_scan_body(call, call->route->route.body != NULL ? call->route->route.body : &body_any);
    }
    return (struct span){call->model, call->model_len};
}

bool call_may_use_model(struct call *call)
{
    struct span model = call_model(call);
    const struct identity *identity = call->identity;
    if (identity == NULL || identity->model_count == 0)
        return true;
    if (call->model_unsure)
        return false;
    /* What names no model may be about any, so a key that is held to some models needs the route's name in its list. */
    return model.len != 0 ? identity_may_use_model(identity, model) : identity->route_count != 0;
}

const struct json_value *call_field(const struct call *call, struct span name)
{
    const struct body_descriptor *body = call->route->route.body;
    for (size_t i = 0; body != NULL && call->scan == CALL_SCANNED && i < body->field_count; i++)
        if (span_eq(body->fields[i].name, name))
            return &call->fields[i];
    return NULL;
}

bool call_wants_stream(const struct call *call)
{
    return call->scan == CALL_SCANNED && call->fields[BODY_STREAM].type == JSON_BOOL && call->fields[BODY_STREAM].truth;
}

void call_refuse(struct call *call, const char *refusal, const struct dialect_error *error)
{
    call->record.refusal = refusal;
    call->transport->refuse(call, error, 0, 0);
}

void call_end_job(struct call *call)
{
    struct call_job *job = call->job;
    call->job = NULL;
    if (job != NULL)
        job->end(job);
}

struct call_target call_target(const struct call *call)
{
    if (call->chat != NULL)
        return chat_target;
    return (struct call_target){call->method, call->path, call->query};
}

void call_stream(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    if (call->chat != NULL)
        chat_stream(call, head, stream);
    else
        call->transport->stream(call, head, stream);
}

void call_run(struct call *call)
{
    const struct body_descriptor *body = call->route->route.body;
    if (body != NULL && body->from_query && !chat_prepare(call))
        return;
    if (call->route->route.handle == handle_realtime)
        realtime_prepare(call);
    static const depend_step steps[] = {
        [DEPEND_API_KEY] = depend_api_key, [DEPEND_VALIDATE] = depend_validate,   [DEPEND_LIMIT] = depend_limit,
        [DEPEND_CACHE] = depend_cache,     [DEPEND_ADMIN_KEY] = depend_admin_key,
    };
    while (call->next_depend < call->route->depend_count) {
        enum depend_id id = call->route->depends[call->next_depend++];
        if (id != DEPEND_PUBLIC && steps[id](call) != DEPEND_NEXT)
            return;
    }
    call->route->route.handle(call);
}
