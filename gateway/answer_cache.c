#include "gateway/answer_cache.h"
#include "base/clock.h"
#include "cache/control.h"
#include "cache/writer.h"
#include "gateway/depend.h"
#include "gateway/limit.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>

/* ---- the question ---- */

static enum depend_result bypass(struct call *call, const char *reason)
{
    call->cache.state = CALL_CACHE_BYPASS;
    telemetry_cached(call->worker, "bypass", reason);
    return DEPEND_NEXT;
}

/* On an open gateway a client's own credentials go along to the backend, and answers belong to them: a digest of all of
 * them, or false if there are none. */
static bool digest_credentials(const struct call *call, unsigned char digest[SHA256_DIGEST_LENGTH])
{
    static const struct span names[] = {SPAN("authorization"), SPAN("x-api-key"), SPAN("api-key")};
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    bool any = false;
    EVP_DigestInit_ex(sha, EVP_sha256(), NULL);
    for (uint64_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        for (size_t i = 0; i < call->header_count; i++) {
            if (!span_eq(call->headers[i].name, names[n]))
                continue;
            uint64_t sizes[2] = {n, call->headers[i].value.len};
            EVP_DigestUpdate(sha, sizes, sizeof(sizes));
            EVP_DigestUpdate(sha, call->headers[i].value.base, call->headers[i].value.len);
            any = true;
        }
    }
    EVP_DigestFinal_ex(sha, digest, NULL);
    EVP_MD_CTX_free(sha);
    return any;
}

/* `digest` holds the scope's name, if it is one. */
static void set_scope(const struct call *call, struct cache_question *question,
                      unsigned char digest[SHA256_DIGEST_LENGTH])
{
    question->scope = CACHE_SCOPE_SHARED;
    if (call->site->config->key_count == 0 && digest_credentials(call, digest)) {
        question->scope = CACHE_SCOPE_CREDENTIAL;
        question->scope_name = (struct span){(const char *)digest, SHA256_DIGEST_LENGTH};
    } else if (!call->site->config->cache.shared && call->identity != NULL) {
        question->scope = CACHE_SCOPE_KEY;
        question->scope_name = span_of(call->identity->name);
    }
}

/* Makes the call's key. NULL, or why there is none. */
static const char *make_key(struct call *call)
{
    struct cache_header headers[call->header_count + 1];
    struct cache_key_facts facts;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    for (size_t i = 0; i < call->header_count; i++)
        headers[i] = (struct cache_header){call->headers[i].name, call->headers[i].value};
    struct cache_question question = {
        .method = call->method,
        .path = call->path,
        .query = call->query,
        .model = call_model(call),
        .headers = headers,
        .header_count = call->header_count,
        .body = call->body,
    };
    set_scope(call, &question, digest);
    enum cache_key_result result = cache_key_make(call->worker->keyer, &question, &call->cache.key, &facts);
    if (result != CACHE_KEY_MADE)
        return cache_key_result_name(result);
    if (call->site->config->cache.deterministic && !facts.deterministic)
        return "not_deterministic";
    if (call->route->route.dialect == DIALECT_RESPONSES && !facts.stateless)
        return "stateful";
    return NULL;
}

/* ---- the answer ---- */

static enum depend_result answer_hit(struct call *call, struct cache_entry *entry, uint64_t now_us)
{
    call->cache.state = CALL_CACHE_HIT;
    call->cache.entry = entry;
    call->cache.age = cache_entry_age(entry, now_us);
    telemetry_cached(call->worker, "hit", "");
    limit_refund_hit(call);
    struct span etag = span_of(cache_entry_etag(entry));
    if (etag.len != 0 && cache_etag_matches(call_header(call, SPAN("if-none-match")), etag)) {
        call->transport->answer(call, 304, SPAN_NONE, SPAN_NONE);
        return DEPEND_ANSWERED;
    }
    struct header headers[entry->header_count + 1];
    for (size_t i = 0; i < entry->header_count; i++)
        headers[i] = (struct header){entry->headers[i].name, entry->headers[i].value};
    struct exchange_head head = {
        .status = entry->status,
        .headers = headers,
        .header_count = entry->header_count,
        .content_length = entry->sse ? UINT64_MAX : entry->facts.bytes,
        .sse = entry->sse,
    };
    struct stream *stream = cache_entry_replay(entry);
    call->transport->stream(call, &head, stream);
    stream_release(stream);
    return DEPEND_ANSWERED;
}

static enum depend_result refuse_uncached(struct call *call)
{
    struct dialect_error error = {.status = 504,
                                  .code = "not_cached",
                                  .message = "The answer is not in the cache (Cache-Control: only-if-cached)."};
    call_refuse(call, "not_cached", &error);
    return DEPEND_REFUSED;
}

static void read_control(const struct call *call, struct cache_control *control)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (span_eq(call->headers[i].name, SPAN("cache-control")))
            cache_control_parse(control, call->headers[i].value);
}

enum depend_result depend_cache(struct call *call)
{
    const struct config *config = call->site->config;
    struct cache_control control = {0};
    /* A key that may not use the model is refused by the handler, whoever has the answer. */
    if (!config->cache.on || !call_may_use_model(call))
        return DEPEND_NEXT;
    enum cache_switch wish = cache_switch_parse(call_header(call, SPAN("x-weir-cache")));
    read_control(call, &control);
    const char *reason = wish == CACHE_OFF                          ? "off"
                         : config->cache.opt_in && wish != CACHE_ON ? "not_opted_in"
                         : control.no_store                         ? "no_store"
                         : call->has_body                           ? make_key(call)
                                                                    : "no_body";
    struct cache_entry *entry = NULL;
    uint64_t now = clock_us();
    if (reason == NULL && !control.no_cache)
        entry = cache_memory_lookup(call->worker->server->cache, &call->cache.key, now);
    if (entry != NULL && cache_control_accepts(&control, cache_entry_age(entry, now)))
        return answer_hit(call, entry, now);
    if (entry != NULL)
        cache_entry_release(entry);
    if (control.only_if_cached)
        return refuse_uncached(call);
    if (reason != NULL)
        return bypass(call, reason);
    call->cache.state = CALL_CACHE_MISS;
    telemetry_cached(call->worker, "miss", "");
    return DEPEND_NEXT;
}

void answer_cache_store(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    if (call->cache.state != CALL_CACHE_MISS)
        return;
    struct cache_header headers[head->header_count + 1];
    for (size_t i = 0; i < head->header_count; i++)
        headers[i] = (struct cache_header){head->headers[i].name, head->headers[i].value};
    struct cache_writer_settings settings = {
        .memory = call->worker->server->cache,
        .key = call->cache.key,
        .ttl_us = call->site->config->cache.ttl_us,
        .scope_name = call->identity != NULL ? span_of(call->identity->name) : SPAN_NONE,
        .model = call_model(call),
        .status = head->status,
        .headers = headers,
        .header_count = head->header_count,
    };
    cache_writer_start(&settings, stream);
}

/* ---- what the client is told ---- */

void answer_cache_headers(const struct call *call, void (*add)(void *ctx, struct span name, struct span value),
                          void *ctx)
{
    static const struct span words[] = {
        [CALL_CACHE_HIT] = SPAN("HIT"), [CALL_CACHE_MISS] = SPAN("MISS"), [CALL_CACHE_BYPASS] = SPAN("BYPASS")};
    if (call->cache.state == CALL_CACHE_UNUSED)
        return;
    add(ctx, SPAN("x-cache"), words[call->cache.state]);
    if (call->cache.entry == NULL)
        return;
    char age[24];
    snprintf(age, sizeof(age), "%llu", (unsigned long long)call->cache.age);
    add(ctx, SPAN("age"), span_of(age));
    struct span etag = span_of(cache_entry_etag(call->cache.entry));
    if (etag.len != 0)
        add(ctx, SPAN("etag"), etag);
}

void answer_cache_end(struct call *call)
{
    if (call->cache.entry != NULL)
        cache_entry_release(call->cache.entry);
    call->cache.entry = NULL;
}
