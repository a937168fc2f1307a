/* The request that asks for a WebSocket: what it must say, what it offers. */
#include "base/http_text.h"
#include "gateway/http_call.h"
#include "gateway/ws_bridge.h"
#include <stdio.h>

/* RFC 6455 §4.1: 16 bytes in base64 (RFC 4648 §4). */
static bool is_key(struct span key)
{
    if (key.len != 24 || memcmp(key.base + 22, "==", 2) != 0)
        return false;
    for (size_t i = 0; i < 22; i++) {
        char c = key.base[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/'))
            return false;
    }
    return true;
}

static size_t count_header(const struct call *call, struct span name)
{
    size_t n = 0;
    for (size_t i = 0; i < call->header_count; i++)
        n += span_eq(call->headers[i].name, name);
    return n;
}

/* The host of an origin, without its port; empty if it has none ("null"). */
static struct span origin_host(struct span origin)
{
    const char *start = memmem(origin.base, origin.len, "://", 3);
    if (start == NULL)
        return SPAN_NONE;
    struct span host = span_skip(origin, (size_t)(start - origin.base) + 3);
    if (host.len == 0)
        return SPAN_NONE;
    const char *end = host.base[0] == '[' ? memchr(host.base, ']', host.len) : NULL;
    const char *colon =
        memchr(end != NULL ? end : host.base, ':', host.len - (end != NULL ? (size_t)(end - host.base) : 0));
    if (colon != NULL)
        host.len = (size_t)(colon - host.base);
    return host;
}

/* A gateway without keys trusts whoever can connect, and a browser on this machine can: the pages of any site could
 * talk to it in its user's name, since browsers hold WebSockets to no CORS. So, without a list, pages must come from
 * this machine or from the host that they ask. */
static bool origin_is_near(const struct call *call, struct span origin)
{
    static const struct span near[] = {SPAN("localhost"), SPAN("127.0.0.1"), SPAN("[::1]")};
    struct span host = origin_host(origin);
    const h2o_iovec_t *authority = &http_call_of((struct call *)call)->req->authority;
    char asked[300];
    int n = snprintf(asked, sizeof(asked), "//%.*s", (int)authority->len, authority->base);
    const char *same =
        memmem(origin.base, origin.len, asked, n > 0 && n < (int)sizeof(asked) ? (size_t)n : sizeof(asked));
    return host.len != 0 && (span_in(host, near, sizeof(near) / sizeof(near[0])) ||
                             (same != NULL && same + n == origin.base + origin.len));
}

static bool origin_is_allowed(const struct call *call)
{
    const struct config *config = call->site->config;
    struct span origin = call_header(call, SPAN("origin"));
    if (origin.len == 0) /* only browsers send one, and always do */
        return true;
    if (config->websocket.origin_count == 0)
        return config->key_count != 0 || origin_is_near(call, origin);
    for (size_t i = 0; i < config->websocket.origin_count; i++)
        if (strcmp(config->websocket.origins[i], "*") == 0 || span_eq(span_of(config->websocket.origins[i]), origin))
            return true;
    return false;
}

static bool refuse(struct call *call, int status, const char *code, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .message = message};
    call_refuse(call, "websocket_handshake", &error);
    return false;
}

bool ws_handshake_check(struct call *call)
{
    struct http_call *http = http_call_of(call);
    if (http == NULL || http->req->version >= 0x200)
        return refuse(call, 400, "bad_handshake", "A WebSocket begins with an HTTP/1.1 request; this was another.");
    struct span upgrade = {http->req->upgrade.base, http->req->upgrade.len};
    if (!span_ieq(upgrade, SPAN("websocket")) || http->req->version < 0x101) {
        http_reply_header(http, SPAN("upgrade"), SPAN("websocket")); /* RFC 9110 §15.5.22 */
        return refuse(call, 426, "upgrade_required",
                      "This is a WebSocket: ask with 'Upgrade: websocket' over HTTP/1.1.");
    }
    if (!span_eq(call_header(call, SPAN("sec-websocket-version")), SPAN("13"))) {
        http_reply_header(http, SPAN("upgrade"), SPAN("websocket"));
        http_reply_header(http, SPAN("sec-websocket-version"), SPAN("13"));
        return refuse(call, 426, "upgrade_required", "Only version 13 of the WebSocket protocol is served.");
    }
    if (count_header(call, SPAN("sec-websocket-key")) != 1 || !is_key(call_header(call, SPAN("sec-websocket-key"))))
        return refuse(call, 400, "bad_handshake", "Sec-WebSocket-Key must be 16 bytes in base64, once.");
    if (call->body.len != 0)
        return refuse(call, 400, "bad_handshake", "A WebSocket's request has no body.");
    if (!origin_is_allowed(call))
        return refuse(call, 403, "origin_not_allowed", "This Origin may not open WebSockets here.");
    return true;
}

static bool is_credential(struct span protocol)
{
    return span_starts(protocol, SPAN("openai-insecure-api-key.")) ||
           span_starts(protocol, SPAN("openai-organization.")) || span_starts(protocol, SPAN("openai-project."));
}

bool ws_offered_protocol(const struct call *call, size_t *cursor, struct span *protocol)
{
    struct span offered;
    while (call_subprotocol(call, cursor, &offered)) {
        if (is_credential(offered) || !http_text_is_token(offered))
            continue;
        *protocol = offered;
        return true;
    }
    return false;
}
