#include "cache/entry.h"
#include "base/slab.h"
#include <h2o/memory.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#define ETAG_DIGITS 32

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

static void make_etag(const struct cache_entry *entry, char out[CACHE_ETAG_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    pthread_once(&sha256_once, fetch_sha256);
    bool done = ctx != NULL && sha256 != NULL && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1;
    for (size_t i = 0; done && i < entry->chunk_count; i++) {
        struct span bytes = chunk_bytes(entry->chunks[i]);
        done = EVP_DigestUpdate(ctx, bytes.base, bytes.len) == 1;
    }
    if (!done || EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        h2o_fatal("SHA-256 failed");
    EVP_MD_CTX_free(ctx);
    *out++ = '"';
    for (int i = 0; i < ETAG_DIGITS; i++)
        *out++ = digits[digest[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15];
    *out++ = '"';
    *out = '\0';
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
    /* One block: the entry, its headers, its chunks' pointers, then all strings, and then, if there is one, the rest of
     * the body, as a chunk that has the block. */
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
    *entry = (struct cache_entry){
        .key = parts->key,
        .status = parts->status,
        .sse = parts->sse,
        .dialect = parts->dialect,
        .headers = header,
        .header_count = headers,
        .chunks = chunks,
        .chunk_count = chunk_count,
        ._home = home,
        .facts = parts->facts,
        .created_us = parts->created_us,
        .expires_us = parts->expires_us,
        .birth = parts->birth,
        .allocated = home == NULL ? slab_allocated(fixed + strings) : 0,
        ._refs = 1,
    };
    for (size_t i = 0; i < parts->header_count; i++) {
        const struct span *name = cache_entry_keeps(parts->headers[i].name);
        if (name != NULL)
            *header++ = (struct cache_header){*name, put(&at, parts->headers[i].value)};
    }
    entry->scope_name = put(&at, parts->scope_name);
    entry->model = put(&at, parts->model);
    for (size_t i = 0; i < chunk_count; i++) {
        chunks[i] = i < parts->chunk_count ? parts->chunks[i] : home;
        entry->allocated += chunk_allocated(chunks[i]);
    }
    if (parts->etag.len != 0 && parts->etag.len < CACHE_ETAG_SIZE) {
        memcpy(entry->_etag, parts->etag.base, parts->etag.len);
        atomic_init(&entry->_has_etag, true);
    }
    return entry;
}

const char *cache_entry_etag(struct cache_entry *entry)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards every _etag until its _has_etag */
    if (entry->sse)
        return "";
    if (!atomic_load_explicit(&entry->_has_etag, memory_order_acquire)) {
        char etag[CACHE_ETAG_SIZE];
        make_etag(entry, etag);
        pthread_mutex_lock(&lock);
        if (!atomic_load_explicit(&entry->_has_etag, memory_order_relaxed))
            memcpy(entry->_etag, etag, sizeof(etag));
        atomic_store_explicit(&entry->_has_etag, true, memory_order_release);
        pthread_mutex_unlock(&lock);
    }
    return entry->_etag;
}

void cache_entry_retain(struct cache_entry *entry)
{
    atomic_fetch_add_explicit(&entry->_refs, 1, memory_order_relaxed);
}

void cache_entry_release(struct cache_entry *entry)
{
    if (atomic_fetch_sub_explicit(&entry->_refs, 1, memory_order_acq_rel) != 1)
        return;
    struct chunk *home = entry->_home;
    for (size_t i = 0; i < entry->chunk_count; i++)
        if (entry->chunks[i] != home)
            chunk_release(entry->chunks[i]);
    if (home != NULL)
        chunk_release(home); /* and with it the entry, but for a replay */
    else
        slab_free(entry);
}

struct stream *cache_entry_replay(const struct cache_entry *entry)
{
    struct stream_settings settings = {.dialect = entry->dialect, .sse = entry->sse};
    return stream_create_ended(&settings, &entry->facts, entry->chunks, entry->chunk_count);
}

uint64_t cache_entry_age(const struct cache_entry *entry, uint64_t now_us)
{
    int64_t age = (int64_t)(now_us - entry->created_us);
    return age > 0 ? (uint64_t)age / 1000000 : 0;
}
