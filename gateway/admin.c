#include "gateway/admin.h"
#include "base/digest.h"
#include "base/json_scan.h"
#include "base/strbuf.h"
#include "gateway/worker.h"
#include <stdio.h>

#define DETAIL_MAX 4096
#define BODY_MAX 65536
#define INPUT_MAX 1024 /* of a bad value that is quoted */

struct identity *admin_find(const struct call *call)
{
    unsigned char hash[DIGEST_SHA256_LEN];
    struct span key = depend_credential(call);
    if (key.len == 0 || call->site->config->admin.key_count == 0)
        return NULL;
    digest_sha256(key, hash);
    return site_admin_find(call->site, hash);
}

void admin_refuse(struct call *call)
{
    bool given = depend_credential(call).len != 0;
    struct dialect_error error = {
        .status = 401,
        .code = given ? "invalid_admin_key" : NULL,
        .message = given ? "Incorrect admin key provided."
                         : "This needs an admin key. Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
        .detail_json = "\"Not authenticated\""};
    call_refuse(call, given ? "invalid_admin_key" : "no_admin_key", &error);
}

enum depend_result depend_admin_key(struct call *call)
{
    struct identity *admin = admin_find(call);
    if (admin == NULL) {
        if (!depend_key_failed(call, SPAN("admin")))
            admin_refuse(call);
        return DEPEND_REFUSED;
    }
    security_event(call->worker, SECURITY_ADMIN, &call->client, call->route->route.path);
    call->identity = identity_retain(admin);
    return DEPEND_NEXT;
}

void admin_refuse_body(struct call *call, const struct admin_problem *problem)
{
    char memory[DETAIL_MAX], message[300];
    struct strbuf detail;
    strbuf_init_fixed(&detail, memory, sizeof(memory));
    strbuf_puts(&detail, "[{\"type\":");
    strbuf_json(&detail, span_of(problem->type));
    strbuf_puts(&detail, ",\"loc\":[\"body\"");
    if (problem->member != NULL) {
        strbuf_puts(&detail, ",");
        strbuf_json(&detail, span_of(problem->member));
    }
    if (problem->offset != NULL)
        strbuf_printf(&detail, ",%zu", *problem->offset);
    strbuf_puts(&detail, "],\"msg\":");
    strbuf_json(&detail, span_of(problem->msg));
    strbuf_puts(&detail, ",\"input\":");
    strbuf_add(&detail, problem->input.len != 0 && problem->input.len <= INPUT_MAX ? problem->input : SPAN("null"));
    if (problem->ctx != NULL) {
        strbuf_puts(&detail, ",\"ctx\":");
        strbuf_puts(&detail, problem->ctx);
    }
    strbuf_puts(&detail, "}]");
    snprintf(message, sizeof(message), "Invalid body%s%.64s: %s", problem->member != NULL ? ", " : "",
             problem->member != NULL ? problem->member : "", problem->msg);
    struct dialect_error error = {.status = 422,
                                  .param = problem->member,
                                  .message = message,
                                  .detail_json = detail.overflow ? NULL : strbuf_cstr(&detail)};
    call_refuse(call, "invalid_body", &error);
}

static void refuse_json(struct call *call, const struct json_error *bad)
{
    char memory[200];
    struct strbuf ctx;
    strbuf_init_fixed(&ctx, memory, sizeof(memory));
    strbuf_puts(&ctx, "{\"error\":");
    strbuf_json(&ctx, span_of(bad->message));
    strbuf_puts(&ctx, "}");
    struct admin_problem problem = {.type = "json_invalid",
                                    .offset = &bad->offset,
                                    .msg = "JSON decode error",
                                    .input = SPAN("{}"),
                                    .ctx = strbuf_cstr(&ctx)};
    admin_refuse_body(call, &problem);
}

bool admin_read_body(struct call *call, const struct span *members, size_t count, struct json_value *values,
                     struct json_value *root)
{
    struct json_error bad;
    if (call->body.len > BODY_MAX) {
        struct dialect_error error = {.status = 413, .message = "The request body is too large."};
        call_refuse(call, "body_too_large", &error);
        return false;
    }
    if (json_scan(call->body, members, count, values, root, &bad))
        return true;
    refuse_json(call, &bad);
    return false;
}
