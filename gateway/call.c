#include "gateway/call.h"
#include "gateway/depend.h"
#include <stdlib.h>

struct span call_header(const struct call *call, struct span name)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (span_eq(call->headers[i].name, name))
            return call->headers[i].value;
    return SPAN_NONE;
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
        return;
    }
    call->scan = CALL_SCANNED;
    if (call->fields[BODY_MODEL].type == JSON_STRING) {
        long n = json_string_decode(call->fields[BODY_MODEL].raw, call->model, sizeof(call->model));
        call->model_len = n > 0 ? (size_t)n : 0;
    }
}

/* The value of the form field "model" in a multipart body (RFC 7578); empty if there is none. Only the part's own
 * header lines are looked at, not what may stand in a file. */
static struct span multipart_model(struct span body)
{
    static const char field[] = "name=\"model\"";
    /* The boundary is the body's first line (RFC 2046 §5.1.1, without a preamble). */
    const char *line = memchr(body.base, '\n', body.len);
    if (line == NULL || body.len < 4 || memcmp(body.base, "--", 2) != 0)
        return SPAN_NONE;
    struct span boundary = {body.base, (size_t)(line - body.base)};
    if (boundary.len != 0 && boundary.base[boundary.len - 1] == '\r')
        boundary.len--;
    if (boundary.len < 3 || boundary.len > 80)
        return SPAN_NONE;
    const char *end = body.base + body.len, *part = body.base;
    while (part != NULL && part < end) {
        const char *head = part + boundary.len;
        const char *blank = memmem(head, (size_t)(end - head), "\r\n\r\n", 4);
        const char *next = memmem(head, (size_t)(end - head), boundary.base, boundary.len);
        if (blank == NULL || next == NULL)
            return SPAN_NONE;
        if (blank < next && memmem(head, (size_t)(blank - head), field, sizeof(field) - 1) != NULL) {
            struct span value = {blank + 4, (size_t)(next - blank - 4)};
            if (value.len >= 2 && memcmp(value.base + value.len - 2, "\r\n", 2) == 0)
                value.len -= 2;
            return value;
        }
        part = next;
    }
    return SPAN_NONE;
}

struct span call_model(struct call *call)
{
    if (call->model_len == 0 && call->body.len != 0 && call->scan == CALL_NOT_SCANNED) {
        static const char multipart[] = "multipart/form-data";
        if (call->content_type.len >= sizeof(multipart) - 1 &&
            span_ieq((struct span){call->content_type.base, sizeof(multipart) - 1}, SPAN(multipart))) {
            struct span model = multipart_model(call->body);
            if (model.len != 0 && model.len <= CALL_MODEL_MAX) {
                memcpy(call->model, model.base, model.len);
                call->model_len = model.len;
            }
            call->scan = CALL_SCANNED;
        } else {
            call_scan_body(call, call->route->route.body != NULL ? call->route->route.body : &body_any);
        }
    }
    return (struct span){call->model, call->model_len};
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

void call_run(struct call *call)
{
    static const depend_step steps[] = {
        [DEPEND_API_KEY] = depend_api_key,
        [DEPEND_VALIDATE] = depend_validate,
    };
    while (call->next_depend < call->route->depend_count) {
        enum depend_id id = call->route->depends[call->next_depend++];
        if (id != DEPEND_PUBLIC && steps[id](call) != DEPEND_NEXT)
            return;
    }
    call->route->route.handle(call);
}
