#include "cache/entry.h"
#include "base/json_scan.h"
#include "base/slab.h"
#include <h2o/memory.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

/* The others belong to the exchange that they came with: its id, its date, its limits, its connection. */
const struct span *cache_entry_keeps(struct span name)
{
    static const struct span type = SPAN("content-type"), model = SPAN("openai-model"),
                             version = SPAN("openai-version"), language = SPAN("content-language");
    switch (name.len) {
    case 12:
        return span_eq(name, type) ? &type : span_eq(name, model) ? &model : NULL;
    case 14:
        return span_eq(name, version) ? &version : NULL;
    case 16:
        return span_eq(name, language) ? &language : NULL;
    default:
        return NULL;
    }
}

/* Fetched once: looking an algorithm up by name costs more than hashing a short answer. */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static void digest_body(const struct cache_entry *entry, unsigned char out[CACHE_ETAG_LEN])
{
    struct chunk *const *chunks = cache_entry_chunks(entry);
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    pthread_once(&sha256_once, fetch_sha256);
    bool done = ctx != NULL && sha256 != NULL && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1;
    for (size_t i = 0; done && i < entry->chunk_count; i++) {
        struct span bytes = chunk_bytes(chunks[i]);
        done = EVP_DigestUpdate(ctx, bytes.base, bytes.len) == 1;
    }
    if (!done || EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        h2o_fatal("SHA-256 failed");
    EVP_MD_CTX_free(ctx);
    memcpy(out, digest, CACHE_ETAG_LEN);
}

static void write_etag(const unsigned char digest[CACHE_ETAG_LEN], char *out)
{
    static const char digits[] = "0123456789abcdef";
    *out++ = '"';
    for (int i = 0; i < CACHE_ETAG_LEN; i++) {
        *out++ = digits[digest[i] >> 4];
        *out++ = digits[digest[i] & 15];
    }
    *out++ = '"';
    *out = '\0';
}

/* False if it is none of ours. */
static bool read_etag(struct span etag, unsigned char digest[CACHE_ETAG_LEN])
{
    char check[CACHE_ETAG_SIZE];
    if (etag.len != CACHE_ETAG_SIZE - 1)
        return false;
    for (int i = 0; i < 2 * CACHE_ETAG_LEN; i++) {
        char c = etag.base[1 + i];
        unsigned char digit = (unsigned char)(c <= '9' ? c - '0' : c - 'a' + 10) & 15;
        digest[i / 2] = (unsigned char)(i % 2 == 0 ? digit << 4 : digest[i / 2] | digit);
    }
    write_etag(digest, check);
    return memcmp(check, etag.base, etag.len) == 0;
}

static struct span put(char **to, struct span bytes)
{
    struct span copy = {*to, bytes.len};
    if (bytes.len != 0)
        memcpy(*to, bytes.base, bytes.len);
    *to += bytes.len;
    return copy;
}

struct cache_entry *cache_entry_create(const struct cache_entry_parts *parts)
{
    /* One block: the entry, its headers, its chunks' pointers, the scope's name, the model, the headers' values, and
     * then, if there is one, the rest of the body, as a chunk that has the block. */
    size_t headers = 0, strings = parts->scope_name.len + parts->model.len;
    for (size_t i = 0; i < parts->header_count; i++) {
        if (cache_entry_keeps(parts->headers[i].name) == NULL)
            continue;
        headers++;
        strings += parts->headers[i].value.len;
    }
    size_t chunk_count = parts->chunk_count + (parts->rest.len != 0);
    size_t fixed =
        sizeof(struct cache_entry) + headers * sizeof(struct cache_header) + chunk_count * sizeof(struct chunk *);
    struct chunk *home = NULL;
    void *memory;
    if (parts->rest.len != 0)
        home = chunk_create_copy(parts->rest, fixed + strings, &memory);
    else
        memory = slab_alloc(fixed + strings);
    struct cache_entry *entry = memory;
    struct cache_header *header = (struct cache_header *)(entry + 1);
    struct chunk **chunks = (struct chunk **)(header + headers);
    char *at = (char *)entry + fixed;
    const struct usage *usage = &parts->facts.usage;
    *entry = (struct cache_entry){
        .key = parts->key,
        ._refs = 1,
        .status = (uint16_t)parts->status,
        .header_count = (uint16_t)headers,
        .chunk_count = (uint32_t)chunk_count,
        .sse = parts->sse,
        .has_usage = usage->known,
        ._has_home = home != NULL,
        ._verdict = parts->judged || parts->sse ? CACHE_GOOD : CACHE_UNJUDGED,
        .dialect = parts->dialect,
        .bytes = parts->facts.bytes,
        .events = parts->facts.events,
        .prompt_tokens = usage->prompt,
        .completion_tokens = usage->completion,
        .cached_tokens = usage->cached,
        ._scope_name_len = (uint32_t)parts->scope_name.len,
        ._model_len = (uint32_t)parts->model.len,
        .created_us = parts->created_us,
        .expires_us = parts->expires_us,
        .allocated = home == NULL ? slab_allocated(fixed + strings) : 0,
    };
    put(&at, parts->scope_name);
    put(&at, parts->model);
    for (size_t i = 0; i < parts->header_count; i++) {
        const struct span *name = cache_entry_keeps(parts->headers[i].name);
        if (name != NULL)
            *header++ = (struct cache_header){*name, put(&at, parts->headers[i].value)};
    }
    for (size_t i = 0; i < chunk_count; i++) {
        chunks[i] = i < parts->chunk_count ? parts->chunks[i] : home;
        entry->allocated += chunk_allocated(chunks[i]);
    }
    if (read_etag(parts->etag, entry->_etag))
        atomic_init(&entry->_has_etag, true);
    return entry;
}

const struct cache_header *cache_entry_headers(const struct cache_entry *entry)
{
    return (const struct cache_header *)(entry + 1);
}

struct chunk *const *cache_entry_chunks(const struct cache_entry *entry)
{
    return (struct chunk *const *)(cache_entry_headers(entry) + entry->header_count);
}

struct span cache_entry_scope_name(const struct cache_entry *entry)
{
    return (struct span){(const char *)(cache_entry_chunks(entry) + entry->chunk_count), entry->_scope_name_len};
}

struct span cache_entry_model(const struct cache_entry *entry)
{
    struct span before = cache_entry_scope_name(entry);
    return (struct span){before.base + before.len, entry->_model_len};
}

struct stream_facts cache_entry_facts(const struct cache_entry *entry)
{
    return (struct stream_facts){.bytes = entry->bytes,
                                 .events = entry->events,
                                 .terminal = entry->sse,
                                 .usage = {.prompt = entry->prompt_tokens,
                                           .completion = entry->completion_tokens,
                                           .cached = entry->cached_tokens,
                                           .known = entry->has_usage}};
}

static enum cache_verdict judge(const struct cache_entry *entry)
{
    static const struct span names[] = {SPAN("error")};
    struct chunk *const *chunks = cache_entry_chunks(entry);
    struct json_value error;
    struct json_error problem;
    struct span text = entry->chunk_count != 0 ? chunk_bytes(chunks[0]) : SPAN_NONE;
    char *copy = NULL;
    if (entry->chunk_count > 1) {
        size_t total = 0;
        for (size_t i = 0; i < entry->chunk_count; i++)
            total += chunk_bytes(chunks[i]).len;
        char *at = copy = h2o_mem_alloc(total);
        for (size_t i = 0; i < entry->chunk_count; i++)
            put(&at, chunk_bytes(chunks[i]));
        text = (struct span){copy, total};
    }
    bool valid = json_scan(text, names, 1, &error, NULL, &problem);
    free(copy);
    return !valid                                                  ? CACHE_NO_DOCUMENT
           : error.type == JSON_MISSING || error.type == JSON_NULL ? CACHE_GOOD
                                                                   : CACHE_TELLS_ERROR;
}

bool cache_entry_is_judged(const struct cache_entry *entry)
{
    return atomic_load_explicit(&entry->_verdict, memory_order_relaxed) != CACHE_UNJUDGED;
}

enum cache_verdict cache_entry_judge(struct cache_entry *entry)
{
    enum cache_verdict verdict = (enum cache_verdict)atomic_load_explicit(&entry->_verdict, memory_order_relaxed);
    if (verdict == CACHE_UNJUDGED) {
        verdict = judge(entry);
        atomic_store_explicit(&entry->_verdict, (unsigned char)verdict, memory_order_relaxed);
    }
    return verdict;
}

const char *cache_entry_etag(struct cache_entry *entry, char out[CACHE_ETAG_SIZE])
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards every _etag until its _has_etag */
    *out = '\0';
    if (entry->sse)
        return out;
    if (!atomic_load_explicit(&entry->_has_etag, memory_order_acquire)) {
        unsigned char digest[CACHE_ETAG_LEN];
        digest_body(entry, digest);
        pthread_mutex_lock(&lock);
        if (!atomic_load_explicit(&entry->_has_etag, memory_order_relaxed))
            memcpy(entry->_etag, digest, sizeof(digest));
        atomic_store_explicit(&entry->_has_etag, true, memory_order_release);
        pthread_mutex_unlock(&lock);
    }
    write_etag(entry->_etag, out);
    return out;
}

void cache_entry_retain(struct cache_entry *entry)
{
    atomic_fetch_add_explicit(&entry->_refs, 1, memory_order_relaxed);
}

void cache_entry_release(struct cache_entry *entry)
{
    if (atomic_fetch_sub_explicit(&entry->_refs, 1, memory_order_acq_rel) != 1)
        return;
    struct chunk *const *chunks = cache_entry_chunks(entry);
    size_t others = entry->chunk_count - (entry->_has_home ? 1 : 0);
    for (size_t i = 0; i < others; i++)
        chunk_release(chunks[i]);
    if (entry->_has_home)
        chunk_release(chunks[others]); /* and with it the entry, but for a replay */
    else
        slab_free(entry);
}

struct stream *cache_entry_replay(const struct cache_entry *entry)
{
    struct stream_settings settings = {.dialect = entry->dialect, .sse = entry->sse};
    struct stream_facts facts = cache_entry_facts(entry);
    return stream_create_ended(&settings, &facts, cache_entry_chunks(entry), entry->chunk_count);
}

uint64_t cache_entry_age(const struct cache_entry *entry, uint64_t now_us)
{
    int64_t age = (int64_t)(now_us - entry->created_us);
    return age > 0 ? (uint64_t)age / 1000000 : 0;
}
