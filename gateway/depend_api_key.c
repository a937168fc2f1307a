#include "base/clock.h"
#include "base/digest.h"
#include "gateway/depend.h"
#include <stdio.h>

static enum depend_result refuse(struct call *call, int status, const char *code, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .message = message};
    if (status == 401)
        error.detail_json = "\"Not authenticated\"";
    call_refuse(call, status == 403 ? "route_not_allowed" : code != NULL ? code : "no_api_key", &error);
    return DEPEND_REFUSED;
}

/* In the order in which clients are likely to mean it. */
struct span depend_credential(const struct call *call)
{
    struct span value = call_header(call, SPAN("authorization"));
    if (value.len > 7 && span_ieq((struct span){value.base, 7}, SPAN("bearer ")))
        return span_trim(span_skip(value, 7));
    value = call_header(call, SPAN("x-api-key"));
    return value.len != 0 ? value : call_header(call, SPAN("api-key"));
}

enum depend_result depend_api_key(struct call *call)
{
    if (call->site->config->key_count == 0)
        return DEPEND_NEXT;
    struct span key = depend_credential(call);
    if (key.len == 0)
        return refuse(call, 401, NULL,
                      "You didn't provide an API key. Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.");
    unsigned char hash[DIGEST_SHA256_LEN];
    digest_sha256(key, hash);
    struct identity *identity = site_identity_find(call->site, hash);
    if (identity == NULL)
        return refuse(call, 401, "invalid_api_key", "Incorrect API key provided.");
    if (identity->expires != 0 && (int64_t)(clock_wall_us() / 1000000) >= identity->expires)
        return refuse(call, 401, "invalid_api_key", "This API key has expired.");
    call->identity = identity_retain(identity);
    if (!identity_may_use_route(identity, call->route->route.path))
        return refuse(call, 403, "route_not_allowed", "This API key may not use this route.");
    return DEPEND_NEXT;
}
