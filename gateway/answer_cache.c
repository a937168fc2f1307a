#include "gateway/answer_cache.h"
#include "base/clock.h"
#include "cache/control.h"
#include "cache/redis_cache.h"
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
    telemetry_cached(call->worker, CALL_CACHE_BYPASS, reason);
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
static void set_scope(struct call *call, struct cache_question *question, unsigned char digest[SHA256_DIGEST_LENGTH])
{
    question->scope = CACHE_SCOPE_SHARED;
    if (call->site->config->key_count == 0 && digest_credentials(call, digest)) {
        question->scope = CACHE_SCOPE_CREDENTIAL;
        question->scope_name = (struct span){(const char *)digest, SHA256_DIGEST_LENGTH};
    } else if (!call->site->config->cache.shared && call->identity != NULL) {
        question->scope = CACHE_SCOPE_KEY;
        call->cache.by_key = true;
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
    struct call_target target = call_target(call);
    struct cache_question question = {
        .method = target.method,
        .path = target.path,
        .query = target.query,
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

/* `lookup`: the entry's body is still in Redis; NULL: the entry is whole. The call may be gone afterwards. */
static void answer_hit(struct call *call, struct cache_entry *entry, struct redis_lookup *lookup)
{
    call->cache.state = CALL_CACHE_HIT;
    call->cache.entry = entry;
    call->cache.age = cache_entry_age(entry, clock_us());
    limit_refund_hit(call);
    char room[CACHE_ETAG_SIZE];
    struct span etag = span_of(cache_entry_etag(entry, room));
    if (etag.len != 0 && cache_etag_matches(call_header(call, SPAN("if-none-match")), etag)) {
        call->transport->answer(call, 304, SPAN_NONE, SPAN_NONE);
        return;
    }
    const struct cache_header *stored = cache_entry_headers(entry);
    struct header headers[entry->header_count + 1];
    for (size_t i = 0; i < entry->header_count; i++)
        headers[i] = (struct header){stored[i].name, stored[i].value};
    struct exchange_head head = {
        .status = entry->status,
        .headers = headers,
        .header_count = entry->header_count,
        .content_length = entry->sse ? UINT64_MAX : entry->bytes,
        .sse = entry->sse,
    };
    struct stream *stream = lookup != NULL ? redis_lookup_replay(lookup) : cache_entry_replay(entry);
    call_stream(call, &head, stream);
    if (lookup == NULL)
        stream_release(stream);
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

static enum depend_result miss(struct call *call, const struct cache_control *control)
{
    if (control->only_if_cached)
        return refuse_uncached(call);
    call->cache.state = CALL_CACHE_MISS;
    telemetry_cached(call->worker, CALL_CACHE_MISS, "");
    return DEPEND_NEXT;
}

/* Whose answer it is, as purges name it. */
static struct span scope_name(const struct call *call)
{
    return call->cache.by_key ? span_of(call->identity->name) : SPAN_NONE;
}

/* ---- the second level ---- */

/* A call that waits for Redis. */
struct wait {
    struct call_job job;
    struct redis_lookup lookup;
    struct call *call;
    struct cache_control control;
};

static void end_wait(struct call_job *job)
{
    struct wait *wait = H2O_STRUCT_FROM_MEMBER(struct wait, job, job);
    redis_lookup_cancel(&wait->lookup);
    free(wait);
}

static void on_looked_up(struct redis_lookup *lookup, struct cache_entry *entry, bool whole)
{
    struct wait *wait = H2O_STRUCT_FROM_MEMBER(struct wait, lookup, lookup);
    struct call *call = wait->call;
    call->job = NULL; /* ends here, whatever becomes of the call */
    call->cache.birth = lookup->birth;
    if (entry != NULL && cache_control_accepts(&wait->control, cache_entry_age(entry, clock_us()))) {
        telemetry_cached(call->worker, CALL_CACHE_HIT, "redis");
        answer_hit(call, entry, whole ? NULL : lookup);
    } else {
        if (entry != NULL)
            cache_entry_release(entry);
        if (miss(call, &wait->control) == DEPEND_NEXT)
            call_run(call);
    }
    free(wait);
}

/* DEPEND_WAIT, or DEPEND_NEXT if Redis cannot be asked. */
static enum depend_result look_in_redis(struct call *call, const struct cache_control *control)
{
    struct redis_cache *store = call->worker->cache_redis;
    if (store == NULL)
        return DEPEND_NEXT;
    struct wait *wait = h2o_mem_alloc(sizeof(*wait));
    *wait = (struct wait){.job.end = end_wait, .lookup.on_done = on_looked_up, .call = call, .control = *control};
    struct redis_lookup_question question = {
        .key = &call->cache.key, .of = {scope_name(call), call_model(call)}, .only_epochs = control->no_cache};
    if (!redis_lookup_start(&wait->lookup, store, &question)) {
        free(wait);
        return DEPEND_NEXT;
    }
    call->job = &wait->job;
    return DEPEND_WAIT;
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
    if (reason != NULL)
        return control.only_if_cached ? refuse_uncached(call) : bypass(call, reason);
    struct cache_memory *memory = call->worker->server->cache;
    struct cache_entry *entry = NULL;
    uint64_t now = clock_us();
    call->cache.birth = (struct cache_birth){.purges = cache_memory_purges(memory)};
    if (!control.no_cache)
        entry = cache_memory_lookup(memory, &call->cache.key, now);
    if (entry != NULL && cache_control_accepts(&control, cache_entry_age(entry, now))) {
        telemetry_cached(call->worker, CALL_CACHE_HIT, "");
        answer_hit(call, entry, NULL);
        return DEPEND_ANSWERED;
    }
    if (entry != NULL)
        cache_entry_release(entry);
    return look_in_redis(call, &control) == DEPEND_WAIT ? DEPEND_WAIT : miss(call, &control);
}

static void on_entry(void *store, struct cache_entry *entry, const struct cache_birth *birth)
{
    redis_cache_put(store, entry, birth);
}

void answer_cache_store(struct call *call, const struct exchange_head *head, struct stream *stream)
{
    if (call->cache.state != CALL_CACHE_MISS)
        return;
    struct cache_header headers[head->header_count + 1];
    for (size_t i = 0; i < head->header_count; i++)
        headers[i] = (struct cache_header){head->headers[i].name, head->headers[i].value};
    struct redis_cache *store = call->worker->cache_redis;
    struct cache_writer_settings settings = {
        .memory = call->worker->server->cache,
        .key = call->cache.key,
        .ttl_us = call->site->config->cache.ttl_us,
        .birth = call->cache.birth,
        .scope_name = scope_name(call),
        .model = call_model(call),
        .status = head->status,
        .headers = headers,
        .header_count = head->header_count,
        .on_entry = store != NULL ? on_entry : NULL,
        .ctx = store,
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
    char age[24], room[CACHE_ETAG_SIZE];
    snprintf(age, sizeof(age), "%llu", (unsigned long long)call->cache.age);
    add(ctx, SPAN("age"), span_of(age));
    struct span etag = span_of(cache_entry_etag(call->cache.entry, room));
    if (etag.len != 0)
        add(ctx, SPAN("etag"), etag);
}

void answer_cache_end(struct call *call)
{
    if (call->cache.entry != NULL)
        cache_entry_release(call->cache.entry);
    call->cache.entry = NULL;
}
