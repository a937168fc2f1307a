#include "base/clock.h"
#include "base/digest.h"
#include "base/query.h"
#include "gateway/depend.h"
#include "gateway/worker.h"
#include <openssl/crypto.h>

#define QUERY_KEY_MAX 520 /* a configured key has at most 512 bytes */

static enum depend_result refuse(struct call *call, int status, const char *code, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .message = message};
    if (status == 401)
        error.detail_json = "\"Not authenticated\"";
    call_refuse(call, status == 403 ? "route_not_allowed" : code != NULL ? code : "no_api_key", &error);
    return DEPEND_REFUSED;
}

bool depend_key_failed(struct call *call, struct span detail)
{
    security_event(call->worker, SECURITY_BAD_KEY, &call->client, detail);
    unsigned wait = clients_key_failed(call->worker->server->clients, &call->client, clock_us());
    if (wait == 0)
        return false;
    struct dialect_error error = {.status = 429,
                                  .code = "too_many_failures",
                                  .message = "Too many requests without a valid API key; try again later."};
    call->record.refusal = error.code;
    call->transport->refuse(call, &error, wait, 0);
    return true;
}

/* A key that is missing or wrong. */
static enum depend_result refuse_key(struct call *call, const char *code, const char *message)
{
    if (depend_key_failed(call, span_of(code != NULL ? code : "no_api_key")))
        return DEPEND_REFUSED;
    return refuse(call, 401, code, message);
}

/* What a browser can send with a WebSocket, as OpenAI's clients do: a subprotocol that holds the key. */
static struct span credential_of_websocket(const struct call *call)
{
    static const struct span prefix = SPAN("openai-insecure-api-key.");
    struct span protocol;
    for (size_t cursor = 0; call_subprotocol(call, &cursor, &protocol);)
        if (span_starts(protocol, prefix))
            return span_skip(protocol, prefix.len);
    return SPAN_NONE;
}

/* In the order in which clients are likely to mean it. */
struct span depend_credential(const struct call *call)
{
    struct span value = call_header(call, SPAN("authorization"));
    if (value.len > 7 && span_ieq((struct span){value.base, 7}, SPAN("bearer ")))
        return span_trim(span_skip(value, 7));
    value = call_header(call, SPAN("x-api-key"));
    if (value.len == 0)
        value = call_header(call, SPAN("api-key"));
    return value;
}

/* As depend_credential, and in the ways that are left to browsers. `memory` is for one that must be decoded. */
static struct span credential(const struct call *call, struct strbuf *memory)
{
    struct span value = depend_credential(call);
    if (value.len == 0)
        value = credential_of_websocket(call);
    if (value.len == 0 && call->route->query_key && query_value(call->query, SPAN("api_key"), memory))
        value = strbuf_span(memory);
    return value;
}

static bool is_expired(const struct identity *identity)
{
    return identity->expires != 0 && (int64_t)(clock_wall_us() / 1000000) >= identity->expires;
}

/* Whose key it is; NULL: nobody's. What is remembered is compared in constant time, too, and is of the same connection.
 */
static struct identity *find_identity(struct call *call, struct span key)
{
    struct call_known_key *known = call->known_key;
    if (known != NULL && known->site == call->site->number && known->len == key.len &&
        CRYPTO_memcmp(known->bytes, key.base, key.len) == 0)
        return known->identity;
    unsigned char hash[DIGEST_SHA256_LEN];
    digest_sha256(key, hash);
    struct identity *identity = site_identity_find(call->site, hash);
    if (identity != NULL && known != NULL && key.len <= CALL_KEY_MAX) {
        known->site = call->site->number;
        known->identity = identity;
        known->len = (unsigned char)key.len;
        memcpy(known->bytes, key.base, key.len);
    }
    return identity;
}

static enum depend_result refuse_expired(struct call *call)
{
    return refuse_key(call, "invalid_api_key", "This API key has expired.");
}

enum depend_result depend_api_key(struct call *call)
{
    if (call->site->config->key_count == 0)
        return DEPEND_NEXT;
    if (call->identity != NULL) /* of the WebSocket that it came by: known, but time goes on */
        return is_expired(call->identity) ? refuse_expired(call) : DEPEND_NEXT;
    char decoded[QUERY_KEY_MAX];
    struct strbuf memory;
    strbuf_init_fixed(&memory, decoded, sizeof(decoded));
    struct span key = credential(call, &memory);
    if (key.len == 0)
        return refuse_key(call, NULL,
                          "You didn't provide an API key. Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.");
    struct identity *identity = find_identity(call, key);
    if (identity == NULL)
        return refuse_key(call, "invalid_api_key", "Incorrect API key provided.");
    if (is_expired(identity))
        return refuse_expired(call);
    call->identity = identity_retain(identity);
    if (!identity_may_use_route(identity, call->route->route.path))
        return refuse(call, 403, "route_not_allowed", "This API key may not use this route.");
    return DEPEND_NEXT;
}
